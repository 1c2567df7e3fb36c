"""The role `projections`."""
