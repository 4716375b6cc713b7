"""RestPipe: plain HTTP in, plain Python out, over one durable TLS pipe."""

__version__ = "1.0.0"
