"""Decisions by request and reply."""
