"""Inbox streams of idle sources, freed for others once there are as many as there may be.

The server first routes the source back to the shared inbox. Then the stream is sealed, which the server does at once:
it takes no more messages, so nothing can be acknowledged there any more. It is deleted when the intake has acknowledged
all that it holds. After a crash at any step the next start finds a stream that has its route again, or one that is
sealed and goes on to be deleted.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from config import topology
from ledger.errors import jetstream_error
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ledger.nats.client import LedgerClient
    from ledger.nats.inbox_routes import SourceRoutes

ACTIVE_SECONDS = 600.0
"""A source that sent something so lately keeps its stream."""
_APART = 1_000_000
"""Sequences between the last one that a deleted stream is known to have had and the first of its successor."""


class _Seen(NamedTuple):
    last: int
    since: float


class IdleInboxes:
    """Watches the streams of sources, and frees those that are idle."""

    def __init__(self, client: LedgerClient, routes: SourceRoutes) -> None:
        self._client = client
        self._routes = routes
        self._seen: dict[str, _Seen] = {}
        self.leaving: dict[str, str] = {}
        """Sealed streams, by their source's token."""

    async def observe(self) -> None:
        """Look how far each source's stream is; whoever takes its messages, this shows what was sent."""
        now = time.monotonic()
        states = await self._states()
        before = {name: self._seen.get(name) for name in states}
        self._seen = {
            name: seen if (seen := before[name]) is not None and seen.last == last else _Seen(last, now)
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
            page = answer.get("streams") or []
            listed += len(page)
            found |= {one["config"]["name"]: int(one["state"]["last_seq"]) for one in page}
            if not page or listed >= answer["total"]:
                return found

    def longest_idle(self, own: Mapping[str, str], number: int) -> list[str]:
        """Return the tokens of at most so many sources that sent nothing lately, the longest idle first."""
        until = time.monotonic() - ACTIVE_SECONDS
        idle = [(seen.since, token) for token, name in own.items() if (seen := self._seen.get(name)) is not None]
        return [token for since, token in sorted(idle)[:number] if since <= until]

    async def release(self, tokens: Iterable[str], own: Mapping[str, str]) -> list[str]:
        """Route these sources back to the shared inbox and seal their streams; return those that were still idle.

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
            if info["state"]["last_seq"] != self._seen[name].last:  # it woke up: its route is added again
                continue
            await self._routes.request_as_operator(f"STREAM.UPDATE.{name}", info["config"] | {"sealed": True})
            self.leaving[token] = name
            released.append(token)
        return released

    async def delete_drained(self) -> list[str]:
        """Delete sealed streams of which every message is acknowledged; return their sources' tokens.

        Raises:
            UnavailableError: the server does not answer, or refuses.

        """
        gone: list[str] = []
        for token, name in list(self.leaving.items()):
            info = await js_api(self._client, f"STREAM.INFO.{name}")
            if "error" not in info:
                if not info["config"].get("sealed"):  # another process made it anew
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

    async def _is_drained(self, name: str, info: Mapping[str, Any]) -> bool:
        if not info["state"]["messages"]:
            return True
        consumer = await js_api(self._client, f"CONSUMER.INFO.{name}.{topology.INTAKE_CONSUMER}")
        if "error" in consumer:
            return False
        return not consumer["num_pending"] and not consumer["num_ack_pending"]


async def first_sequence(client: LedgerClient, token: str, noted: int) -> dict[str, int]:
    """Return the field by which a stream that was deleted once goes on behind its old sequences.

    Receipts name messages by stream and sequence. ``noted`` is the highest sequence of a recorded event.
    """
    name = topology.source_stream_name(token)
    request = {"last_by_subj": f"{topology.REJECTED_SUBJECT}.{token}.*.{name}.>"}
    answer = await js_api(client, f"STREAM.MSG.GET.{topology.REJECTED}", request)
    last = int(answer["message"]["subject"].split(".")[4]) if "message" in answer else 0
    last = max(last, noted)
    return {"first_seq": last + _APART} if last else {}
