"""The engine that runs projections."""
