"""For authors of event handlers, and the worker process that runs their code."""
