"""Rejected messages as the stream REJECTED keeps them: the original bytes, and why they could not be recorded."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from config import topology
from ledger.content_modes import Headers
from ledger.names import is_source_token
from ledger.pull import sequence_of, stream_of

if TYPE_CHECKING:
    from consumers.acceptance import Rejection
    from ledger.keys import Key

_TEXT_CHARACTERS = 1000
_HEADER_CHARACTERS = 4000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_SOURCE = "%"
"""The token of messages whose subject names no source; no source's own token reads so."""


class Message(NamedTuple):
    """One message of an inbox.

    ``subject`` holds bytes that are not UTF-8 as surrogates; ``reply`` is where it is acknowledged; ``raw_headers`` is
    the header block as it came, empty where there is none.
    """

    subject: str
    data: bytes
    headers: Headers
    reply: bytes
    raw_headers: bytes = b""

    @property
    def name(self) -> str:
        """Its sequence and time stamp: no other message has it, also in an inbox that was made anew."""
        sequence, _, stamp = sequence_of(self.reply)
        return f"{sequence}-{stamp.decode()}"

    @property
    def received(self) -> datetime:
        """When the inbox took it: the same when it is handed out again."""
        return _EPOCH + timedelta(microseconds=int(sequence_of(self.reply)[2]) // 1000)

    @property
    def place(self) -> tuple[bytes, int]:
        """Its stream and its sequence there: the same when it is handed out again."""
        return stream_of(self.reply), sequence_of(self.reply)[0]

    @property
    def token(self) -> str:
        """The source's token in the subject."""
        return self.subject.rpartition(".")[2]


class RejectedEntry(msgspec.Struct):
    """What REJECTED keeps: the original bytes (base64) and why they could not be recorded.

    ``subject_bytes`` and ``raw_headers`` are base64, too: the subject where it is not UTF-8, and all headers as they
    came. Entries of earlier versions have neither.
    """

    subject: str
    code: str
    field: str
    message: str
    headers: dict[str, str]
    data: str
    recordedtime: str = ""
    subject_bytes: str = ""
    raw_headers: str = ""

    @property
    def original_subject(self) -> bytes:
        """The subject, byte by byte."""
        return base64.b64decode(self.subject_bytes) if self.subject_bytes else self.subject.encode()


def rejected_entry(rejection: Rejection, message: Message, key: Key) -> bytes:
    """Return the entry as it is stored: what a person may have written sealed with the key of the day."""

    def sealed(raw: bytes, name: str) -> str:
        return key.seal(msgspec.json.encode(base64.b64encode(raw).decode()), name)

    raw_subject = message.subject.encode("utf-8", "surrogateescape")
    readable = _bounded(message.subject)
    document = {
        "subject": readable,
        "code": rejection.code,
        "field": _bounded(rejection.field),
        "message": _bounded(rejection.message),
        "headers": _shown(message.headers),
        "data": sealed(message.data, message.name),
    }
    if raw_subject != readable.encode():
        document["subject_bytes"] = base64.b64encode(raw_subject).decode()
    if message.raw_headers:
        document["raw_headers"] = sealed(message.raw_headers, f"{message.name}\x00headers")
    return msgspec.json.encode(document)


def _shown(headers: Headers) -> dict[str, str]:
    """Headers as text, for a list; nothing where they are long: all of them stand in ``raw_headers``."""
    shown = {_bounded(name): _bounded(value) for name, value in headers}
    return shown if sum(len(name) + len(value) for name, value in shown.items()) <= _HEADER_CHARACTERS else {}


def _bounded(text: str) -> str:
    """Text that can be stored as JSON and fits into an entry whatever a sender wrote."""
    return text[:_TEXT_CHARACTERS].encode(errors="replace").decode()


def rejected_owner(day: datetime) -> str:
    """Whose key seals what is rejected on a day."""
    return f"rejected:{day.astimezone(UTC).date()}"


def rejected_subject(token: str, claimed_id: str, name: str) -> str:
    """Where a rejected message is kept: by source, by the id it claims, by its own name."""
    source = token if is_source_token(token) else _NO_SOURCE
    return f"{topology.REJECTED_SUBJECT}.{source}.{id_token(claimed_id)}.{name}"


def id_token(identifier: str) -> str:
    """A short subject token for an id; ``-`` where it could not be read."""
    return hashlib.sha256(identifier.encode(errors="replace")).hexdigest()[:32] if identifier else "-"


class _Claim(msgspec.Struct):
    id: str


def claimed_id(message: Message) -> str:
    """The id that a message claims to have; empty where none can be read."""
    headers = {name.lower(): value for name, value in message.headers}
    if "ce-id" in headers:
        return headers["ce-id"]
    try:
        return msgspec.json.decode(message.data, type=_Claim).id
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return ""
