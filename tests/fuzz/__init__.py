"""Coverage-guided fuzzing: what a peer, a caller, a file or a certificate says, mutated without end.

Each module has targets: a check that raises only where something is wrong, and seeds to begin from.
`make fuzz` runs them by libFuzzer (atheris); `tests/unit/test_fuzz.py` tries seeds and a few mutations.
"""
