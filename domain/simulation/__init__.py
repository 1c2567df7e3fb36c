"""Policies replayed against history."""
