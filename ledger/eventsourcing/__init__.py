"""The persistence module of the `eventsourcing` library."""
