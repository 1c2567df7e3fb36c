"""Entries of the stream REJECTED: the original bytes of a message, and the reason of its rejection."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC
from typing import TYPE_CHECKING

import msgspec

from config import topology
from ledger.store.cloudevents import NON_PERSONAL_ATTRIBUTES, time_text
from ledger.store.content_modes import Headers, headers_of

if TYPE_CHECKING:
    from datetime import datetime

    from consumers.intake.inbox_message import Message
    from consumers.intake.validation import Rejection
    from ledger.encryption.keyring import Key

_TEXT_CHARACTERS = 1000
_HEADER_CHARACTERS = 4000
_CLEAR_HEADERS = {
    "content-type",
    *(f"ce-{name}" for name in ("specversion", "source", "type", "time", *NON_PERSONAL_ATTRIBUTES)),
}


class RejectedEntry(msgspec.Struct):
    """An entry of REJECTED: the original bytes in base64, and the code, field and message of the rejection.

    ``subject_bytes`` (a subject that is not UTF-8) and ``raw_headers`` (the header block) are base64, too. Entries of
    earlier versions have neither.
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

    from_operator: bool = False
    """Set after reading: the ledger's own commands had sent it, which no profile limits."""
    received: str = ""
    """The time when the inbox stored it. A retry of an event without a time keeps this time."""

    @property
    def original_headers(self) -> Headers:
        """The headers for the content mode, after decryption."""
        try:
            return headers_of(base64.b64decode(self.raw_headers, validate=True)) if self.raw_headers else self._headers
        except ValueError:  # the key is destroyed
            return self._headers

    @property
    def _headers(self) -> Headers:
        return tuple(self.headers.items())

    @property
    def original_subject(self) -> bytes:
        """The bytes of the subject."""
        return base64.b64decode(self.subject_bytes) if self.subject_bytes else self.subject.encode()


def rejected_entry(rejection: Rejection, message: Message, key: Key) -> bytes:
    """Return the stored form of an entry; data and headers are encrypted with the key of the day."""

    def encrypted(raw: bytes, name: str) -> str:
        return key.encrypt(msgspec.json.encode(base64.b64encode(raw).decode()), name)

    raw_subject = message.subject.encode("utf-8", "surrogateescape")
    readable = _bounded(message.subject)
    document = {
        "subject": readable,
        "code": rejection.code,
        "field": _bounded(rejection.field),
        "message": _bounded(rejection.message),
        "headers": _shown(message.headers),
        "data": encrypted(message.data, message.name),
        "received": time_text(message.received()),
    }
    if raw_subject != readable.encode():
        document["subject_bytes"] = base64.b64encode(raw_subject).decode()
    if message.raw_headers:
        document["raw_headers"] = encrypted(message.raw_headers, f"{message.name}\x00headers")
    return msgspec.json.encode(document)


def _shown(headers: Headers) -> dict[str, str]:
    """Return the headers without personal data, or none where they are long; ``raw_headers`` holds all of them."""
    shown = {_bounded(name): _bounded(value) for name, value in headers if name.lower() in _CLEAR_HEADERS}
    return shown if sum(len(name) + len(value) for name, value in shown.items()) <= _HEADER_CHARACTERS else {}


def _bounded(text: str) -> str:
    """Return text as valid UTF-8, cut to the length that fits into an entry."""
    return text[:_TEXT_CHARACTERS].encode(errors="replace").decode()


def rejected_owner(day: datetime) -> str:
    """Return the owner of the key for rejections of a day."""
    return f"rejected:{day.astimezone(UTC).date()}"


def rejected_subject(sender: str, claimed_id: str, name: str) -> str:
    """Return the subject of a rejected message, from its source, its claimed id and its own name."""
    return f"{topology.REJECTED_SUBJECT}.{sender}.{id_token(claimed_id)}.{name}"


def id_token(identifier: str) -> str:
    """Return a short subject token for an id; ``-`` for an id that could not be read."""
    return hashlib.sha256(identifier.encode(errors="replace")).hexdigest()[:32] if identifier else "-"
