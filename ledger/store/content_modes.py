"""CloudEvents content modes: one event in the body (structured), in headers (binary), or many in the body (batch).

Sources: CloudEvents 1.0.2, JSON event format; NATS and HTTP protocol bindings.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from ledger.errors import EventError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STRUCTURED_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"
RECEIVED_HEADER = "ledger-received"
"""The header of a retried message: the time at which an inbox first received it (RFC 3339)."""
IMPORT_HEADER = "ledger-import"
"""The header of a message of an import: the id of its run. It counts in the inbox of the ledger's own commands only."""
MAX_BATCH_EVENTS = 1000
_SMALL_BATCH, _MIN_EVENT_BYTES = 16, 64
"""A batch of more events than this needs at least so many bytes for each; the smallest fact has about 100."""
Headers = tuple[tuple[str, str], ...]
"""Names and values in order; bytes that are not UTF-8 become surrogates (``surrogateescape``)."""

_PREFIX = "ce-"
_KEPT = (_PREFIX, "content-type", RECEIVED_HEADER, IMPORT_HEADER)
_STRUCTURED = {"application/cloudevents", STRUCTURED_TYPE}
_BATCH = {"application/cloudevents-batch", BATCH_TYPE}
_CHARSETS = {"utf-8", "utf8", "us-ascii"}
_ARRAY = re.compile(rb"[ \t\r\n]*\[")
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";]*)"?', re.IGNORECASE)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})?")
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_JSON_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _EventId(msgspec.Struct):
    id: str


_id_decoder = msgspec.json.Decoder(_EventId)


class Mode(Enum):
    """The content mode of a message."""

    STRUCTURED = "structured"
    BINARY = "binary"
    BATCH = "batch"


def headers_of(raw: bytes) -> Headers:
    """Return the headers of a NATS header block that describe its content, and the time of a retried message.

    The block is ``NATS/1.0 ...`` and lines that end with CR LF. The server's own headers are dropped, so that a
    republished message does not repeat them.
    """
    lines = raw.decode(errors="surrogateescape").split("\r\n")[1:]
    pairs = ((name.strip(), value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines))
    return tuple(pair for pair in pairs if pair[0].lower().startswith(_KEPT))


def first_received(headers: Headers, received: datetime) -> datetime:
    """Return the time at which an inbox first received a message: ``received``, or an earlier time before a retry."""
    found = [value for name, value in headers if name.lower() == RECEIVED_HEADER]
    try:
        return min(received, datetime.fromisoformat(found[0]).astimezone(UTC)) if found else received
    except (ValueError, OverflowError):
        return received


def mode_of(data: bytes, headers: Sequence[tuple[str, str]]) -> Mode:
    """Return the content mode. The content type decides; if it names no mode, ``ce-`` headers mean binary mode.

    Without either, an array is a batch and any other body is one event.

    Raises:
        EventError: the content type names an event format other than JSON, or a charset other than UTF-8.
    """
    if not headers:
        is_object = data.startswith(b"{")  # by far the most; a regular expression takes longer
        return Mode.STRUCTURED if is_object or _ARRAY.match(data) is None else Mode.BATCH
    content_type = _content_type(headers)
    media_type = _media_type(content_type)
    if media_type in _STRUCTURED or media_type in _BATCH:
        charset = _CHARSET.search(content_type)
        if charset is not None and charset[1].strip().lower() not in _CHARSETS:
            raise EventError("invalid", f"JSON is UTF-8, not {charset[1][:40]!r}", "content-type")
        return Mode.STRUCTURED if media_type in _STRUCTURED else Mode.BATCH
    if media_type.startswith("application/cloudevents"):
        rule = f"the format {media_type[:80]!r} is not accepted; send {STRUCTURED_TYPE}, {BATCH_TYPE} or binary mode"
        raise EventError("invalid", rule, "content-type")
    names = {name.lower() for name, _ in headers}
    if "ce-specversion" in names:
        return Mode.BINARY
    if _ARRAY.match(data) is not None:
        return Mode.BATCH
    if any(name.startswith(_PREFIX) for name in names) and not _is_event_object(data):
        return Mode.BINARY
    return Mode.STRUCTURED


def is_json(content_type: str) -> bool:
    """Return whether a content type declares JSON: its subtype is ``json`` or ends with ``+json``."""
    subtype = _media_type(content_type).partition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


def events_of_batch(data: bytes) -> list[bytes]:
    """Return the bytes of each event of a JSON batch, as sent.

    Raises:
        EventError: the bytes are not a JSON array, or it holds more than ``MAX_BATCH_EVENTS`` events.
    """
    events = _decode(_array_decoder, data, "a batch of CloudEvents is a JSON array")
    if len(events) > MAX_BATCH_EVENTS:
        raise EventError("too_large", f"a batch holds at most {MAX_BATCH_EVENTS} events, not {len(events)}")
    if len(events) > _SMALL_BATCH and len(data) < _MIN_EVENT_BYTES * len(
        events
    ):  # each element would be stored with its reason
        rule = f"{len(events)} elements in {len(data)} bytes are not CloudEvents; the batch is rejected as a whole"
        raise EventError("invalid", rule)
    return [bytes(event) for event in events]


def structured_event(data: bytes) -> tuple[dict[str, msgspec.Raw], bool]:
    """Return the members of an event's JSON object, and whether its data came as ``data_base64``; null means absent.

    Raises:
        EventError: the bytes are not a JSON object, or its ``data_base64`` does not hold JSON.
    """
    event = _decode(_object_decoder, data, "a CloudEvent is a JSON object")
    if b"null" in data:
        event = {name: value for name, value in event.items() if name == "data" or bytes(value) != b"null"}
    encoded = event.pop("data_base64", None)
    if encoded is None:
        return event, False
    if "data" in event:
        raise EventError("invalid", "an event has `data` or `data_base64`, not both", "data_base64")
    event["data"] = _json_data(_from_base64(encoded), _text_of(event.get("datacontenttype")), "data_base64")
    return event, True


def binary_event(data: bytes, headers: Iterable[tuple[str, str]]) -> dict[str, msgspec.Raw]:
    """Return the members of an event whose attributes are ``ce-`` headers and whose data is the body.

    Raises:
        EventError: a header cannot be decoded or is repeated, or the body is not JSON.
    """
    event: dict[str, msgspec.Raw] = {}
    content_type = ""
    for header, value in headers:
        name = header.lower()
        if name == "content-type":
            content_type = value
        if not name.startswith(_PREFIX):
            continue
        attribute = name.removeprefix(_PREFIX)
        if attribute in event:
            raise EventError("invalid", f"the header {name} occurs twice", attribute)
        if attribute == "data":
            raise EventError("invalid", "in binary mode the body is the data; `ce-data` is not an attribute", attribute)
        event[attribute] = _raw(_decoded(value, attribute))
    if declared := _declared_type(content_type, _text_of(event.get("datacontenttype"))):
        event["datacontenttype"] = _raw(declared)
    if data:
        event["data"] = _json_data(data, content_type or declared, "data")
    return event


def claimed_id(data: bytes, headers: Headers = ()) -> str:
    """Return an event's id, even if the rest of the event is invalid; empty if no id can be read."""
    try:
        if mode_of(data, headers) is Mode.BINARY:
            return next((_decoded(value, "id") for name, value in headers if name.lower() == "ce-id"), "")
        return _id_decoder.decode(data).id
    except (EventError, *_JSON_ERRORS):
        return ""


def _declared_type(content_type: str, attribute: str) -> str:
    """Return the ``datacontenttype`` to store; plain ``application/json`` is stored as none.

    The NATS binding has it in ``ce-datacontenttype``, the HTTP binding in ``Content-Type``.
    """
    if content_type and attribute and _media_type(content_type) != _media_type(attribute):
        rule = f"Content-Type says {content_type[:80]!r}, ce-datacontenttype {attribute[:80]!r}: send one of them"
        raise EventError("invalid", rule, "datacontenttype")
    if attribute:
        return attribute
    return "" if _media_type(content_type) == "application/json" else content_type


def _decode[T](decoder: msgspec.json.Decoder[T], data: bytes, rule: str) -> T:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise EventError("invalid", rule) from None
    except _JSON_ERRORS as error:
        raise EventError("not_json", f"not JSON: {error}") from None


def _json_data(data: bytes, content_type: str, field: str) -> msgspec.Raw:
    """Return data that came as bytes, after checking that it is one JSON value."""
    if content_type and not is_json(content_type):
        rule = f"the data of a fact is JSON; {content_type[:80]!r} is not accepted"
        raise EventError("not_json", rule, "datacontenttype")
    try:
        _decoder.decode(data)
    except _JSON_ERRORS as error:
        raise EventError("not_json", f"the data is not JSON: {error}", field) from None
    return msgspec.Raw(data.strip(b" \t\r\n"))


def _from_base64(value: msgspec.Raw) -> bytes:
    text = _text_of(value)
    if not text:
        raise EventError("invalid", "`data_base64` must be a string in Base64", "data_base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:  # a string that is not ASCII raises a ValueError
        raise EventError("invalid", f"`data_base64` is not Base64 (RFC 4648): {error}", "data_base64") from None


def _decoded(value: str, attribute: str) -> str:
    """Return a header's value: quoted strings unescaped, then percent-decoded once (HTTP binding, 3.1.3.2)."""
    if (quoted := _QUOTED.fullmatch(value)) is not None:
        value = _ESCAPED.sub(r"\1", quoted[1])
    raw = value.encode(errors="surrogateescape")
    if any(match[1] is None for match in _PERCENT.finditer(raw)):
        rule = f"ce-{attribute}: a percent sign is followed by two hexadecimal digits (`%25` is the sign itself)"
        raise EventError("invalid", rule, attribute)
    try:
        return _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), raw).decode()
    except UnicodeDecodeError as error:
        raise EventError("invalid", f"ce-{attribute} is not UTF-8: {error.reason}", attribute) from None


def _content_type(headers: Sequence[tuple[str, str]]) -> str:
    found = {value for name, value in headers if name.lower() == "content-type"}
    if len(found) > 1:
        raise EventError("invalid", "the header Content-Type occurs twice", "content-type")
    content_type = found.pop() if found else ""
    if not content_type.isprintable():  # a surrogate is a byte that is not UTF-8
        raise EventError("invalid", "the header Content-Type is not a media type", "content-type")
    return content_type


def _media_type(content_type: str) -> str:
    """Return the media type in lower case, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def _is_event_object(data: bytes) -> bool:
    """Return whether a body is a complete event; ``ce-`` headers beside it are ignored then."""
    try:
        return "specversion" in _object_decoder.decode(data)
    except _JSON_ERRORS:
        return False


def _text_of(value: msgspec.Raw | None) -> str:
    """Return the value of a JSON string; empty for any other value."""
    try:
        return msgspec.json.decode(value, type=str) if value is not None else ""
    except _JSON_ERRORS:
        return ""


def _raw(value: str) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(value))
