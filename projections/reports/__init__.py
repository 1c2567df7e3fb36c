"""Reports, computed on request."""
