"""The intake of events from the inboxes."""
