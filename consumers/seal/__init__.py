"""The roles `encrypt` and `archive`."""
