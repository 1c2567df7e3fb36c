"""Analyses of history."""
