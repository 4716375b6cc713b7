"""Tests of RestPipe."""
