"""Messages of an inbox, and the events in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from config import topology
from consumers.intake.places import BatchPlace, EventPlace
from ledger.errors import EventError
from ledger.nats.client import text_of
from ledger.store.content_modes import Headers, Mode, claimed_id, events_of_batch, first_received, headers_of, mode_of
from ledger.store.pull_consumer import parse_ack
from ledger.store.subject_tokens import NO_SOURCE, is_source_token

if TYPE_CHECKING:
    from ledger.store.pull_consumer import PulledMessage

_FROM_IMPORT = f".{topology.IMPORT}.{topology.INTAKE_CONSUMER}.".encode()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Message(NamedTuple):
    """One message of an inbox, or one event of a batch.

    ``subject`` holds bytes that are not UTF-8 as surrogates. ``reply`` is the subject for its acknowledgement.
    ``raw_headers`` is the unparsed header block, or empty. An event of a batch has its own bytes, no headers, and its
    number in the batch as ``part``.
    """

    subject: str
    data: bytes
    headers: Headers
    reply: bytes
    raw_headers: bytes = b""
    part: int = 0

    def received(self) -> datetime:
        """Return the time when an inbox stored it. A redelivery and a retry after a rejection keep that time."""
        stamp = _EPOCH + timedelta(microseconds=int(parse_ack(self.reply)[3]) // 1000)
        return first_received(self.headers, stamp) if self.headers else stamp

    @property
    def place(self) -> EventPlace:
        """Its stream and its sequence there, which a redelivery keeps."""
        stream, sequence, _, _ = parse_ack(self.reply)
        return EventPlace(stream.decode(), sequence, self.part)

    @property
    def name(self) -> str:
        """Its place and time stamp as subject tokens, unique even where an inbox was created again."""
        stream, sequence, part = self.place
        name = f"{stream}.{sequence}.{parse_ack(self.reply)[3].decode()}"
        return f"{name}.{part}" if part else name

    @property
    def token(self) -> str:
        """The last token of its subject: any text, with bytes that are not UTF-8 as surrogates."""
        return self.subject.rpartition(".")[2]

    @property
    def sender(self) -> str:
        """Its token if that is valid as a source's token, otherwise ``NO_SOURCE``; safe as a part of any subject."""
        return self.token if is_source_token(self.token) else NO_SOURCE


def message_of(pulled: PulledMessage) -> Message:
    """Return a pulled message."""
    headers = headers_of(pulled.headers) if pulled.headers else ()
    return Message(text_of(pulled.subject), pulled.data, headers, pulled.reply, pulled.headers)


def is_from_operator(message: Message) -> bool:
    """Return whether the ledger's own commands sent a message: no source may publish into their inbox."""
    return _FROM_IMPORT in message.reply


def batch_in(data: bytes, headers: Headers) -> list[bytes] | None:
    """Return the bytes of each event of a batch; ``None`` for a message that is no readable batch."""
    try:
        return events_of_batch(data) if mode_of(data, headers) is Mode.BATCH else None
    except EventError:
        return None


def events_in(message: Message) -> tuple[list[Message], BatchPlace | None]:
    """Return the events of a message, each as a message, and the batch if it is one.

    A message that is no readable batch counts as one event.
    """
    batch = batch_in(message.data, message.headers)
    if batch is None:
        return [message], None
    events = [
        message._replace(data=event, headers=(), raw_headers=b"", part=number) for number, event in enumerate(batch, 1)
    ]
    return events, BatchPlace(message.sender, len(batch))


def claimed_ids(data: bytes, headers: Headers) -> list[str]:
    """Return the ids that the events of a message claim to have; an id that cannot be read is empty."""
    events = batch_in(data, headers)
    return [claimed_id(data, headers)] if events is None else [claimed_id(event) for event in events]
