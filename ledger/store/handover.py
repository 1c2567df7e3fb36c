"""Handover of a durable consumer: the next reader gets every unacknowledged message again, oldest first.

JetStream redelivers a message to another reader only after `ack_wait`, behind newer messages. So a new reader creates
the consumer again at its ack floor. This redelivers all messages in stream order, numbered from 1, and ends the
requests of all earlier readers, including a suspended one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ledger.errors import jetstream_error
from ledger.store.streams import ensure_consumer, js_api

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ledger.nats.client import LedgerClient
    from ledger.store.json_text import Json

_log = logging.getLogger(__name__)
_NO_CONSUMER, _SEALED = 10014, 10109


async def take_over(client: LedgerClient, stream: str, consumer: Mapping[str, Json]) -> int:
    """Restart a durable consumer at its ack floor; return the consumer sequence of its last delivery, 0 for none.

    A consumer without unacknowledged deliveries and without other readers is left unchanged. The stream is first
    trimmed to the ack floor, since the new consumer begins at the stream's first message; a sealed stream is not
    trimmed. A crash between two steps is harmless: a missing consumer is created, and a reader recognises redelivered
    messages.

    Raises:
        DriftError: the consumer differs from the declared one.
        LedgerError: the server does not answer, or refuses.
    """
    info = await ensure_consumer(client, stream, consumer)
    if not info["num_ack_pending"] and not info["num_waiting"]:
        return int(info["delivered"]["consumer_seq"])
    name = consumer["durable_name"]
    _log.info("%s/%s begins again at its ack floor, %d", stream, name, info["ack_floor"]["stream_seq"])
    if floor := int(info["ack_floor"]["stream_seq"]):
        await _call_api(client, f"STREAM.PURGE.{stream}", {"seq": floor + 1})
    await _call_api(client, f"CONSUMER.DELETE.{stream}.{name}")
    info = await ensure_consumer(client, stream, consumer)
    return int(info["delivered"]["consumer_seq"])


async def _call_api(client: LedgerClient, subject: str, body: Mapping[str, Json] | None = None) -> None:
    answer = await js_api(client, subject, body)
    if "error" in answer and answer["error"].get("err_code") not in (_NO_CONSUMER, _SEALED):
        raise jetstream_error(answer["error"], subject)
