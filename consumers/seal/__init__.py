"""The roles `seal` and `archive`."""
