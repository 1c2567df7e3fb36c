"""NATS requests of the HTTP API, sent as any source sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import msgspec
import nats.errors

from ledger import traces
from ledger.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from domain.serialization import Json
    from ledger.nats.client import LedgerClient

SOURCE = "dashboard"
"""The source of the dashboard's own requests."""
TIMEOUT_SECONDS = 5.0


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
    """Return the answer to a NATS request; raises like ``ask_raw``."""
    answer: ReplyFields = msgspec.json.decode(await ask_raw(client, subject, msgspec.json.encode(body), role, headers))
    return answer


async def ask_raw(
    client: LedgerClient, subject: str, body: bytes, role: str, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return the answer to a NATS request as it came.

    Raises:
        UnavailableError: the role that answers such requests gives no answer.

    """
    try:
        with traces.sending(subject, headers) as sent:
            return (await client.request(subject, body, timeout=TIMEOUT_SECONDS, headers=sent)).data
    except (nats.errors.Error, TimeoutError) as error:
        raise UnavailableError(f"no answer: is `resolution-ledger run {role}` running?") from error
