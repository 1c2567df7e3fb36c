"""Publishing events into inboxes in batches."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import nats.errors

from app.outcome import Outcome, Outgoing
from config import topology
from consumers.intake.inbox_message import batch_in
from consumers.intake.validation import Rejection, accept, check_new
from consumers.rejections import RejectedEntry, id_token
from ledger.errors import LedgerError, UnavailableError, reason_of
from ledger.store.atomic_batches import MAX_BATCH, in_batches
from ledger.store.content_modes import IMPORT_HEADER
from ledger.store.duplicate_events import canonical_form
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from app.runtime.session import Session

_POLL_SECONDS = 0.05
_STALLED_SECONDS = 60.0
_WINDOW_EVENTS = 10_000


class _Window(NamedTuple):
    """Published events without a counted outcome: the last place in the inbox, and the events by source."""

    last: int
    events: dict[str, list[_Sent]]


class _Sent(NamedTuple):
    """A published event, without its bytes."""

    line: int
    id: str
    file: str


class Publisher:
    """Publishes events, and waits until the intake has handled each of them.

    The outcome of earlier events is counted while later ones are published, so that memory does not grow with them.
    """

    def __init__(
        self, session: Session, inbox_log: Log, outcome: Outcome, progressed: Callable[[int], None], run: str = ""
    ) -> None:
        self._session = session
        self._inbox = inbox_log
        self._progressed = progressed
        self._waiting: list[Outgoing] = []
        self._sent = _Window(0, defaultdict(list))
        self._before = _Window(0, defaultdict(list))
        self._headers = ((IMPORT_HEADER, run),) if run else ()
        self._first_position = 0
        self._last_rejected = 0
        self._rejected: dict[tuple[str, str], list[Rejection]] = defaultdict(list)
        self.outcome = outcome

    @classmethod
    async def open(
        cls, session: Session, outcome: Outcome, progressed: Callable[[int], None], run: str = ""
    ) -> Publisher:
        """Return a publisher; it knows the log's end at its start, to tell new events from duplicates.

        ``run`` is the id of an import, which its recorded events keep.
        """
        inbox_log = await Log.unstamped(await session.connection("publisher"), topology.IMPORT)
        publisher = cls(session, inbox_log, outcome, progressed, run)
        publisher._first_position = await session.log.last_position()
        publisher._last_rejected = await session.rejected.last_position()
        return publisher

    async def add(self, event: Outgoing) -> None:
        """Publish an event in a batch with the next ones."""
        if len(event.data) > topology.MAX_EVENT_BYTES:
            message = f"an event is at most {topology.MAX_EVENT_BYTES} bytes, not {len(event.data)}"
            self.outcome.reject(event.line, event.id, Rejection("too_large", "", message), file=event.file)
            return
        self._waiting.append(event)
        if len(self._waiting) == MAX_BATCH:
            await self.flush()

    async def flush(self) -> None:
        """Publish the current batch; it is durable in the inbox afterwards."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        drafts = [
            Draft(f"{topology.IMPORT_SUBJECT}.{token_of_source(event.source)}", event.data, headers=self._headers)
            for event in batch
        ]
        last = self._sent.last
        for part in in_batches(drafts, lambda draft: len(draft.data)):
            first = await self._inbox.append(part, patience_seconds=30)
            last = max(last, first + len(part) - 1)
        for event in batch:
            self._sent.events[event.source].append(_Sent(event.line, event.id, event.file))
        self._sent = self._sent._replace(last=last)
        self._progressed(len(batch))
        if sum(map(len, self._sent.events.values())) >= _WINDOW_EVENTS:
            await self._settle(self._before)
            self._before, self._sent = self._sent, _Window(0, defaultdict(list))

    async def settle(self) -> None:
        """Wait for the intake; count recorded, duplicate and rejected events."""
        await self.flush()
        for window in (self._before, self._sent):
            await self._settle(window)
        self._before, self._sent = _Window(0, defaultdict(list)), _Window(0, defaultdict(list))

    async def _settle(self, window: _Window) -> None:
        """Count the events of a window after the intake has handled them."""
        if not window.events:
            return
        await self._wait_for_intake(window.last)
        await self._read_rejections()
        last_position = self._first_position
        for source, events in window.events.items():
            last_position = max(last_position, await self._count(source, events))
        self._first_position = last_position  # a later event with an earlier position is a duplicate

    async def _wait_for_intake(self, last: int) -> None:
        stalled, floor_before = 0.0, -1
        while last:
            name = f"CONSUMER.INFO.{topology.IMPORT}.{topology.INTAKE_CONSUMER}"
            info = await js_api(self._session.client, name)
            floor = info.get("ack_floor", {}).get("stream_seq", 0)
            if floor >= last:
                return
            stalled = 0.0 if floor != floor_before else stalled + _POLL_SECONDS
            floor_before = floor
            if stalled > _STALLED_SECONDS:
                message = "the intake makes no progress: is it running? Published events are safe in the inbox"
                raise UnavailableError(message)
            await asyncio.sleep(_POLL_SECONDS)

    async def _read_rejections(self) -> None:
        """Read the rejections since the last call, by (subject token, token of the id)."""
        end = await self._session.rejected.last_position()
        subject = f"{topology.REJECTED_SUBJECT}.>"
        async for batch in self._session.rejected.subject_batches(subject, self._last_rejected):
            for recorded in batch:
                entry = msgspec.json.decode(recorded.data, type=RejectedEntry)
                _, token, claimed, *_ = recorded.subject.split(".")
                self._rejected[token, claimed].append(Rejection(entry.code, entry.field, entry.message))
                end = max(end, recorded.position)
        self._last_rejected = end

    async def _count(self, source: str, events: list[_Sent]) -> int:
        """Count the events of a source; return the last position among them."""
        token = token_of_source(source)
        positions = await self._positions(token, source, [event.id for event in events])
        counted: set[str] = set()
        for event in reversed(events):  # of two events with one id, the later one is rejected
            reasons = self._rejected.get((token, id_token(event.id)))
            position = positions.get(event.id)
            if reasons:
                self.outcome.reject(event.line, event.id, reasons.pop(), file=event.file)
            elif position is None:
                raise LedgerError(f"{source} {event.id} was acknowledged, but is neither recorded nor rejected")
            elif position > self._first_position and event.id not in counted:
                counted.add(event.id)
                self.outcome.recorded += 1
            else:
                self.outcome.duplicate += 1
        return max(positions.values(), default=0)

    async def _positions(self, token: str, source: str, ids: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(ids), 1000):
            request = {"ids": ids[start : start + 1000], "source": source}
            subject = f"{topology.READ_SUBJECT}.{token}.receipt"
            try:
                reply = await self._session.client.request(subject, json.dumps(request).encode(), timeout=30)
            except (nats.errors.Error, TimeoutError) as error:
                raise UnavailableError(f"no receipts from the intake: {reason_of(error)}") from error
            items = json.loads(reply.data).get("items", ())
            found.update((item["id"], item["position"]) for item in items if item["status"] == "recorded")
        return found


def dry_run(events: Iterable[Outgoing], outcome: Outcome) -> None:
    """Validate events as the intake would, as far as that is possible without the log."""
    seen: dict[tuple[str, str], bytes] = {}
    now = datetime.now(UTC)
    for event in events:
        result = check_new(accept(event.data, now))
        if isinstance(result, Rejection):
            outcome.reject(event.line, event.id, result)
            continue
        form = hashlib.sha256(canonical_form(result.json)).digest()[:16]
        if seen.setdefault((result.source, result.id), form) != form:
            again = Rejection("id_reused", "id", "another event in this file has this id")
            outcome.reject(event.line, event.id, again)


class _EventKey(msgspec.Struct):
    source: str
    id: str


def read_lines(lines: Iterable[bytes]) -> Iterator[Outgoing]:
    """Yield CloudEvents in structured mode from lines of JSON, one event or a batch each; skip blank lines."""
    for number, line in enumerate(lines, 1):
        data = line.strip()
        batch = batch_in(data, ()) if data else []
        for event in [data] if batch is None else batch:
            try:
                named = msgspec.json.decode(event, type=_EventKey)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                yield Outgoing(number, "", "", event)
            else:
                yield Outgoing(number, named.source, named.id, event)


async def publish_all(publisher: Publisher, events: Iterable[Outgoing]) -> None:
    """Publish events that name their source; reject the others here, since they have no inbox."""
    now = datetime.now(UTC)
    for event in events:
        publisher.outcome.read += 1
        if event.source and token_of_source(event.source):
            await publisher.add(event)
        else:
            result = check_new(accept(event.data, now))
            reason = result if isinstance(result, Rejection) else Rejection("invalid", "source", "a source is needed")
            publisher.outcome.reject(event.line, event.id, reason)
    await publisher.settle()
