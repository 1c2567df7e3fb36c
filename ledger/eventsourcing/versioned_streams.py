"""Sequences of versioned events on one stream, each on its own subject: the storage of the recorders.

A version occurs once in a sequence. The position of the sequence's last message guards this: an insert expects the
known position, and after a conflict it checks whether its versions are still free. Versions may have gaps and may fill
them later (snapshots do), as in the library's SQL recorders.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

from eventsourcing.persistence import DataError, IntegrityError, NotSupportedError, OperationalError, StoredEvent

from ledger.errors import ConflictError, UnavailableError
from ledger.eventsourcing.message_codec import is_out_of_order, originator_token, to_message, to_notification, to_stored
from ledger.eventsourcing.stream_cache import CachedEvents, StreamCache, StreamTail
from ledger.nats.client import PENDING_BYTES
from ledger.store.atomic_batches import MAX_BATCH
from ledger.store.log import Draft, Log
from ledger.store.streams import ensure_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from uuid import UUID

    from eventsourcing.persistence import Notification

    from ledger.nats.client import LedgerClient
    from ledger.store.log import Recorded

_TRIES = 20
_MAX_BATCH_BYTES = PENDING_BYTES // 2


class VersionedEvent(NamedTuple):
    """A stored event and its sequence's subject; ``ascending`` versions must not fill gaps."""

    subject: str
    event: StoredEvent
    ascending: bool = False


class VersionedStreams:
    """The sequences on one stream, as one connection knows them. For one event loop."""

    def __init__(self, log: Log, root: str, patience_seconds: float) -> None:
        """Use ``open``."""
        self.log = log
        self._root = root
        self._patience_seconds = patience_seconds
        self._cache = StreamCache()

    @classmethod
    async def open(
        cls, client: LedgerClient, config: dict[str, object], patience_seconds: float, *, create: bool
    ) -> VersionedStreams:
        """Open the sequences on a stream of this configuration (``event_stream_config``).

        Raises:
            DriftError: the stream exists with another configuration.
            UnavailableError: no answer, or the server cannot create it.
        """
        log = await Log.unstamped(client, str(config["name"]))
        sequences = cls(log, str(config["subjects"][0]).removesuffix(".>"), patience_seconds)  # type: ignore[index]
        if create:
            await sequences._retry(lambda: ensure_stream(client, config))
        return sequences

    def subject(self, kind: str, identifier: UUID | str) -> str:
        """Return the subject of one sequence of a kind (a word)."""
        return f"{self._root}.{kind}.{originator_token(identifier)}"

    def all_of(self, kind: str) -> str:
        """Return the wildcard of all sequences of a kind."""
        return f"{self._root}.{kind}.*"

    async def insert(self, entries: Sequence[VersionedEvent]) -> int:
        """Store these in order, all or none; return the position of the first.

        Raises:
            IntegrityError: a version is recorded already.
            NotSupportedError: more than 1000.
            DataError: together they are too large for one batch.
            UnavailableError: no answer in time; they may have been stored nevertheless.
        """
        if len(entries) > MAX_BATCH:
            raise NotSupportedError(
                f"JetStream stores at most {MAX_BATCH} events at once, not {len(entries)}: save in parts"
            )
        _reject_duplicates(entries)
        tails = {subject: self._known_tail(subject, version) for subject, version in _first_versions(entries).items()}
        for _ in range(_TRIES):
            drafts, after = self._drafts(entries, await self._resolve_tails(tails, entries))
            try:
                position = await self.log.append(drafts, self._patience_seconds)
            except ConflictError:
                tails = dict.fromkeys(tails)
                continue
            for subject, (version, number) in after.items():
                self._cache.note_tail(subject, StreamTail(version, position + number))
            return position
        raise OperationalError("too many concurrent writes by other processes; try again")

    def _known_tail(self, subject: str, version: int) -> StreamTail | None:
        """Return the cached tail; a sequence that begins now is assumed to be new."""
        return self._cache.tail(subject) or (StreamTail() if version in {0, 1} else None)

    async def _resolve_tails(
        self, tails: dict[str, StreamTail | None], entries: Sequence[VersionedEvent]
    ) -> dict[str, StreamTail]:
        """Read unknown tails, and check that all versions are free."""
        unknown = [subject for subject, tail in tails.items() if tail is None]
        for start in range(0, len(unknown), 100):
            chunk = unknown[start : start + 100]
            tails |= dict(zip(chunk, await asyncio.gather(*map(self.tail, chunk)), strict=True))
        resolved = {subject: tail for subject, tail in tails.items() if tail is not None}
        for subject, version in _lowest_versions(entries).items():
            if version <= resolved[subject].version:
                resolved[subject] = await self._with_gaps(subject, resolved[subject].position, entries)
        return resolved

    async def _with_gaps(self, subject: str, until: int, entries: Sequence[VersionedEvent]) -> StreamTail:
        """Return the tail of a sequence with a version that is not below the new ones, which may fill gaps."""
        recorded = await self._read(subject, 0, until)
        recorded_versions = {to_stored(message).originator_version for message in recorded}
        for entry in entries:
            event = entry.event
            if entry.subject == subject and (entry.ascending or event.originator_version in recorded_versions):
                raise IntegrityError(
                    f"version {event.originator_version} of {event.originator_id} is recorded already"
                    + (f", or one above it: {max(recorded_versions)}" if entry.ascending else "")
                )
        return StreamTail(max(recorded_versions, default=-1), recorded[-1].position if recorded else 0)

    def _drafts(
        self, entries: Sequence[VersionedEvent], tails: dict[str, StreamTail]
    ) -> tuple[list[Draft], dict[str, StreamTail]]:
        """Return the events to append, and the tails after them, with numbers in this batch for positions."""
        token, source = secrets.token_hex(8), self.log.stream
        drafts: list[Draft] = []
        highest = {subject: tail.version for subject, tail in tails.items()}
        first = {subject: tail.position for subject, tail in tails.items()}
        last: dict[str, int] = {}
        size = 0
        for number, (subject, event, _) in enumerate(entries):
            late = event.originator_version < highest[subject]
            data = to_message(event, f"{token}.{number}", source, out_of_order=late)
            drafts.append(Draft(subject, data, first.pop(subject, None)))
            highest[subject] = max(highest[subject], event.originator_version)
            last[subject] = number
            size += len(data)
        if size > _MAX_BATCH_BYTES:
            raise DataError(f"{size:,} bytes are too many at once (limit: {_MAX_BATCH_BYTES:,}); save in parts")
        return drafts, {subject: StreamTail(highest[subject], number) for subject, number in last.items()}

    async def select(
        self,
        subject: str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> list[StoredEvent]:
        """Return one sequence's events by version: above ``gt``, up to ``lte``, at most ``limit``."""
        cached, tail = self._cache.seen(subject), self._cache.tail(subject) or StreamTail()
        if desc and limit == 1 and not cached.events and (newest := await self._newest(subject, gt, lte)) is not None:
            return newest
        only_behind_tail = gt is not None and gt >= tail.version and cached.position < tail.position
        after = tail.position if only_behind_tail else cached.position
        recorded = await self._read(subject, after, tail.position)
        events = [to_stored(message) for message in recorded]
        if only_behind_tail:
            versions = [tail.version, *(event.originator_version for event in events)]
        else:
            events = sorted(cached.events + events, key=_version) if events else cached.events
            versions = [event.originator_version for event in events[-1:]]
        if recorded:
            self._cache.note_tail(subject, StreamTail(max(versions), recorded[-1].position))
            if not only_behind_tail:
                self._cache.cache(subject, CachedEvents(recorded[-1].position, events))
        return _slice(events, gt, lte, desc=desc)[:limit]

    async def _newest(self, subject: str, gt: int | None, lte: int | None) -> list[StoredEvent] | None:
        """Return the event of the highest version, None if the newest message does not tell."""
        last = await self._retry(lambda: self.log.read_from_leader(subject))
        if last is None:
            return []
        event = to_stored(last)
        if is_out_of_order(last) or (lte is not None and event.originator_version > lte):
            return None
        return [event] if gt is None or event.originator_version > gt else []

    async def tail(self, subject: str) -> StreamTail:
        """Return the end of a sequence, as the stream's leader has it."""
        last = await self._retry(lambda: self.log.read_from_leader(subject))
        if last is None:
            return StreamTail()
        if is_out_of_order(last):
            recorded = await self._read(subject, 0, last.position)
            return StreamTail(max(to_stored(message).originator_version for message in recorded), recorded[-1].position)
        return StreamTail(to_stored(last).originator_version, last.position)

    async def _read(self, subject: str, after: int, until: int) -> list[Recorded]:
        """Return a sequence's messages after a position, at least up to one that is known to exist."""
        deadline = time.monotonic() + self._patience_seconds
        while True:
            recorded = await self._retry(lambda: self.log.read_subject(subject, after))
            if until <= after or (recorded and recorded[-1].position >= until):
                return recorded
            if time.monotonic() > deadline:
                message = f"{self.log.stream} does not show position {until}: the replica that answers is behind"
                raise UnavailableError(message)
            await asyncio.sleep(0.01)

    async def notifications(
        self, kind: str, after: int, limit: int, stop: int | None, topics: Iterable[str]
    ) -> list[Notification]:
        """Return events of all sequences of a kind by position: after ``after``, up to ``stop``, at most ``limit``."""
        found: list[Notification] = []
        wanted, pattern = frozenset(topics), self.all_of(kind)
        while len(found) < limit:
            at_most = MAX_BATCH if wanted else min(MAX_BATCH, limit - len(found))
            start = after
            recorded, complete = await self._retry(lambda: self.log.read_batch(pattern, start, at_most))  # noqa: B023
            for message in recorded:
                if stop is not None and message.position > stop:
                    return found
                notification = to_notification(message)
                if not wanted or notification.topic in wanted:
                    found.append(notification)
                if len(found) == limit:
                    return found
            if complete or not recorded:
                break
            after = recorded[-1].position
        return found

    async def newest_position(self, kind: str) -> int | None:
        """Return the position of the newest message of a kind, None if there is none."""
        last = await self._retry(lambda: self.log.read_from_leader(self.all_of(kind)))
        return last.position if last else None

    async def _retry[T](self, read: Callable[[], Awaitable[T]]) -> T:
        """Repeat a read while the server does not answer, for instance during the election of a leader."""
        deadline = time.monotonic() + self._patience_seconds
        pause = 0.02
        while True:
            try:
                async with asyncio.timeout(max(pause, deadline - time.monotonic())):
                    return await read()
            except TimeoutError:
                message = f"{self.log.stream} gave no answer in {self._patience_seconds:g} seconds; try again later"
                raise UnavailableError(message) from None
            except UnavailableError:
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 2)


def _version(event: StoredEvent) -> int:
    return event.originator_version


def _slice(events: list[StoredEvent], gt: int | None, lte: int | None, *, desc: bool) -> list[StoredEvent]:
    if gt is not None or lte is not None:
        events = [
            event
            for event in events
            if (gt is None or event.originator_version > gt) and (lte is None or event.originator_version <= lte)
        ]
    return events[::-1] if desc else events


def _first_versions(entries: Sequence[VersionedEvent]) -> dict[str, int]:
    """Return each sequence's first version in the insert."""
    return {subject: event.originator_version for subject, event, _ in reversed(entries)}


def _lowest_versions(entries: Sequence[VersionedEvent]) -> dict[str, int]:
    lowest: dict[str, int] = {}
    for subject, event, _ in entries:
        lowest[subject] = min(event.originator_version, lowest.get(subject, event.originator_version))
    return lowest


def _reject_duplicates(entries: Sequence[VersionedEvent]) -> None:
    if len({(subject, event.originator_version) for subject, event, _ in entries}) < len(entries):
        raise IntegrityError("the same version of the same originator occurs twice in one insert")


def event_stream_config(name: str, prefix: str, replicas: int) -> dict[str, object]:
    """Return the configuration of a stream of sequences, in the JetStream API's form; durations in nanoseconds."""
    return {
        "name": name,
        "subjects": [f"{prefix}.{name}.>"],
        "storage": "file",
        "retention": "limits",
        "num_replicas": replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msgs_per_subject": -1,
        "max_age": 0,
        "discard": "new",
        "duplicate_window": 2 * 60 * 1_000_000_000,
        "allow_atomic": True,
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
    }
