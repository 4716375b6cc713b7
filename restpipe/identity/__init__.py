"""This host's identity: installed, shown, asked for, or made at a server's first start."""
