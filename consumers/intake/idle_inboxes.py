"""Inbox streams of idle sources, released for other sources once the limit of streams is reached.

The server first routes the source back to the shared inbox. Then the stream is sealed, so that it accepts no more
messages. It is deleted once the intake has acknowledged all of its messages. After a crash at any step, the next start
finds either an unsealed stream and adds its route again, or a sealed stream and deletes it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from config import topology
from ledger.errors import jetstream_error
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ledger.nats.client import LedgerClient
    from ledger.nats.inbox_routes import SourceRoutes
    from ledger.store.api_types import ApiAnswer

ACTIVE_SECONDS = 600.0
"""Seconds without a message after which a source counts as idle."""
_SEQUENCE_GAP = 1_000_000
"""Sequences between the last known one of a deleted stream and the first of its successor."""


class _LastSequence(NamedTuple):
    """The last sequence of a stream, and the time when it was first observed."""

    last: int
    since: float


class IdleInboxes:
    """Observes the streams of sources, and releases those of idle sources."""

    def __init__(self, client: LedgerClient, routes: SourceRoutes) -> None:
        self._client = client
        self._routes = routes
        self._seen: dict[str, _LastSequence] = {}
        self.leaving: dict[str, str] = {}
        """Sealed streams, by their source's token."""

    async def observe(self) -> None:
        """Observe the last sequence of each source's stream, which shows whether the source still sends."""
        now = time.monotonic()
        states = await self._states()
        before = {name: self._seen.get(name) for name in states}
        self._seen = {
            name: seen if (seen := before[name]) is not None and seen.last == last else _LastSequence(last, now)
            for name, last in states.items()
        }

    async def _states(self) -> dict[str, int]:
        found: dict[str, int] = {}
        listed = 0
        while True:
            request = {"subject": f"{topology.SOURCE_SUBJECT}.*", "offset": listed}
            answer = await js_api(self._client, "STREAM.LIST", request)
            if "error" in answer:
                raise jetstream_error(answer["error"], "streams cannot be listed")
            page = [info for info in answer.get("streams") or [] if not isinstance(info, str)]
            listed += len(page)
            found |= {one["config"]["name"]: int(one["state"]["last_seq"]) for one in page}
            if not page or listed >= answer["total"]:
                return found

    def longest_idle(self, own: Mapping[str, str], number: int) -> list[str]:
        """Return the tokens of at most ``number`` idle sources, the longest idle first."""
        until = time.monotonic() - ACTIVE_SECONDS
        idle = [(seen.since, token) for token, name in own.items() if (seen := self._seen.get(name)) is not None]
        return [token for since, token in sorted(idle)[:number] if since <= until]

    async def release(self, tokens: Iterable[str], own: Mapping[str, str]) -> list[str]:
        """Route these sources back to the shared inbox and seal their streams; return the tokens of those still idle.

        Raises:
            UnavailableError: the server does not answer, or refuses.

        """
        released: list[str] = []
        chosen = list(tokens)
        await self._routes.remove([topology.source_route(token)[0] for token in chosen])
        for token in chosen:
            name = own[token]
            info = await js_api(self._client, f"STREAM.INFO.{name}")
            if "error" in info:
                raise jetstream_error(info["error"], name)
            if info["state"]["last_seq"] != self._seen[name].last:  # it sends again: its route is added again
                continue
            await self._routes.request_as_operator(f"STREAM.UPDATE.{name}", info["config"] | {"sealed": True})
            self.leaving[token] = name
            released.append(token)
        return released

    async def delete_drained(self) -> list[str]:
        """Delete sealed streams with all messages acknowledged; return their sources' tokens.

        Raises:
            UnavailableError: the server does not answer, or refuses.

        """
        gone: list[str] = []
        for token, name in list(self.leaving.items()):
            info = await js_api(self._client, f"STREAM.INFO.{name}")
            if "error" not in info:
                if not info["config"].get("sealed"):  # another process created it again
                    del self.leaving[token]
                    continue
                if not await self._is_drained(name, info):
                    continue
                if topology.source_route(token)[0] in self._routes.read():
                    await self._routes.remove([topology.source_route(token)[0]])
                await self._routes.request_as_operator(f"STREAM.DELETE.{name}")
            del self.leaving[token]
            self._seen.pop(name, None)
            gone.append(token)
        return gone

    async def _is_drained(self, name: str, info: ApiAnswer) -> bool:
        if not info["state"]["messages"]:
            return True
        consumer = await js_api(self._client, f"CONSUMER.INFO.{name}.{topology.INTAKE_CONSUMER}")
        if "error" in consumer:
            return False
        return not consumer["num_pending"] and not consumer["num_ack_pending"]


async def first_sequence(client: LedgerClient, token: str, noted: int) -> dict[str, int]:
    """Return the field ``first_seq`` for a stream that was deleted before, or nothing.

    Receipts name messages by stream and sequence, so a new stream starts above the sequences of its predecessor.
    ``noted`` is the highest sequence that the intake has noted.
    """
    name = topology.source_stream_name(token)
    request = {"last_by_subj": f"{topology.REJECTED_SUBJECT}.{token}.*.{name}.>"}
    answer = await js_api(client, f"STREAM.MSG.GET.{topology.REJECTED}", request)
    last = int(answer["message"]["subject"].split(".")[4]) if "message" in answer else 0
    return sequence_after(max(last, noted))


def sequence_after(last: int) -> dict[str, int]:
    """Return the field ``first_seq`` for a stream whose predecessor ended at this sequence; nothing for 0."""
    return {"first_seq": last + _SEQUENCE_GAP} if last else {}
