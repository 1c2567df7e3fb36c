"""The guard's detection, measured on organisations with habits: precision, recall by rule, and honest people named."""
