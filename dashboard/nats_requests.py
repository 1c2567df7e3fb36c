"""NATS requests of the HTTP API, sent as any source sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import msgspec
import nats.errors

from ledger.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from domain.serialization import Json
    from ledger.nats.client import LedgerClient

SOURCE = "dashboard"
"""The source of the dashboard's own requests."""
_TIMEOUT_SECONDS = 5.0


class ReplyFields(TypedDict, total=False):
    """The fields of an answer that the API reads; an answer to a command has more."""

    outcome: str
    error: dict[str, str]
    escalation_id: str
    position: int
    accepted: bool
    message: str


OPERATOR: Mapping[str, str] = {"Operator": "yes"}
"""The headers of a request in the name of an operator's token."""


async def ask(
    client: LedgerClient,
    subject: str,
    body: Mapping[str, Json],
    role: str,
    headers: Mapping[str, str] | None = None,
) -> ReplyFields:
    """Return the answer to a NATS request.

    Raises:
        UnavailableError: the role that answers such requests gives no answer.

    """
    try:
        reply = await client.request(subject, msgspec.json.encode(body), timeout=_TIMEOUT_SECONDS, headers=headers)
    except (nats.errors.Error, TimeoutError) as error:
        raise UnavailableError(f"no answer: is `resolution-ledger run {role}` running?") from error
    answer: ReplyFields = msgspec.json.decode(reply.data)
    return answer
