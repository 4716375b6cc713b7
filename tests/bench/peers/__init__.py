"""RestPipe beside what its users could pick instead. `make bench-peers`, and nothing else beside it."""
