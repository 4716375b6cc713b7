"""A randomised mix of all faults under load: `python -m tests.soak --seconds 600 --seed 7`."""
