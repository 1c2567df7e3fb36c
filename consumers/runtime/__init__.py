"""The runtime that all consumers share."""
