"""The role `webhooks`: sends events and notifications to subscribers."""
