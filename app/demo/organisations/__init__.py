"""Simulated organisations with habits and misuse; the ground truth is kept apart from the events."""
