"""The engine: reads the log in order, and commits each view together with its position in one transaction."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from domain.events.administration import ProjectionSkipped
from domain.events.facts import FactCorrected
from domain.serialization import encode
from ledger import traces
from ledger.errors import LedgerError, UnavailableError
from ledger.store.cloudevents import stored_decoder
from ledger.store.log import digest_of
from ledger.store.subscription import Follower, ReadCursor, verify_cursor
from ledger.transparency.sealer import GAP_SUBJECT
from projections.engine import storage
from projections.engine.corrections import correction_of, corrections, originals_of, read_known
from projections.engine.events import TYPES, Event, UnknownEventError, read_event, type_in
from projections.engine.projection import HasDayBlocks
from projections.engine.storage import FAILURES, FencedError, Progress, Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    import sqlalchemy as sa

    from ledger.archive.history import ArchivedHistory
    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log, Recorded
    from ledger.store.shared_tail import SharedTail
    from projections.engine.projection import Projection
    from projections.engine.storage import ViewStore

_log = logging.getLogger(__name__)
_LOOK_AGAIN_SECONDS = 2.0
_TOGETHER_SECONDS = 0.1
"""Events within this time after a commit are committed together, because each commit has a fixed cost."""
_MANY = 1000
_FAR = 50_000
"""The number of events from which on a view that is behind reads the archive."""
_NICE = 5
_SETTLED_ROWS, _SETTLED_ROWS_LIVE = 50_000, 10_000
"""Rows that day blocks are made of in one transaction: after the view has caught up, and while it follows the log."""


def _step_back() -> None:
    """Lower the priority of this thread, so that answers go first on a machine with few processors (Linux only)."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICE)


_ONE_THREAD = ThreadPoolExecutor(1, "views", _step_back)
"""Views that are up to date share one thread, because several threads would wait for the interpreter's lock."""
SKIPS_SUBJECT = "ledger.projection"


class StoppedError(LedgerError):
    """An error that stops a projection, with the position and the reason."""

    def __init__(self, name: str, stop: Stop) -> None:
        super().__init__(
            f"{name} stopped at position {stop.position} ({stop.type}): {stop.reason}; run a newer version that "
            f"knows it, or skip it with `resolution-ledger admin projections skip {name} {stop.position}`"
        )
        self.stop = stop


class Projector:
    """A runner that keeps one generation of one projection up to date."""

    def __init__(self, model: Projection, engine: sa.Engine) -> None:
        self.model = model
        self._engine = engine
        self._skipped: frozenset[int] = frozenset()
        self._types = {**TYPES, **model.types}
        self._unread = frozenset(TYPES.keys() - model.types.keys())
        """Known types that the view does not read."""
        self._unread_bytes = frozenset(name.encode() for name in self._unread)
        self._blocks = model.day_blocks if isinstance(model, HasDayBlocks) else None
        self._lock = asyncio.Lock()
        with engine.connect() as connection:
            self.progress = storage.read_progress(connection)

    async def follow(
        self,
        client: LedgerClient,
        log: Log,
        *,
        until: int | None = None,
        tail: SharedTail | None = None,
        history: ArchivedHistory | None = None,
        committed: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Fold the log from the view's position on, for ever or up to ``until``.

        A ``history`` supplies the oldest events in bulk, and a ``tail`` the newest.

        Raises:
            StoppedError: an event cannot be processed; the view stays as it was before that event.
            LostEventsError: the log lacks events that the view has read.

        """
        self._skipped = await skipped_positions(log, self.model.name)
        async for batch in self._batches(client, log, until, tail, history):
            begun = time.monotonic()
            originals = await originals_of(log, batch)
            fold = partial(self.take, batch, originals)
            threads = _ONE_THREAD if until is None and len(batch) < _MANY else None
            with traces.batch(log.stream, self.model.name, ((b"", event.data) for event in batch)):
                async with self._lock:
                    await asyncio.get_running_loop().run_in_executor(threads, fold)
                if committed:
                    await committed(self.progress.anchor.position)
            if threads is _ONE_THREAD:
                await asyncio.sleep(begun + _TOGETHER_SECONDS - time.monotonic())

    async def _batches(
        self,
        client: LedgerClient,
        log: Log,
        until: int | None,
        tail: SharedTail | None,
        history: ArchivedHistory | None,
    ) -> AsyncIterator[list[Recorded]]:
        if history is not None and history.end() - self.progress.anchor.position > _FAR:
            await verify_cursor(log, self.progress.anchor, self.model.name)
            end = history.end() if until is None else until
            async for batch in history.batches(self.progress.anchor.position, end, self._unread):
                yield batch
        while True:
            begins = until if tail is None else await tail.start_position()
            if tail is not None and begins is not None and self.progress.anchor.position >= begins:
                await verify_cursor(log, self.progress.anchor, self.model.name)
                async for batch in tail.batches(self.progress.anchor.position):
                    yield batch
                continue
            async for batch in Follower(client, log, self.model.name, self.progress.anchor).batches(until=begins):
                yield batch
            while not await self.settle_days(_SETTLED_ROWS):
                pass
            if tail is None:
                return

    async def settle_days(self, rows: int = _SETTLED_ROWS_LIVE) -> bool:
        """Make day blocks of about so many rows; return whether all quiet days have one."""
        if self._blocks is None:
            return True
        async with self._lock:
            return await asyncio.get_running_loop().run_in_executor(_ONE_THREAD, self.settle, rows)

    def settle(self, rows: int) -> bool:
        """Make day blocks of about so many rows in one transaction; return whether all quiet days have one."""
        if self._blocks is None:
            return True
        try:
            with self._engine.begin() as connection:
                return self._blocks.settle(connection, rows)
        except BaseException:
            self.model.forget()
            raise

    def take(self, batch: Sequence[Recorded], originals: Mapping[int, Recorded] = MappingProxyType({})) -> None:
        """Fold a batch and commit it with its position; if it fails, commit up to the failing event.

        ``originals`` are the facts that the batch corrects, by position.
        """
        try:
            self._commit(batch, self._decoded(batch), originals)
        except (*FAILURES, FencedError):  # a failure of the database, such as a full disk, not of an event
            self.model.forget()
            raise
        except Exception as error:  # noqa: BLE001 - an event that breaks a fold must stop only this view
            self.model.forget()
            if len(batch) == 1:
                self._stop(batch[0], error)
            _log.warning("%s: folding in halves after %s", self.model.name, error)
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self.take(half, originals)

    def _decoded(self, batch: Sequence[Recorded]) -> list[Event]:
        prefixes, types, unread = self.model.prefixes, self._types, self._unread_bytes
        return [
            read_event(recorded, types)
            for recorded in batch
            if recorded.subject.startswith(prefixes)
            and type_in(recorded.data) not in unread
            and recorded.subject != GAP_SUBJECT
            and recorded.position not in self._skipped
        ]

    def _commit(self, batch: Sequence[Recorded], events: Sequence[Event], originals: Mapping[int, Recorded]) -> None:
        last = batch[-1]
        progress = Progress(
            ReadCursor(last.position, digest_of(last.data)), stored_decoder.decode(last.data).recordedtime
        )
        with self._engine.begin() as connection:
            for event in events if originals else ():
                self._note_correction(connection, event, originals)
            if events:
                self.model.fold(connection, events)
            storage.write_progress(connection, progress, self.progress.anchor.position)
        self.progress = progress

    @staticmethod
    def _note_correction(connection: sa.Connection, event: Event, originals: Mapping[int, Recorded]) -> None:
        """Set the event's correction, and store the data that is known from now on."""
        position = event.stored.corrects
        if not isinstance(event.body, FactCorrected) or position is None:
            return
        event.correction = correction_of(event, originals[position], read_known(connection, position))
        data = None if event.body.data is None else encode(event.body.data).decode()
        row = {"position": position, "corrected_by": event.position, "data": data}
        storage.upsert(connection, corrections, [row])

    def _stop(self, recorded: Recorded, error: Exception) -> None:
        if isinstance(error, UnknownEventError):
            stop = Stop(recorded.position, error.type, error.reason)
        else:
            stop = Stop(recorded.position, "", f"{type(error).__name__}: {error}")
        with self._engine.begin() as connection:
            storage.write_progress(connection, self.progress._replace(stopped=stop), self.progress.anchor.position)
        raise StoppedError(self.model.name, stop) from error


async def skipped_positions(log: Log, name: str) -> frozenset[int]:
    """Return the positions that an operator told this projection to skip."""
    found: set[int] = set()
    for recorded in await log.read_subject(SKIPS_SUBJECT):
        record = read_event(recorded).body
        if isinstance(record, ProjectionSkipped) and record.projection == name:
            found.add(record.position)
    return frozenset(found)


async def rebuild(
    model: Projection,
    store: ViewStore,
    client: LedgerClient,
    log: Log,
    history: ArchivedHistory | None = None,
    progressed: Callable[[int], Awaitable[None]] | None = None,
) -> Progress:
    """Fill a new generation from the beginning to the end of the log, then make it live.

    Raises:
        StoppedError: an event cannot be processed; the live generation stays.
        UnavailableError: another process builds the view.
    """
    with store.claim(f"{model.name}.build") as claimed:
        if not claimed:
            raise UnavailableError(f"another process builds {model.name}: wait until it has ended")
        store.drop_unfinished(model)
        generation = store.next_generation(model)
        projector = Projector(model, store.open_generation(model, generation))
        await projector.follow(client, log, until=await log.last_position(), history=history, committed=progressed)
        store.switch_to(model, generation)
    return projector.progress


async def catch_up(
    model: Projection,
    store: ViewStore,
    client: LedgerClient,
    log: Log,
    history: ArchivedHistory | None = None,
    progressed: Callable[[int], Awaitable[None]] | None = None,
) -> Progress:
    """Bring the live generation to the end of the log; create one if there is none.

    Raises:
        StoppedError: an event cannot be processed; the view stays before it.
    """
    generation = storage.live_or_first(store, model)
    if generation is None:
        return await rebuild(model, store, client, log, history, progressed)
    projector = Projector(model, store.open_generation(model, generation))
    await projector.follow(client, log, until=await log.last_position(), history=history, committed=progressed)
    return projector.progress


class Build(Protocol):
    """Brings a view to the end of the log in another process (see ``run_for_ever``)."""

    def __call__(self, name: str, progressed: Callable[[int], Awaitable[None]], /, *, anew: bool) -> Awaitable[object]:
        """Do it in the live generation, or in a new one that is switched to; report each position that is reached."""


async def run_for_ever(
    model: Projection,
    store: ViewStore,
    client: LedgerClient,
    log: Log,
    tail: SharedTail,
    committed: Callable[[int], Awaitable[None]],
    build: Build | None = None,
) -> None:
    """Follow the log with the live generation; switch to a rebuilt one, and wait visibly when stopped.

    A view that is far behind the tail is brought nearer by ``build``.

    Raises:
        LostEventsError: the log lacks events that the view has read.
        FencedError: another process writes the view.

    """
    stopped: Stop | None = None
    while True:
        try:
            if stopped is None or stopped.position in await skipped_positions(log, model.name):
                stopped = None
                await _follow_live(model, store, client, log, tail, committed, build)
        except StoppedError as error:
            _log.error("%s", error)
            stopped = error.stop
        except FencedError:
            raise  # another process runs the view, whatever this one has claimed
        except (UnavailableError, *FAILURES) as error:  # e.g. no server, or a full disk
            _log.warning("%s waits: %s", model.name, error)
        if stopped is not None and store.live_generation(model) is None:
            stopped = None  # the view's files were dropped, so start again
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


async def _follow_live(
    model: Projection,
    store: ViewStore,
    client: LedgerClient,
    log: Log,
    tail: SharedTail,
    committed: Callable[[int], Awaitable[None]],
    build: Build | None,
) -> None:
    """Follow the log with the live generation until another one is live."""
    generation = storage.live_or_first(store, model)
    known = store.progress_of(model)
    if build is not None and await tail.start_position() - (known.anchor.position if known else 0) > _FAR:
        await build(model.name, committed, anew=generation is None)
        return
    if generation is None:
        await rebuild(model, store, client, log, progressed=committed)
        return
    model.forget()
    projector = Projector(model, store.open_generation(model, generation))
    following = asyncio.create_task(projector.follow(client, log, tail=tail, committed=committed))
    try:
        while store.live_generation(model) == generation:
            done, _ = await asyncio.wait({following}, timeout=_LOOK_AGAIN_SECONDS)
            if done:
                following.result()
                return
            await projector.settle_days()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
