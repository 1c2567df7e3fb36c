"""Connections to NATS, and the embedded server."""
