"""CloudEvents 1.0 in JSON: structured and binary mode, told apart, checked and normalised."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]{1,40}", re.ASCII)
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_OWN = ("recordedtime", "position", "corrects")
_TEXTS = ("specversion", "id", "source", "type", "time")
_REQUIRED = (*_TEXTS, "data")
_KNOWN = frozenset(_REQUIRED)
_events = msgspec.json.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_sorted = msgspec.json.Encoder(order="sorted")


class EventError(ValueError):
    """Bytes that are no acceptable CloudEvent: a stable code, the field, and what to do."""

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.message = message


class Envelope(NamedTuple):
    """A checked event: its attributes, its data as JSON text, the whole as a JSON object, its content's hash."""

    source: str
    id: str
    type: str
    time: datetime
    data: msgspec.Raw
    json: bytes
    content: bytes


class Stored(msgspec.Struct):
    """What readers need of a stored event; the rest stays in the bytes."""

    source: str
    id: str
    type: str
    time: str
    recordedtime: str
    data: msgspec.Raw
    corrects: int | None = None
    """Of a `fact.corrected`: the position of the fact that was wrong."""


stored_decoder = msgspec.json.Decoder(Stored)


def parse_time(text: str) -> datetime:
    """A moment from RFC 3339 text with its zone; digits beyond microseconds are dropped.

    Raises:
        ValueError: not such a text.

    """
    if not _RFC3339.fullmatch(text):
        message = f"not an RFC 3339 time with its zone: {text[:40]!r}"
        raise ValueError(message)
    return msgspec.convert(text.upper(), datetime).astimezone(UTC)


@lru_cache(maxsize=1024)
def time_text(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, e.g. ``2026-11-21T10:00:00.000000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def parse_event(data: bytes, headers: Mapping[str, str] | None = None) -> Envelope:
    """Check and normalise one event in structured mode, or in binary mode (``ce-`` headers).

    Raises:
        EventError: with the code and field of the first thing wrong.

    """
    raw = _binary(data, headers) if headers and _is_binary(headers) else _structured(data)
    for name in _REQUIRED:
        if name not in raw:
            raise EventError("missing", f"`{name}` is required", name)
    _check_names(raw)
    try:
        encoded = _encoder.encode(raw)
        event = _anything.decode(encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventError("not_json", f"not JSON: {error}", "data") from None
    for name in _TEXTS:
        if not isinstance(event[name], str):
            raise EventError("invalid", f"`{name}` must be a text", name)
    if event["specversion"] != "1.0":
        raise EventError("invalid", 'specversion must be "1.0"', "specversion")
    try:
        moment = parse_time(event["time"])
    except (ValueError, OverflowError):
        rule = 'time must be RFC 3339 with its zone, such as "2026-11-21T10:00:00Z"'
        raise EventError("invalid", rule, "time") from None
    content = hashlib.sha256(_sorted.encode(event)).digest()[:16]
    return Envelope(event["source"], event["id"], event["type"], moment, raw["data"], encoded, content)


def _check_names(attributes: Mapping[str, object]) -> None:
    for name in attributes.keys() - _KNOWN:
        if name in _OWN:
            raise EventError("reserved_attribute", f"`{name}` is set by the ledger; leave it out", name)
        if not _ATTRIBUTE_NAME.fullmatch(name):
            rule = "attribute names are lower-case letters and digits (CloudEvents 1.0)"
            raise EventError("invalid", rule, name[:40])


def encode_event(source: str, identifier: str, type_name: str, time: datetime, data: bytes) -> bytes:
    """An event of our own as a JSON object, without ``recordedtime``: the log adds that."""
    texts = (_encoder.encode(identifier), _text(source), _text(type_name), _text(time_text(time)))
    return b'{"specversion":"1.0","id":%b,"source":%b,"type":%b,"time":%b,"data":%b}' % (*texts, data)


def with_corrects(event: bytes, position: int) -> bytes:
    """A correction that says which position it corrects."""
    return b'%b,"corrects":%d}' % (event[:-1], position)


def content_hash(event: bytes) -> bytes:
    """What an event says, whatever the order of its keys and its white space (16 bytes).

    What the ledger adds is left out, so that a stored event has the hash of the event as sent.
    """
    return body_hash(event, without=_OWN)[:16]


def body_hash(body: bytes, without: Sequence[str] = ()) -> bytes:
    """SHA-256 over JSON text with sorted keys and without white space (32 bytes)."""
    value = _anything.decode(body)
    if isinstance(value, dict):
        for name in without:
            value.pop(name, None)
    return hashlib.sha256(_sorted.encode(value)).digest()


def name_key(source: str, identifier: str) -> bytes:
    """The key of a name, (source, id), in an index (16 bytes)."""
    text = f"{len(source)}:{source}:{identifier}".encode()
    return hashlib.blake2b(text, digest_size=16).digest()


@lru_cache(maxsize=4096)
def _text(value: str) -> bytes:
    """A JSON text."""
    return _encoder.encode(value)


def _is_binary(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == "ce-specversion" for name in headers)


def _structured(data: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _events.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(error, msgspec.ValidationError):
            message = "a CloudEvent is a JSON object"
            raise EventError("invalid", message) from None
        message = f"not JSON: {error}"
        raise EventError("not_json", message) from None


def _binary(data: bytes, headers: Mapping[str, str]) -> dict[str, msgspec.Raw]:
    event = {
        name.lower().removeprefix("ce-"): msgspec.Raw(json.dumps(value).encode())
        for name, value in headers.items()
        if name.lower().startswith("ce-")
    }
    event["data"] = msgspec.Raw(data)
    return event
