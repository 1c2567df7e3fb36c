"""Ordered reading of the log, and live following, by pulling in batches."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import nats.errors

from ledger.errors import LostEventsError, UnavailableError, reason_of
from ledger.store.atomic_batches import MAX_BATCH
from ledger.store.log import EarlierEvents, Log, Recorded, digest_of
from ledger.store.pull_consumer import PullConsumer, parse_ack
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ledger.nats.client import LedgerClient

_log = logging.getLogger(__name__)
_SECOND_NS = 1_000_000_000
_PAUSE_SECONDS = 0.3
_LOOKS_AT_THE_END = 2
"""Heartbeats in a row without more events that end a reading: a new leader of a cluster may be slightly behind."""
_PATIENCE_SECONDS = 60.0
"""Seconds that a reader with an end waits for an unreachable server; a reader without an end waits forever."""
_PULL_EVENTS = 4000
_BATCH_EVENTS = 4000


class ReadCursor(NamedTuple):
    """A reader's last event: its position (0: none) and the hash of its data (empty: unknown)."""

    position: int = 0
    digest: str = ""


START = ReadCursor()
"""The cursor of a reader that has read nothing."""


async def verify_cursor(log: Log, cursor: ReadCursor, reader: str) -> None:
    """Check that the log still shows a reader's last event.

    Raises:
        LostEventsError: it does not; sequence numbers may have been reused after damage.
    """
    if not cursor.digest:
        return
    found = await log.at(cursor.position)
    if found is None:
        raise LostEventsError(f"{reader} has read an event that is gone", cursor.position)
    if digest_of(found.data) != cursor.digest:
        raise LostEventsError(f"{reader} has read another event", cursor.position)


class Follower:
    """Reads one stream in order from a cursor on, and then live.

    Gaps in delivery are read again. A gap in the stream, or a changed event, raises an error, unless ``gaps`` allows
    them. Use a connection of its own, since its messages would delay other answers.
    """

    def __init__(
        self,
        client: LedgerClient,
        log: Log,
        name: str,
        cursor: ReadCursor = START,
        *,
        gaps: bool = False,
        subject: str | None = None,
    ) -> None:
        """``subject``: read only the messages of this subject, which needs ``gaps``."""
        self._subject = subject
        self._allow_gaps = gaps
        self._client = client
        self._log = log
        self._name = name
        self.cursor = cursor
        self._pull: PullConsumer[Recorded] | None = None
        self._consumer = ""
        self._delivered = 0
        self._missed = False

    async def batches(self, *, until: int | None = None) -> AsyncIterator[list[Recorded]]:
        """Yield batches of events, oldest first; without ``until`` forever.

        With ``until`` it always ends, although the server counts messages that it has lost or cannot read (a damaged
        block) and never delivers them.

        Raises:
            LostEventsError: the stream does not show an event that was read before, has a gap, or ends before
                ``until``.
            UnavailableError: with ``until``, no answer for a minute.
        """
        await verify_cursor(self._log, self.cursor, self._name)
        async for batch in self._earlier_batches(until):
            yield batch
        if until is not None and until <= self.cursor.position:
            return
        idle_heartbeats, heard_at = 0, time.monotonic()
        try:
            while True:
                try:
                    batch = await self._next_batch()
                    idle_heartbeats, heard_at = 0 if batch else idle_heartbeats + 1, time.monotonic()
                    if until is not None and idle_heartbeats >= _LOOKS_AT_THE_END:
                        batch = await self._next_at_leader()
                except (UnavailableError, nats.errors.Error) as error:
                    if until is not None and time.monotonic() - heard_at > _PATIENCE_SECONDS:
                        raise UnavailableError(f"{self._log.stream} cannot be read: {reason_of(error)}") from error
                    _log.debug("%s waits for the server: %s", self._name, error)
                    await self._start_again()
                    continue
                if until is not None and batch and batch[-1].position >= until:
                    if wanted := [event for event in batch if event.position <= until]:
                        yield wanted
                    return
                if batch:
                    yield batch
        finally:
            await self._end()

    async def _earlier_batches(self, until: int | None) -> AsyncIterator[list[Recorded]]:
        """Yield the events that have left the stream."""
        last, earlier = self._log.retired.until, self._log.earlier
        end = last if until is None else min(until, last)
        if self.cursor.position >= end:
            return
        if earlier is None:
            raise LostEventsError("the events have left the stream, and are in the archive", self.cursor.position + 1)
        batches = earlier.batches(self.cursor.position, end)
        if self._subject is not None:
            batches = _batches_of(earlier, self._subject, self.cursor.position, end)
        async for batch in batches:
            self._check_gaps(batch)
            self.cursor = ReadCursor(batch[-1].position, digest_of(batch[-1].data))
            yield batch
        if self.cursor.position < end:
            if not self._allow_gaps:
                raise LostEventsError("an event is missing", self.cursor.position + 1)
            self.cursor = ReadCursor(end)

    async def _next_batch(self) -> list[Recorded]:
        if self._pull is None:
            self._pull = await self._begin()
        batch = await self._pull.next(_BATCH_EVENTS)
        if self._missed:
            raise UnavailableError("a message was lost on the way")
        self._check_gaps(batch)
        if batch:
            self.cursor = ReadCursor(batch[-1].position, digest_of(batch[-1].data))
        return batch

    async def _next_at_leader(self) -> list[Recorded]:
        """Return the next event as the stream's leader has it, although the consumer did not deliver it."""
        found = await self._log.read_from_leader(">", self.cursor.position)
        await self._log.require_same_stream()
        if found is None:
            raise LostEventsError("an event is missing", self.cursor.position + 1)
        await self._end()  # the next consumer begins after it
        self._check_gaps([found])
        self.cursor = ReadCursor(found.position, digest_of(found.data))
        return [found]

    def _recorded(self, subject: bytes, reply: bytes, _headers: bytes, data: bytes) -> Recorded:
        _, position, delivered, _ = parse_ack(reply)
        self._delivered += 1
        if delivered != self._delivered:
            self._missed = True
        return Recorded(position, subject.decode(), data)

    def _check_gaps(self, batch: list[Recorded]) -> None:
        """Check that positions are consecutive; they come in order, so that the last one is enough."""
        expected = self.cursor.position + 1
        if self._allow_gaps or not batch or batch[-1].position == expected + len(batch) - 1:
            return
        for event in batch:
            if event.position != expected:
                raise LostEventsError("an event is missing", expected)
            expected += 1

    async def _begin(self) -> PullConsumer[Recorded]:
        self._consumer = f"{self._name}-{secrets.token_hex(4)}"
        config: dict[str, object] = {
            "name": self._consumer,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.cursor.position + 1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 60 * _SECOND_NS,
        }
        if self._subject is not None:
            config["filter_subject"] = self._subject
        body = {"stream_name": self._log.stream, "config": config, "action": "create"}
        answer = await js_api(self._client, f"CONSUMER.CREATE.{self._log.stream}.{self._consumer}", body)
        if "error" in answer:
            raise UnavailableError(f"{self._name} cannot read {self._log.stream}: {answer['error'].get('description')}")
        await self._log.require_same_stream()  # the consumer's, which ends with its stream
        self._delivered = 0
        self._missed = False
        pull = PullConsumer(self._client, self._log.stream, self._consumer, _PULL_EVENTS, self._recorded)
        await pull.start()
        return pull

    async def _start_again(self) -> None:
        await self._end()
        await asyncio.sleep(_PAUSE_SECONDS)
        with suppress(UnavailableError):  # it is verified again before anything is read
            await verify_cursor(self._log, self.cursor, self._name)

    async def _end(self) -> None:
        """Delete the consumer; the server also deletes it by itself after a minute."""
        pull, self._pull = self._pull, None
        if pull is None or self._client.is_closed:
            return
        try:
            await pull.stop()
            await self._client.publish(f"$JS.API.CONSUMER.DELETE.{self._log.stream}.{self._consumer}")
        except nats.errors.Error as error:
            _log.debug("%s: %s", self._name, error)


async def _batches_of(earlier: EarlierEvents, subject: str, position: int, until: int) -> AsyncIterator[list[Recorded]]:
    """Yield the events of a subject after one position up to another."""
    while found := await earlier.of_subject(subject, position, MAX_BATCH):
        position = found[-1].position
        if wanted := [event for event in found if event.position <= until]:
            yield wanted
        if position >= until:
            return
