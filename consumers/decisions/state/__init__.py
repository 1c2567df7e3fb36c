"""The deciders' state, read from the log."""
