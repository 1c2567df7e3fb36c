"""Recorders and subscriptions of the `eventsourcing` library on JetStream; `ledger/persistence.py` constructs them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    Notification,
    ProcessRecorder,
    Recorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)

from ledger.eventsourcing.message_codec import to_notification
from ledger.eventsourcing.versioned_streams import VersionedEvent, VersionedStreams
from ledger.store.subscription import Follower, ReadCursor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from uuid import UUID

    from ledger.eventsourcing.event_loop_thread import EventLoopThread
    from ledger.store.log import Log, Recorded

_EVENT, _TRACKING = "event", "tracking"


class JetStreamRecorder(Recorder):
    """Sequences on one stream, for callers in any thread. The stream is made sure of when first constructed."""

    def __init__(
        self, bridge: EventLoopThread, config: dict[str, Any], patience_seconds: float, *, create: bool = True
    ) -> None:
        self._loop_thread = bridge
        opening = partial(VersionedStreams.open, config=config, patience_seconds=patience_seconds, create=create)
        self._sequences = bridge.run(opening)

    def _entries(self, stored_events: Sequence[StoredEvent]) -> list[VersionedEvent]:
        subject = self._sequences.subject
        return [VersionedEvent(subject(_EVENT, event.originator_id), event) for event in stored_events]

    def _insert_entries(self, entries: list[VersionedEvent]) -> int:
        return self._loop_thread.run(lambda _: self._sequences.insert(entries))


class JetStreamAggregateRecorder(JetStreamRecorder, AggregateRecorder):
    """Aggregate sequences: events of aggregates, or their snapshots."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events of one or several aggregates, all or none, durably when it returns.

        Raises:
            IntegrityError: a version of an aggregate is recorded already, or stands twice here.
            NotSupportedError: more than 1000 events: JetStream stores no more at once.
            DataError: an event is larger than the server takes, or cannot be written.
            OperationalError: no server answered in time. The events may have been stored; a retry
                then meets ``IntegrityError``.

        """
        self._insert(stored_events, **kwargs)
        return None

    def _insert(self, stored_events: Sequence[StoredEvent], **_kwargs: Any) -> list[int]:
        if not stored_events:
            return []
        first = self._insert_entries(self._entries(stored_events))
        return list(range(first, first + len(stored_events)))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """One aggregate's events by version: above ``gt``, up to ``lte``, at most ``limit``.

        Never behind what this process has recorded or seen; on several servers it may be some milliseconds
        behind what other processes have, and a save then meets ``IntegrityError``, as in any race.

        Raises:
            OperationalError: no server answered in time.

        """
        subject = self._sequences.subject(_EVENT, originator_id)
        return self._loop_thread.run(lambda _: self._sequences.select(subject, gt=gt, lte=lte, desc=desc, limit=limit))


class JetStreamApplicationRecorder(JetStreamAggregateRecorder, ApplicationRecorder):
    """Aggregate sequences, and all of them together in the order of the stream: notification ids are its sequence."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events as an aggregate recorder does; their positions, which follow one another."""
        return self._insert(stored_events, **kwargs)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Events of all aggregates by position: from or behind ``start``, up to ``stop``, at most ``limit``.

        Raises:
            OperationalError: no server answered in time.

        """
        after = 0 if start is None else start - inclusive_of_start
        return self._loop_thread.run(
            lambda _: self._sequences.notifications(_EVENT, max(after, 0), limit, stop, topics)
        )

    def max_notification_id(self) -> int | None:
        """The position of the newest event, None where there is none."""
        return self._loop_thread.run(lambda _: self._sequences.newest_position(_EVENT))

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """All events behind a position, then new ones as they are recorded; it ends when it is stopped."""
        reading = _SubscriptionReader(self._loop_thread, self._sequences.log, self._sequences.all_of(_EVENT), gt or 0)
        return JetStreamSubscription(self, reading, gt, topics)


class JetStreamTrackingRecorder(JetStreamRecorder, TrackingRecorder):
    """Positions up to which the events of applications are processed, each perhaps with a state.

    A materialised view that fits into one message keeps itself there: its state and the position it belongs to
    are one message, so neither can be without the other. Larger views belong into a database.
    """

    def insert_tracking(self, tracking: Tracking, state: bytes = b"") -> None:
        """Record a position, and the state of a view behind it.

        Raises:
            IntegrityError: that position, or one behind it, is recorded already.
            OperationalError: no server answered in time; a retry is harmless.

        """
        self._insert_entries([self._tracking_entry(tracking, state)])

    def _tracking_entry(self, tracking: Tracking, state: bytes = b"") -> VersionedEvent:
        """Tracking is a sequence whose versions are positions."""
        name = tracking.application_name
        event = StoredEvent(name, tracking.notification_id, _TRACKING, state)
        return VersionedEvent(self._sequences.subject(_TRACKING, name), event, ascending=True)

    def max_tracking_id(self, application_name: str) -> int | None:
        """The highest position recorded for an application, None where there is none."""
        subject = self._sequences.subject(_TRACKING, application_name)
        tail = self._loop_thread.run(lambda _: self._sequences.tail(subject))
        return tail.version if tail.position else None

    def tracked_state(self, application_name: str) -> bytes:
        """The state recorded with the highest position; empty where there is none."""
        subject = self._sequences.subject(_TRACKING, application_name)
        found = self._loop_thread.run(lambda _: self._sequences.select(subject, desc=True, limit=1))
        return found[0].state if found else b""


class JetStreamProcessRecorder(JetStreamTrackingRecorder, JetStreamApplicationRecorder, ProcessRecorder):
    """Events, and the position of what caused them, in one atomic batch."""

    def _insert(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> list[int]:
        tracking: Tracking | None = kwargs.get("tracking")
        if tracking is None:
            return super()._insert(stored_events)
        first = self._insert_entries([*self._entries(stored_events), self._tracking_entry(tracking)])
        return list(range(first, first + len(stored_events)))


class JetStreamSubscription(Subscription[JetStreamApplicationRecorder]):
    """Follows the stream on a connection of its own; read by one thread, stopped from any."""

    def __init__(
        self,
        recorder: JetStreamApplicationRecorder,
        reading: _SubscriptionReader,
        gt: int | None,
        topics: Sequence[str],
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._reading = reading
        self._wanted = frozenset(topics)
        self._notifications: list[Notification] = []
        self._index = 0

    def stop(self) -> None:
        """End it; whoever waits for the next event is told so. From any thread, without waiting."""
        super().stop()
        self._reading.stop_soon()

    def __next__(self) -> Notification:
        """The next event.

        Raises:
            InternalError: the stream has a gap.
            InterfaceError: the application is closed.

        """
        while not self._has_been_stopped:
            if self._index < len(self._notifications):
                self._index += 1
                return self._notifications[self._index - 1]
            notifications = list(map(to_notification, self._reading.wait()))
            if self._wanted:
                notifications = [one for one in notifications if one.topic in self._wanted]
            self._notifications, self._index = notifications, 0
        raise StopIteration


class _SubscriptionReader:
    """A subscription's way to the loop of the bridge, where the reading is done."""

    def __init__(self, bridge: EventLoopThread, log: Log, pattern: str, after: int) -> None:
        self._loop_thread = bridge
        self._log = log
        self._root = pattern.removesuffix("*")
        self._after = after
        self._stopped = asyncio.Event()
        self._batches: AsyncGenerator[list[Recorded]] | None = None
        self._waiting = False
        self._closing: asyncio.Future[None] | None = None

    def stop_soon(self) -> None:
        """From any thread."""
        self._loop_thread.call_soon(self._stop)

    def wait(self) -> list[Recorded]:
        """What came next; empty now and then, and once it is stopped. Blocks its thread, not the loop's."""
        recorded = self._loop_thread.run(lambda _: self._next(), endless=True)
        return [one for one in recorded if one.subject.startswith(self._root)]

    def _stop(self) -> None:
        self._stopped.set()
        if self._batches is not None and not self._waiting:
            self._closing = asyncio.ensure_future(self._batches.aclose())

    async def _next(self) -> list[Recorded]:
        if self._stopped.is_set():
            return []
        if self._batches is None:
            self._batches = self._follow()
        self._waiting = True
        getting = asyncio.ensure_future(anext(self._batches))
        stopping = asyncio.ensure_future(self._stopped.wait())
        recorded: list[Recorded] | None = None
        try:
            await asyncio.wait((getting, stopping), return_when=asyncio.FIRST_COMPLETED)
            recorded = getting.result() if getting.done() else []
            self._after = recorded[-1].position if recorded else self._after
            return recorded
        finally:
            self._waiting = False
            stopping.cancel()
            if not getting.done():
                getting.cancel()
                await asyncio.wait((getting,))
            if self._stopped.is_set():
                await self._batches.aclose()  # with its connection
            elif recorded is None:  # Ctrl-C, or a gap: who asks again begins behind what it has taken
                self._batches = None

    async def _follow(self) -> AsyncGenerator[list[Recorded]]:
        async with self._loop_thread.connection() as client:
            async for batch in Follower(client, self._log, "subscription", ReadCursor(self._after)).batches():
                yield batch
