"""The way of events over HTTP into a source's inbox: content modes, the check, and publishing.

Source: CloudEvents 1.0.2, HTTP protocol binding. Events are published as those of any source: over NATS, as JSON.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import nats.errors

from config import topology
from dashboard.nats_requests import TIMEOUT_SECONDS
from dashboard.problem_details import ParameterError
from domain.serialization import encode
from ledger import traces
from ledger.errors import EventError, UnavailableError
from ledger.store.content_modes import Mode, binary_event, claimed_id, events_of_batch, mode_of, structured_event
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ledger.nats.client import LedgerClient
    from ledger.store.content_modes import Headers

_SHOWN_FAULTS = 20
_PART_BYTES = topology.MAX_EVENT_BYTES - 1024
"""Bytes of a message with several events; the headers of a trace need some of the inbox's limit."""


class Fault(NamedTuple):
    """The reason why an event cannot be taken: its number in the batch (from 0), and the intake's code and message."""

    number: int
    id: str
    code: str
    field: str
    message: str


class FaultyEventsError(Exception):
    """Events that the intake would reject; none of the request's events was published."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults[0].message)
        self.faults = faults


class PublishedEvent(msgspec.Struct, frozen=True):
    """The receipt of a published event: its id, and the place of its message in the inbox."""

    id: str
    stream: str
    seq: int
    status: str = "pending"


class _StoredAck(msgspec.Struct):
    """A PubAck of JetStream, or its error."""

    stream: str = ""
    seq: int = 0
    error: dict[str, str | int] | None = None


type Reason = tuple[str, str, str]
"""The reason to reject an event: a stable code, the field, and a message with the remedy."""


class EventCheck(Protocol):
    """The intake's check of events, in this process: asked over NATS, it waits behind the events that are recorded."""

    async def start(self) -> None:
        """Read what the check depends on."""

    async def follow(self, client: LedgerClient) -> None:
        """Follow what the check depends on, for ever."""

    async def rejections(self, token: str, events: Sequence[bytes]) -> Sequence[Reason | None]:
        """Return for each event of the source with this token why the intake would reject it, or ``None``."""


def events_of_request(body: bytes, headers: Headers) -> list[bytes]:
    """Return the events of a request in any content mode, each as a JSON object.

    Raises:
        ParameterError: 400 for a body that is no event, 413 for too many events.

    """
    try:
        mode = mode_of(body, headers)
        if mode is Mode.BATCH:
            return events_of_batch(body)
        if mode is Mode.BINARY:
            return [encode(binary_event(body, headers))]
        structured_event(body)  # it is one JSON object; the intake checks the rest
    except EventError as error:
        status = 413 if error.code == "too_large" else 400
        raise ParameterError(error.field, error.message, code=error.code, status=status) from None
    return [body]


class EventGateway:
    """Publishes the events of sources that speak HTTP."""

    def __init__(self, client: LedgerClient, check: EventCheck) -> None:
        self._client = client
        self._check = check

    async def publish(self, source: str, events: Sequence[bytes]) -> list[PublishedEvent]:
        """Publish events into the inbox of a source; return their receipts in order.

        Raises:
            FaultyEventsError: the intake would reject some of them. Nothing was published.
            UnavailableError: not all of them are durable. It is safe to send all of them again.

        """
        token = token_of_source(source)
        await self._refuse_faulty(token, events)
        parts = list(_parts(events, _PART_BYTES))
        acks = await asyncio.gather(*(self._store(token, part) for part in parts))
        return [
            PublishedEvent(claimed_id(event), ack.stream, ack.seq)
            for part, ack in zip(parts, acks, strict=True)
            for event in part
        ]

    async def _refuse_faulty(self, token: str, events: Sequence[bytes]) -> None:
        reasons = await self._check.rejections(token, events)
        faults = [
            Fault(number, claimed_id(event), *reason)
            for number, (event, reason) in enumerate(zip(events, reasons, strict=True))
            if reason is not None
        ]
        if faults:
            raise FaultyEventsError(faults[:_SHOWN_FAULTS])

    async def _store(self, token: str, events: Sequence[bytes]) -> _StoredAck:
        """Publish events as one message of the inbox."""
        body = events[0] if len(events) == 1 else _batch(events)
        answer = await self._request(f"{topology.INBOX_SUBJECT}.{token}", body)
        ack = msgspec.json.decode(answer, type=_StoredAck)
        if ack.error is not None:
            message = f"the inbox does not take the events now ({ack.error.get('description')}): send all of them again"
            raise UnavailableError(message)
        return ack

    async def _request(self, subject: str, body: bytes) -> bytes:
        try:
            with traces.sending(subject) as headers:
                fitting = headers if len(body) <= _PART_BYTES else None
                return (await self._client.request(subject, body, timeout=TIMEOUT_SECONDS, headers=fitting)).data
        except (nats.errors.Error, TimeoutError) as error:
            raise UnavailableError("the NATS server gives no answer: send all events again") from error


def _batch(events: Sequence[bytes]) -> bytes:
    return b"[%b]" % b",".join(events)


def _parts(events: Sequence[bytes], most_bytes: int) -> Iterator[list[bytes]]:
    """Yield the events in runs whose JSON array has at most so many bytes; a longer event is alone."""
    part: list[bytes] = []
    size = 1
    for event in events:
        if part and size + len(event) + 1 > most_bytes:
            yield part
            part, size = [], 1
        part.append(event)
        size += len(event) + 1
    if part:
        yield part
