"""Messages of an inbox, and the events in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from consumers.intake.places import BatchPlace, EventPlace
from ledger.errors import EventError
from ledger.nats.client import text_of
from ledger.store.content_modes import Headers, Mode, claimed_id, events_of_batch, first_received, headers_of, mode_of
from ledger.store.pull_consumer import ack_sequences, ack_stream_and_sequence
from ledger.store.subject_tokens import NO_SOURCE, is_source_token

if TYPE_CHECKING:
    from ledger.store.pull_consumer import PulledMessage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Message(NamedTuple):
    """One message of an inbox.

    ``subject`` holds bytes that are not UTF-8 as surrogates; ``reply`` is where it is acknowledged; ``raw_headers`` is
    the header block as it came, empty where there is none. An event of a batch has its own bytes, no headers, and its
    number in the batch as ``part``.
    """

    subject: str
    data: bytes
    headers: Headers
    reply: bytes
    raw_headers: bytes = b""
    part: int = 0

    def received(self) -> datetime:
        """When an inbox took it: the same when it is handed out again, or retried after a rejection."""
        stamp = _EPOCH + timedelta(microseconds=int(ack_sequences(self.reply)[2]) // 1000)
        return first_received(self.headers, stamp) if self.headers else stamp

    @property
    def place(self) -> EventPlace:
        """Its stream and its sequence there: the same when it is handed out again."""
        return EventPlace(*ack_stream_and_sequence(self.reply), self.part)

    @property
    def name(self) -> str:
        """Its place and time stamp as tokens of a subject: no other has it, also in an inbox that was made anew."""
        stream, sequence, part = self.place
        name = f"{stream}.{sequence}.{ack_sequences(self.reply)[2].decode()}"
        return f"{name}.{part}" if part else name

    @property
    def token(self) -> str:
        """Its source's token in the subject; may be any text, with bytes that are not UTF-8 as surrogates."""
        return self.subject.rpartition(".")[2]

    @property
    def sender(self) -> str:
        """Its source's token where that is one, else a token that no source has: this may be stored anywhere."""
        return self.token if is_source_token(self.token) else NO_SOURCE


def message_of(pulled: PulledMessage) -> Message:
    """Return a message as it was pulled."""
    headers = headers_of(pulled.headers) if pulled.headers else ()
    return Message(text_of(pulled.subject), pulled.data, headers, pulled.reply, pulled.headers)


def batch_in(data: bytes, headers: Headers) -> list[bytes] | None:
    """Return the bytes of each event of a batch; None where a message is no batch, or not one that can be read."""
    try:
        return events_of_batch(data) if mode_of(data, headers) is Mode.BATCH else None
    except EventError:
        return None


def events_in(message: Message) -> tuple[list[Message], BatchPlace | None]:
    """Return the events of a message, each as a message, and the size of the batch if it is one.

    A message that is no batch, or not one that can be read, counts as an event.
    """
    batch = batch_in(message.data, message.headers)
    if batch is None:
        return [message], None
    events = [
        message._replace(data=event, headers=(), raw_headers=b"", part=number) for number, event in enumerate(batch, 1)
    ]
    return events, BatchPlace(message.sender, len(batch))


def claimed_ids(data: bytes, headers: Headers) -> list[str]:
    """Return the ids that the events of a message claim to have; empty texts where none can be read."""
    events = batch_in(data, headers)
    return [claimed_id(data, headers)] if events is None else [claimed_id(event) for event in events]
