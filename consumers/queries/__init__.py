"""Queries that are answered over NATS."""
