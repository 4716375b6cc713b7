"""The pipe daemon: it owns the keys, the links, the sessions and the routing, and runs no user code."""
