"""Event handlers to try and to start from."""
