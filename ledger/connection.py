"""Connections to NATS that outlive a server's restart, and one made for fast reading."""

from __future__ import annotations

import logging
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.errors import NoServersError

from ledger.errors import UnavailableError

_log = logging.getLogger(__name__)
_NO_INLINE_STATUS = b"NATS/1.0\r\n"
PENDING_BYTES = 64 * 1024 * 1024


class LeanClient(Client):
    """A client that does not parse headers of stored messages: in this log they carry no meaning.

    Parsing them takes two thirds of the time of reading. Status lines of the server (no messages,
    heartbeats) are parsed as ever.
    """

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        if not headers or headers.startswith(_NO_INLINE_STATUS):
            return None
        parsed: dict[str, str] | None = await super()._process_headers(headers)
        return parsed


async def connect(url: str, name: str, *, lean: bool = False, wait_seconds: float = 5) -> Client:
    """A connection that reconnects for ever.

    Raises:
        UnavailableError: nobody answers at ``url`` within ``wait_seconds``, or refuses the credentials.

    """
    client = LeanClient() if lean else Client()
    reached = False

    async def note(error: Exception) -> None:
        # Permission violations and slow consumers show here alone; connection errors repeat
        # themselves at each attempt until one succeeds.
        level = logging.WARNING if reached else logging.DEBUG
        _log.log(level, "nats %s: %s", name, error)

    options: dict[str, Any] = {
        "servers": url.split(","),
        "name": f"resolution-ledger {name}",
        "error_cb": note,
        "max_reconnect_attempts": max(1, int(wait_seconds / 0.25)),
        "reconnect_time_wait": 0.25,
        "connect_timeout": 2,
        "pending_size": PENDING_BYTES,
        "allow_reconnect": True,
        "ping_interval": 10,
        "max_outstanding_pings": 3,
    }
    try:
        await client.connect(**options)
    except (nats.errors.Error, NoServersError, OSError, TimeoutError) as error:
        message = f"no NATS server answers at {_without_password(url)}: {error or type(error).__name__}"
        raise UnavailableError(message) from error
    reached = True
    client.options["max_reconnect_attempts"] = -1
    return client


def _without_password(url: str) -> str:
    return ",".join(part.rpartition("@")[2] for part in url.split(","))
