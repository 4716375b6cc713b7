"""Protocol logic without input or output: frames, sessions, streams, connections. The clock is passed in."""
