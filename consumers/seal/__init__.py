"""The consumers that seal and archive the log."""
