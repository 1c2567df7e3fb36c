"""The demo: a simulated organisation with events and decisions like those of any source."""
