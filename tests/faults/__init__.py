"""Faults of links, processes and hosts, done to real processes, and a ledger that shows what came of it."""
