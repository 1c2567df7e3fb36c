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
    """Versioned sequences on one stream, for callers in any thread. The constructor creates or verifies the stream."""

    def __init__(
        self, loop_thread: EventLoopThread, config: dict[str, object], patience_seconds: float, *, create: bool = True
    ) -> None:
        self._loop_thread = loop_thread
        opening = partial(VersionedStreams.open, config=config, patience_seconds=patience_seconds, create=create)
        self._sequences = loop_thread.run(opening)

    def _entries(self, stored_events: Sequence[StoredEvent]) -> list[VersionedEvent]:
        subject = self._sequences.subject
        return [VersionedEvent(subject(_EVENT, event.originator_id), event) for event in stored_events]

    def _insert_entries(self, entries: list[VersionedEvent]) -> int:
        return self._loop_thread.run(lambda _: self._sequences.insert(entries))


class JetStreamAggregateRecorder(JetStreamRecorder, AggregateRecorder):
    """Sequences of aggregates' events, or of their snapshots."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events of one or several aggregates, all or none; they are durable on return.

        Raises:
            IntegrityError: a version of an aggregate is recorded already, or occurs twice.
            NotSupportedError: more than 1000 events, the limit of one JetStream batch.
            DataError: an event is larger than the server accepts, or cannot be encoded.
            OperationalError: no server answered in time. The events may have been stored; a retry then raises
                ``IntegrityError``.
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
        """Return one aggregate's events by version: above ``gt``, up to ``lte``, at most ``limit``.

        The result is never behind events that this process has recorded or read. On several servers it may be some
        milliseconds behind other processes, and a save then raises ``IntegrityError``, as in any race.

        Raises:
            OperationalError: no server answered in time.
        """
        subject = self._sequences.subject(_EVENT, originator_id)
        return self._loop_thread.run(lambda _: self._sequences.select(subject, gt=gt, lte=lte, desc=desc, limit=limit))


class JetStreamApplicationRecorder(JetStreamAggregateRecorder, ApplicationRecorder):
    """Sequences of aggregates, and all their events in stream order: notification ids are stream sequences."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store events as an aggregate recorder does; return their positions, which are consecutive."""
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
        """Return events of all aggregates by position: from or after ``start``, up to ``stop``, at most ``limit``.

        Raises:
            OperationalError: no server answered in time.
        """
        after = 0 if start is None else start - inclusive_of_start
        return self._loop_thread.run(
            lambda _: self._sequences.notifications(_EVENT, max(after, 0), limit, stop, topics)
        )

    def max_notification_id(self) -> int | None:
        """Return the position of the newest event, None if there is none."""
        return self._loop_thread.run(lambda _: self._sequences.newest_position(_EVENT))

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Return a subscription to all events after a position, then to new ones, until it is stopped."""
        reader = _SubscriptionReader(self._loop_thread, self._sequences.log, self._sequences.all_of(_EVENT), gt or 0)
        return JetStreamSubscription(self, reader, gt, topics)


class JetStreamTrackingRecorder(JetStreamRecorder, TrackingRecorder):
    """Positions up to which events of applications are processed, each with an optional state.

    A materialised view that fits into one message can be stored here: its state and its position are one message, so
    that neither exists without the other. Larger views belong in a database.
    """

    def insert_tracking(self, tracking: Tracking, state: bytes = b"") -> None:
        """Record a position, and the state of a view at it.

        Raises:
            IntegrityError: that position or a later one is recorded already.
            OperationalError: no server answered in time; a retry is harmless.
        """
        self._insert_entries([self._tracking_entry(tracking, state)])

    def _tracking_entry(self, tracking: Tracking, state: bytes = b"") -> VersionedEvent:
        """Return a tracking as an entry of a sequence whose versions are positions."""
        name = tracking.application_name
        event = StoredEvent(name, tracking.notification_id, _TRACKING, state)
        return VersionedEvent(self._sequences.subject(_TRACKING, name), event, ascending=True)

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the highest position recorded for an application, None if there is none."""
        subject = self._sequences.subject(_TRACKING, application_name)
        tail = self._loop_thread.run(lambda _: self._sequences.tail(subject))
        return tail.version if tail.position else None

    def tracked_state(self, application_name: str) -> bytes:
        """Return the state recorded with the highest position; empty if there is none."""
        subject = self._sequences.subject(_TRACKING, application_name)
        found = self._loop_thread.run(lambda _: self._sequences.select(subject, desc=True, limit=1))
        return found[0].state if found else b""


class JetStreamProcessRecorder(JetStreamTrackingRecorder, JetStreamApplicationRecorder, ProcessRecorder):
    """Events and the position of their cause, in one atomic batch."""

    def _insert(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> list[int]:
        tracking: Tracking | None = kwargs.get("tracking")
        if tracking is None:
            return super()._insert(stored_events)
        first = self._insert_entries([*self._entries(stored_events), self._tracking_entry(tracking)])
        return list(range(first, first + len(stored_events)))


class JetStreamSubscription(Subscription[JetStreamApplicationRecorder]):
    """Follows the stream on its own connection; one thread reads, any thread may stop it."""

    def __init__(
        self,
        recorder: JetStreamApplicationRecorder,
        reader: _SubscriptionReader,
        gt: int | None,
        topics: Sequence[str],
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._reader = reader
        self._wanted = frozenset(topics)
        self._notifications: list[Notification] = []
        self._index = 0

    def stop(self) -> None:
        """Stop it, and wake the thread that waits for the next event. From any thread, without waiting."""
        super().stop()
        self._reader.stop_soon()

    def __next__(self) -> Notification:
        """Return the next event.

        Raises:
            InternalError: the stream has a gap.
            InterfaceError: the application is closed.
        """
        while not self._has_been_stopped:
            if self._index < len(self._notifications):
                self._index += 1
                return self._notifications[self._index - 1]
            notifications = list(map(to_notification, self._reader.wait()))
            if self._wanted:
                notifications = [notification for notification in notifications if notification.topic in self._wanted]
            self._notifications, self._index = notifications, 0
        raise StopIteration


class _SubscriptionReader:
    """The part of a subscription that reads, on the event loop's thread."""

    def __init__(self, loop_thread: EventLoopThread, log: Log, pattern: str, after: int) -> None:
        self._loop_thread = loop_thread
        self._log = log
        self._root = pattern.removesuffix("*")
        self._after = after
        self._stopped = asyncio.Event()
        self._batches: AsyncGenerator[list[Recorded]] | None = None
        self._waiting = False
        self._closing: asyncio.Future[None] | None = None

    def stop_soon(self) -> None:
        """Schedule the stop, from any thread."""
        self._loop_thread.call_soon(self._stop)

    def wait(self) -> list[Recorded]:
        """Return the next events; empty now and then, and after a stop. Blocks its thread, not the event loop."""
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
            elif recorded is None:  # Ctrl-C, or a gap: the next call begins after the last returned event
                self._batches = None

    async def _follow(self) -> AsyncGenerator[list[Recorded]]:
        async with self._loop_thread.connection() as client:
            async for batch in Follower(client, self._log, "subscription", ReadCursor(self._after)).batches():
                yield batch
