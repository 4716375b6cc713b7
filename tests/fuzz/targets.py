"""All targets, by name."""

from __future__ import annotations

from tests.fuzz import files, heads, http, wire

TARGETS = wire.TARGETS | http.TARGETS | heads.TARGETS | files.TARGETS
