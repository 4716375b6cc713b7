"""The web workers: HTTP in on a Unix socket, events out to the daemon.

What may not come in: keys, connections to other hosts, user code, and anything that blocks the loop. What
HTTP allows is in `restpipe.http`. How a reply or a failure looks to a caller is in `responses`, without I/O.
"""
