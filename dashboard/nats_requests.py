"""NATS requests of the HTTP API, sent as any source sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import nats.errors

from ledger.errors import UnavailableError

if TYPE_CHECKING:
    from ledger.nats.client import LedgerClient

SOURCE = "dashboard"
"""The source of the dashboard's own requests."""
_TIMEOUT_SECONDS = 5.0


async def ask(client: LedgerClient, subject: str, body: dict[str, Any], role: str) -> dict[str, Any]:
    """Return the answer to a NATS request.

    Raises:
        UnavailableError: the role that answers such requests gives no answer.

    """
    try:
        reply = await client.request(subject, msgspec.json.encode(body), timeout=_TIMEOUT_SECONDS)
    except (nats.errors.Error, TimeoutError) as error:
        message = f"no answer: is `resolution-ledger run {role}` running?"
        raise UnavailableError(message) from error
    answer: dict[str, Any] = msgspec.json.decode(reply.data)
    return answer
