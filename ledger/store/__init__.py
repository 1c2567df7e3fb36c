"""The log and its streams."""
