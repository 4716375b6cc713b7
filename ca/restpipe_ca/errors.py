"""What this program raises on purpose."""

from __future__ import annotations


class CaError(Exception):
    """Something asked for cannot be done; the message is one line fit for stderr, free of secrets."""
