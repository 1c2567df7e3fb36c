"""The consumers that run projections."""
