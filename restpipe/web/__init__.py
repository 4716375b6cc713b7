"""The web workers: HTTP in on a Unix socket, events out to the daemon."""
