"""The messages of a stream that its consumer has not acknowledged yet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from ledger.store.streams import js_api

if TYPE_CHECKING:
    from ledger.nats.client import LedgerClient

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Backlog(NamedTuple):
    """The number of waiting messages, and times by the server's clock: of the first one, of the newest ack, and now."""

    waiting: int
    first: datetime
    acknowledged: datetime
    now: datetime


async def backlog_of(client: LedgerClient, stream: str, consumer: str) -> Backlog | None:
    """Return the backlog of a consumer; ``None`` where nothing waits, or consumer and stream are gone.

    Raises:
        UnavailableError: the server does not answer.

    """
    info = await js_api(client, f"CONSUMER.INFO.{stream}.{consumer}")
    waiting = int(info.get("num_pending", 0)) + int(info.get("num_ack_pending", 0))
    if not waiting:
        return None
    after = info["ack_floor"]["stream_seq"] + 1
    first = await js_api(client, f"STREAM.MSG.GET.{stream}", {"seq": after, "next_by_subj": ">"})
    if "message" not in first:
        return None
    return Backlog(
        waiting, _moment(first["message"]["time"]), _moment(info["ack_floor"].get("last_active")), _moment(info["ts"])
    )


def _moment(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else _NEVER
