"""The asyncio shell around the protocol: sockets, TLS, dialing and listening."""
