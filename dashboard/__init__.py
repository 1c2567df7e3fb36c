"""The HTTP read API over the views."""
