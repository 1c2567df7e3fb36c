"""The demo: a simulated organisation whose events are published and decided as those of any source."""
