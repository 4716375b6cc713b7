"""The bundled certificate authority of a pipe; it shares no code with restpipe, their contract is X.509."""
