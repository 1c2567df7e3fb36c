"""The seal: a Merkle log over all events (RFC 6962, C2SP)."""
