"""Reports that are computed when they are asked for."""
