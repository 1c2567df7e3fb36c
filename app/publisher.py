"""Publishing events into inboxes in batches, and the outcome of each event."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import nats.errors

from config import topology
from consumers.intake.inbox_message import batch_in
from consumers.intake.validation import Rejection, accept, check_new
from consumers.rejections import RejectedEntry, id_token
from ledger.errors import LedgerError, UnavailableError
from ledger.store.atomic_batches import MAX_BATCH, in_batches
from ledger.store.duplicate_events import canonical_form
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from app.runtime.session import Session
    from domain.serialization import JsonObject

_POLL_SECONDS = 0.05
_STALLED_SECONDS = 60.0


class Outgoing(NamedTuple):
    """An event to publish: its line in the input, its source, its id and its bytes."""

    line: int
    source: str
    id: str
    data: bytes


class RejectedLine(NamedTuple):
    """A rejected event: its line in the input, its id, and the reason."""

    line: int
    id: str
    code: str
    field: str
    message: str


class Outcome:
    """Counts of the events of one run, and the rejections among them."""

    def __init__(self) -> None:
        self.read = 0
        self.recorded = 0
        self.duplicate = 0
        self.rejected: list[RejectedLine] = []
        self.skipped: Counter[str] = Counter()

    def reject(self, line: int, identifier: str, rejection: Rejection) -> None:
        """Count an event that cannot be published or recorded."""
        self.rejected.append(RejectedLine(line, identifier, rejection.code, rejection.field, rejection.message))

    def wire(self) -> JsonObject:
        """Return ``{read, recorded, duplicate, rejected, skipped: {reason: n}, rejections: [...]}``."""
        return {
            "read": self.read,
            "recorded": self.recorded,
            "duplicate": self.duplicate,
            "rejected": len(self.rejected),
            "skipped": dict(sorted(self.skipped.items())),
            "rejections": [one._asdict() for one in self.rejected[:1000]],
        }


class Publisher:
    """Publishes events, and waits until the intake has handled each of them."""

    def __init__(self, session: Session, inbox_log: Log, outcome: Outcome, progressed: Callable[[int], None]) -> None:
        self._session = session
        self._inbox = inbox_log
        self._progressed = progressed
        self._waiting: list[Outgoing] = []
        self._sent: dict[str, list[Outgoing]] = defaultdict(list)
        self._last_inbox = 0
        self._first_position = 0
        self._first_rejected = 0
        self.outcome = outcome

    @classmethod
    async def open(cls, session: Session, outcome: Outcome, progressed: Callable[[int], None]) -> Publisher:
        """Return a publisher; it knows the log's end at its start, to tell new events from duplicates."""
        inbox_log = await Log.unstamped(await session.connection("publisher"), topology.IMPORT)
        publisher = cls(session, inbox_log, outcome, progressed)
        publisher._first_position = await session.log.last_position()
        publisher._first_rejected = await session.rejected.last_position()
        return publisher

    async def add(self, event: Outgoing) -> None:
        """Publish an event in a batch with the next ones."""
        if len(event.data) > topology.MAX_EVENT_BYTES:
            message = f"an event is at most {topology.MAX_EVENT_BYTES} bytes, not {len(event.data)}"
            self.outcome.reject(event.line, event.id, Rejection("too_large", "", message))
            return
        self._waiting.append(event)
        if len(self._waiting) == MAX_BATCH:
            await self.flush()

    async def flush(self) -> None:
        """Publish the current batch; it is durable in the inbox afterwards."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        drafts = [Draft(f"{topology.IMPORT_SUBJECT}.{token_of_source(event.source)}", event.data) for event in batch]
        for part in in_batches(drafts, lambda draft: len(draft.data)):
            first = await self._inbox.append(part, patience_seconds=30)
            self._last_inbox = max(self._last_inbox, first + len(part) - 1)
        for event in batch:
            self._sent[event.source].append(event)
        self._progressed(len(batch))

    async def settle(self) -> None:
        """Wait for the intake; count recorded, duplicate and rejected events."""
        await self.flush()
        await self._wait_for_intake()
        rejected = await self._new_rejections()
        for source, events in self._sent.items():
            await self._count(source, events, rejected)

    async def _wait_for_intake(self) -> None:
        stalled, floor_before = 0.0, -1
        while self._last_inbox:
            name = f"CONSUMER.INFO.{topology.IMPORT}.{topology.INTAKE_CONSUMER}"
            info = await js_api(self._session.client, name)
            floor = info.get("ack_floor", {}).get("stream_seq", 0)
            if floor >= self._last_inbox:
                return
            stalled = 0.0 if floor != floor_before else stalled + _POLL_SECONDS
            floor_before = floor
            if stalled > _STALLED_SECONDS:
                message = "the intake makes no progress: is it running? Published events are safe in the inbox"
                raise UnavailableError(message)
            await asyncio.sleep(_POLL_SECONDS)

    async def _new_rejections(self) -> dict[tuple[str, str], list[Rejection]]:
        """Return the rejections since the start, by (subject token, token of the id)."""
        found: dict[tuple[str, str], list[Rejection]] = defaultdict(list)
        subject = f"{topology.REJECTED_SUBJECT}.>"
        async for batch in self._session.rejected.subject_batches(subject, self._first_rejected):
            for recorded in batch:
                entry = msgspec.json.decode(recorded.data, type=RejectedEntry)
                _, token, claimed, *_ = recorded.subject.split(".")
                found[token, claimed].append(Rejection(entry.code, entry.field, entry.message))
        return found

    async def _count(
        self, source: str, events: list[Outgoing], rejected: dict[tuple[str, str], list[Rejection]]
    ) -> None:
        token = token_of_source(source)
        positions = await self._positions(token, source, [event.id for event in events])
        counted: set[str] = set()
        for event in reversed(events):  # of two events with one id, the later one is rejected
            reasons = rejected.get((token, id_token(event.id)))
            position = positions.get(event.id)
            if reasons:
                self.outcome.reject(event.line, event.id, reasons.pop())
            elif position is None:
                raise LedgerError(f"{source} {event.id} was acknowledged, but is neither recorded nor rejected")
            elif position > self._first_position and event.id not in counted:
                counted.add(event.id)
                self.outcome.recorded += 1
            else:
                self.outcome.duplicate += 1

    async def _positions(self, token: str, source: str, ids: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(ids), 1000):
            request = {"ids": ids[start : start + 1000], "source": source}
            subject = f"{topology.READ_SUBJECT}.{token}.receipt"
            try:
                reply = await self._session.client.request(subject, json.dumps(request).encode(), timeout=30)
            except (nats.errors.Error, TimeoutError) as error:
                raise UnavailableError(f"no receipts from the intake: {error or 'time-out'}") from error
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
