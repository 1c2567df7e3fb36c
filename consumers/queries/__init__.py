"""Queries over NATS."""
