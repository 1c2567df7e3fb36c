"""The oldest nats-server that is accepted."""

from __future__ import annotations

OLDEST_SERVER = (2, 12, 4)
OLDEST_SERVER_TEXT = "2.12.4"
"""2.12.0 refuses decisions of several events, each with an expected sequence."""
