"""The HTTP API over the views, live updates, and the web page."""
