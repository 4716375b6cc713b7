"""What the machine gives a process: configuration, logs, supervision, statistics."""
