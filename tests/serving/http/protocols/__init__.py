"""Tests of the protocols that the service speaks in addition to its own."""
