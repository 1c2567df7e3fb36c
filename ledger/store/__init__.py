"""The log, its streams and consumers."""
