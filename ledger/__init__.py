"""The log: an event store on NATS JetStream. Knows nothing of refunds."""
