"""Recorders of the `eventsourcing` library on JetStream."""
