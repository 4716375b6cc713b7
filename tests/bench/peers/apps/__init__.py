"""The programs of the peers. They run in a virtual environment of their own, without RestPipe."""
