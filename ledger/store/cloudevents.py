"""CloudEvents 1.0 as JSON: validation, normal form and keys."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ledger.errors import EventError
from ledger.store.content_modes import Mode, binary_event, events_of_batch, mode_of, structured_event
from ledger.store.json_text import has_long_number, repeated_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ledger.store.content_modes import Headers
    from ledger.store.json_text import Json, JsonObject

REQUIRED = ("specversion", "id", "source", "type", "data")
NON_PERSONAL_ATTRIBUTES = frozenset(
    {"sequence", "sequencetype", "datacontenttype", "dataschema", "traceparent", "tracestate"}
)
"""Attributes that are stored unencrypted; every other attribute that a sender adds is treated as personal data."""

_ATTRIBUTE_NAME = re.compile(r"[a-z0-9]+", re.ASCII)
RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:)([0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_NONCHARACTERS = "".join(chr(plane | last) for plane in range(0, 0x110000, 0x10000) for last in (0xFFFE, 0xFFFF))
_DISALLOWED = re.compile(f"[\\x00-\\x1f\\x7f-\\x9f\\ufdd0-\\ufdef{_NONCHARACTERS}]")
"""Control characters and noncharacters (CloudEvents 1.0.2, Type System)."""
_SEQUENCE = re.compile(r"-?[0-9]{1,32}", re.ASCII)
_INT32, _INT64 = 2**31, 2**63
_TRACEPARENT, _TRACEPARENT_BYTES = b',"traceparent":"', len("00-") + 32 + len("-") + 16 + len("-01")
_MICROSECOND = timedelta(microseconds=1)
_UTC_SECONDS, _UTC_MICROSECONDS = len("2026-01-04T20:00:00Z"), len("2026-01-04T20:00:00.000000Z")
_ASSUMED_TIME = "timeassumed"
_IMPORT_RUN = "importrun"
_LEDGER_ATTRIBUTES = ("recordedtime", "position", "corrects", "via", _IMPORT_RUN, _ASSUMED_TIME)
_TEXT_ATTRIBUTES = ("specversion", "id", "source", "type", "time")
_KNOWN = frozenset((*_TEXT_ATTRIBUTES, "data"))
_NOT_EMPTY = ("subject", "datacontenttype", "dataschema", "sequence", "sequencetype")
_decoder = msgspec.json.Decoder()
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_canonical_encoder = msgspec.json.Encoder(order="sorted")


class Envelope(NamedTuple):
    """A validated event: its attributes, its data as JSON text, the event as a JSON object, and its content hash.

    ``extras`` are the optional attributes, ``fields`` the names in its data. ``flaw`` is an error in the attributes
    that
    earlier versions accepted: an event that is already recorded remains a duplicate, a new event is rejected.
    """

    source: str
    id: str
    type: str
    time: datetime
    data: msgspec.Raw
    json: bytes
    content: bytes
    extras: frozenset[str] = frozenset()
    fields: Collection[str] = ()
    flaw: EventError | None = None
    assumed: bool = False
    """True if the sender gave no time and the inbox's time is used."""
    rounded: bool = False
    """True if a number may have more digits than the hash distinguishes, so that equal hashes prove nothing."""


class StoredFields(msgspec.Struct):
    """The fields of a stored event that readers need; the rest remains in the bytes."""

    source: str
    id: str
    type: str
    time: str
    recordedtime: str
    data: msgspec.Raw
    corrects: int | None = None
    """In a `fact.corrected`: the position of the corrected fact."""
    via: str | None = None
    """`cli` where the ledger's own commands sent the fact."""
    sequence: msgspec.Raw = msgspec.Raw()
    """The source's own order of its events, as JSON; see ``sequence_of``."""


stored_decoder = msgspec.json.Decoder(StoredFields)


def parse_time(text: str) -> datetime:
    """Return the instant of an RFC 3339 time with a zone, rounded to microseconds.

    A leap second (``23:59:60Z`` at the end of a month) becomes the last microsecond of its day.

    Raises:
        ValueError: the text is not such a time, or lies outside the years 1 to 9999 in UTC.
    """
    matched = RFC3339.fullmatch(text)
    if matched is None:
        raise ValueError(f"not an RFC 3339 time with its zone: {text[:40]!r}")
    leap = matched[2] == "60"
    try:
        found = msgspec.convert((f"{matched[1]}59.999999{matched[4]}" if leap else text).upper(), datetime)
        moment = found.astimezone(UTC)
        next_moment = moment + _MICROSECOND if leap else moment
    except OverflowError:
        raise ValueError(f"outside the years 1 to 9999 in UTC: {text[:40]!r}") from None
    if leap and next_moment != next_moment.replace(day=1, hour=0, minute=0):
        raise ValueError(f"a leap second ends a month in UTC: {text[:40]!r}")
    return moment


def utc_text(text: str) -> str:
    """Return a stored event's time in UTC, e.g. ``2026-01-04T20:00:00.000000Z`` for ``2026-01-05T10:00:00+14:00``.

    All results have six digits after the second, so that they sort as texts in the order of their instants.

    Raises:
        ValueError: the text is not an RFC 3339 time.
    """
    utc = f"{text[:-6]}Z" if text[-6:] == "+00:00" else text
    if utc[-1:] == "Z" and utc[10:11] == "T" and utc[17:19] != "60":
        if len(utc) == _UTC_SECONDS:
            return f"{utc[:-1]}.000000Z"
        if utc[19:20] == "." and len(utc) <= _UTC_MICROSECONDS:
            return f"{utc[:-1]:0<26}Z"
    return time_text(parse_time(text))


def sequence_of(stored: StoredFields) -> int | None:
    """Return the CloudEvents ``sequence`` of a stored event, or ``None`` without an integer of 64 bits."""
    if not stored.sequence:
        return None
    text = bytes(stored.sequence).strip(b'"').decode()
    if _SEQUENCE.fullmatch(text) is None or not -_INT64 <= (number := int(text)) < _INT64:
        return None
    return number


@lru_cache(maxsize=1024)
def time_text(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC with microseconds, e.g. ``2026-11-21T10:00:00.000000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def parse_event(data: bytes, headers: Headers = (), received: Callable[[], datetime] | None = None) -> Envelope:
    """Validate and normalise one event in structured or binary mode.

    ``received`` returns the event's time if the sender gave none.

    Raises:
        EventError: with the code and the field of the first error.
    """
    match mode_of(data, headers):
        case Mode.BATCH:
            events_of_batch(data)  # an error of the batch itself is reported first
            raise EventError("invalid", "one CloudEvent, a JSON object, is expected here, not a batch")
        case Mode.BINARY:
            raw, text, apart = binary_event(data, headers), b"", True
        case Mode.STRUCTURED:
            raw, apart = structured_event(data)
            text = data
    for name in REQUIRED:
        if name not in raw:
            raise EventError("missing", f"`{name}` is required", name)
    extras = frozenset(raw) - _KNOWN
    _check_names(extras)
    if assumed := "time" not in raw:
        if received is None:
            raise EventError("missing", "`time` is required where no inbox takes the event", "time")
        raw |= {"time": _raw(time_text(received())), _ASSUMED_TIME: msgspec.Raw(b"true")}
    event, encoded, moment = _normalised(raw)
    as_sent = _canonical_encoder.encode(event_as_sent(event) if assumed else event)
    flaw = _attribute_error(event, extras) or _repeated_key_error(text, raw["data"] if apart else None, event, as_sent)
    return Envelope(
        event["source"],
        event["id"],
        event["type"],
        moment,
        raw["data"],
        encoded,
        hash_of(as_sent),
        extras,
        event["data"].keys() if isinstance(event["data"], dict) else (),
        flaw,
        assumed,
        has_long_number(encoded),
    )


def _normalised(raw: dict[str, msgspec.Raw]) -> tuple[dict[str, Any], bytes, datetime]:
    """Return an event with its JSON and its time, after the checks that are common to all events."""
    try:
        encoded = _encoder.encode(raw)
        event = _decoder.decode(encoded)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventError("not_json", f"not JSON: {error}", "data") from None
    for name in _TEXT_ATTRIBUTES:
        if not isinstance(event[name], str):
            raise EventError("invalid", f"`{name}` must be a string", name)
    if event["specversion"] != "1.0":
        raise EventError("invalid", 'specversion must be "1.0"', "specversion")
    try:
        moment = parse_time(event["time"])
    except ValueError as error:
        rule = f'time must be RFC 3339 with its zone, such as "2026-11-21T10:00:00Z": {error}'
        raise EventError("invalid", rule, "time") from None
    if ":60" in event["time"]:  # most time parsers reject leap seconds
        event["time"] = time_text(moment)
        raw["time"] = _raw(event["time"])
        encoded = _encoder.encode(raw)
    return event, encoded, moment


def _check_names(extras: Iterable[str]) -> None:
    for name in extras:
        if name in _LEDGER_ATTRIBUTES:
            raise EventError("reserved_attribute", f"`{name}` is set by the ledger; leave it out", name)
        if not _ATTRIBUTE_NAME.fullmatch(name):
            rule = "attribute names are lower-case letters and digits (CloudEvents 1.0)"
            raise EventError("invalid", rule, name[:40])


def _attribute_error(event: Mapping[str, Any], extras: frozenset[str]) -> EventError | None:
    """Return the first violation of the type system of CloudEvents, or of an attribute's own rule."""
    if not extras and event["id"].isascii() and event["source"].isascii():
        return None
    texts = [name for name in ("id", "source") if not event[name].isascii()]
    for name in (*texts, *sorted(extras)):
        value = event[name]
        rule = ""
        if name == "sequence" and (type(value) is int or event.get("sequencetype") == "Integer"):
            rule = "" if _is_integer(value) else "an integer of 64 bits, as a string"
        elif isinstance(value, str):
            if _DISALLOWED.search(value) is not None:
                rule = "a string without control characters and noncharacters"
            elif not value and name in _NOT_EMPTY:
                rule = "a string that is not empty"
        elif name in _NOT_EMPTY:
            rule = "a string"
        elif type(value) is not bool and not (type(value) is int and -_INT32 <= value < _INT32):
            rule = "a string, an integer of 32 bits, true or false"
        if rule:
            return EventError("invalid", f"`{name}` must be {rule}", name)
    return None


def _repeated_key_error(
    text: bytes, data: msgspec.Raw | None, event: Mapping[str, Json], as_sent: bytes
) -> EventError | None:
    """Return an error if a JSON object repeats a key, since two readers could take two different values.

    ``text`` is the event in structured mode, else empty. ``data`` is its data if it is not a part of ``text``.
    ``as_sent`` is the event encoded again.
    """
    if data is None:
        path = repeated_key(text, as_sent)
    else:
        path = repeated_key(text, b"") if text else None
        if path is None and (path_in_data := repeated_key(bytes(data), _encoder.encode(event["data"]))) is not None:
            path = f"data.{path_in_data}"
    if path is None:
        return None
    return EventError("duplicate_field", f"{path or 'a field'} occurs twice; send it once", path)


def _is_integer(value: object) -> bool:
    """Return whether a `sequence` is an integer of 64 bits; the extension's 32 bits are too few for a long history."""
    if isinstance(value, str) and _SEQUENCE.fullmatch(value) is not None:
        value = int(value)
    return type(value) is int and -_INT64 <= value < _INT64


def encode_event(
    source: str, identifier: str, type_name: str, time: datetime, data: bytes, sequence: int | None = None
) -> bytes:
    """Return an event as a JSON object, without ``recordedtime``, which the log adds.

    ``sequence`` is its place in the order of its source.
    """
    if sequence is not None:
        data = b'%b,"sequence":"%d"' % (data, sequence)
    encoded = (_encoder.encode(identifier), _json_text(source), _json_text(type_name), _json_text(time_text(time)))
    return b'{"specversion":"1.0","id":%b,"source":%b,"type":%b,"time":%b,"data":%b}' % (*encoded, data)


def with_corrects(event: bytes, position: int) -> bytes:
    """Return a correction with the position that it corrects."""
    return b'%b,"corrects":%d}' % (event[:-1], position)


def with_via(event: bytes, via: str, run: str = "") -> bytes:
    """Return a fact that the ledger's own commands (``via`` `cli`) or page (`http`) published, with these attributes.

    ``run`` is the id of the import that published it, or empty.
    """
    import_run = b',"%b":"%b"' % (_IMPORT_RUN.encode(), run.encode()) if run else b""
    return b'%b,"via":"%b"%b}' % (event[:-1], via.encode(), import_run)


def with_traceparent(event: bytes, traceparent: bytes) -> bytes:
    """Return an event of the ledger with the trace that caused it (CloudEvents' extension for distributed tracing)."""
    return b'%b%b%b"}' % (event[:-1], _TRACEPARENT, traceparent)


def without_traceparent(event: bytes) -> bytes:
    """Return an event of the ledger, without a recorded time, as it is without a trace."""
    at = -len(_TRACEPARENT) - _TRACEPARENT_BYTES - 2
    return event[:at] + b"}" if event[at:].startswith(_TRACEPARENT) else event


def is_of_run(event: bytes, run: str) -> bool:
    """Return whether the import with this id published a stored fact."""
    return b'"%b":"%b"' % (_IMPORT_RUN.encode(), run.encode()) in event and json_member(event, _IMPORT_RUN) == run


def json_member(event: bytes, name: str) -> object:
    """Return a member of a JSON object, or ``None``."""
    members: JsonObject = _decoder.decode(event)
    return members.get(name)


def hash_of(text: bytes) -> bytes:
    """Return the hash of an event's canonical JSON (16 bytes)."""
    return hashlib.sha256(text).digest()[:16]


def event_as_sent(event: JsonObject) -> JsonObject:
    """Return an event without the attributes that the ledger added, including an assumed time."""
    if event.keys().isdisjoint(_LEDGER_ATTRIBUTES):
        return event
    without = (*_LEDGER_ATTRIBUTES, "time") if _ASSUMED_TIME in event else _LEDGER_ATTRIBUTES
    return {name: value for name, value in event.items() if name not in without}


def body_hash(body: bytes) -> bytes:
    """Return SHA-256 over JSON text with sorted keys and without white space (32 bytes)."""
    return hashlib.sha256(_canonical_encoder.encode(_decoder.decode(body))).digest()


def event_key(source: str, identifier: str) -> bytes:
    """Return the key of a source and an event id in an index (16 bytes)."""
    text = f"{len(source)}:{source}:{identifier}".encode()
    return hashlib.blake2b(text, digest_size=16).digest()


@lru_cache(maxsize=4096)
def _json_text(value: str) -> bytes:
    """Return a string as JSON."""
    return _encoder.encode(value)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(value))
