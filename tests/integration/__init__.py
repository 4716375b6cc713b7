"""Tests that drive the real processes over real sockets."""
