"""The guard that raises flags."""
