"""The way of events over HTTP into a source's inbox: content modes, the check by the intake, and publishing.

Source: CloudEvents 1.0.2, HTTP protocol binding. Events are published as those of any source: over NATS, as JSON.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import nats.errors

from config import topology
from dashboard.nats_requests import TIMEOUT_SECONDS
from dashboard.problem_details import ParameterError
from domain.serialization import encode
from ledger.errors import EventError, UnavailableError
from ledger.store.content_modes import Mode, binary_event, claimed_id, events_of_batch, mode_of, structured_event
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ledger.nats.client import LedgerClient
    from ledger.store.content_modes import Headers

_CHECKED_BYTES = 900_000
"""The server's limit of a message is a megabyte."""
_SHOWN_FAULTS = 20


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


class _Checked(msgspec.Struct):
    accepted: bool = True
    error: dict[str, str] = {}


class _CheckAnswer(msgspec.Struct):
    items: list[_Checked] = []
    error: dict[str, str] = {}


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

    def __init__(self, client: LedgerClient) -> None:
        self._client = client

    async def publish(self, source: str, events: Sequence[bytes]) -> list[PublishedEvent]:
        """Publish events into the inbox of a source; return their receipts in order.

        Raises:
            FaultyEventsError: the intake would reject some of them. Nothing was published.
            UnavailableError: not all of them are durable. It is safe to send all of them again.

        """
        token = token_of_source(source)
        await self._check(token, events)
        parts = list(_parts(events, topology.MAX_EVENT_BYTES))
        acks = await asyncio.gather(*(self._store(token, part) for part in parts))
        return [
            PublishedEvent(claimed_id(event), ack.stream, ack.seq)
            for part, ack in zip(parts, acks, strict=True)
            for event in part
        ]

    async def _check(self, token: str, events: Sequence[bytes]) -> None:
        """Ask the intake about each event. Without an answer the inbox takes them, as it does from other sources."""
        too_large = [number for number, event in enumerate(events) if len(event) > topology.MAX_EVENT_BYTES]
        if too_large:
            number, most = too_large[0], topology.MAX_EVENT_BYTES
            message = f"an event is at most {most} bytes, not {len(events[number])}"
            raise FaultyEventsError([Fault(number, claimed_id(events[number]), "too_large", "", message)])
        subject = f"{topology.READ_SUBJECT}.{token}.check"
        parts = list(_parts(events, _CHECKED_BYTES))
        try:
            answers = await asyncio.gather(*(self._request(subject, _batch(part)) for part in parts))
        except UnavailableError:
            return
        faults: list[Fault] = []
        number = 0
        for part, answer in zip(parts, answers, strict=True):
            found = msgspec.json.decode(answer, type=_CheckAnswer)
            items = found.items or [_Checked(accepted=False, error=found.error)] * len(part)
            for event, one in zip(part, items, strict=True):
                if not one.accepted:
                    code, field, message = (one.error.get(name, "") for name in ("code", "field", "message"))
                    faults.append(Fault(number, claimed_id(event), code, field, message))
                number += 1
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
            return (await self._client.request(subject, body, timeout=TIMEOUT_SECONDS)).data
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
