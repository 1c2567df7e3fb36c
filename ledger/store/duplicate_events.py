"""Duplicates: the rules by which two events with one source and id are the same event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ledger.store.cloudevents import RFC3339, event_as_sent, hash_of, parse_time
from ledger.store.content_modes import is_json
from ledger.store.json_text import exact_value

if TYPE_CHECKING:
    from ledger.store.json_text import Json

_NOT_COMPARED = ("sequence", "sequencetype", "traceparent", "tracestate")
_decoder = msgspec.json.Decoder()
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_canonical_encoder = msgspec.json.Encoder(order="sorted")


def content_hash(event: bytes) -> bytes:
    """Return the hash of an event's content (16 bytes), independent of key order and white space.

    Attributes that the ledger adds are left out, so that a stored event has the hash of the event as sent.
    """
    return hash_of(_canonical_encoder.encode(event_as_sent(_decoder.decode(event))))


def same_event(first: bytes, second: bytes) -> bool:
    """Return whether two JSON events are the same event by the rules of CloudEvents, in any content mode.

    Attributes are compared in their canonical string encoding (``7`` equals ``"7"``), null equals absent, and times are
    compared as instants. A ``datacontenttype`` that says JSON equals none. Numbers are compared by their mathematical
    value (``1.0`` equals ``1``). The place in the source's order (``sequence``) is no part of the event, since a newer
    export of the same rows may number them anew. Nor is its trace, since a retry may belong to another one. Equal
    content hashes imply this, except if a number was rounded (``Envelope.rounded``).
    """
    return canonical_form(first) == canonical_form(second)


def canonical_form(event: bytes) -> bytes:
    """Return the normal form that ``same_event`` compares."""
    members = event_as_sent(_decoder.decode(event))
    data = members.pop("data", None)
    for name in _NOT_COMPARED:
        members.pop(name, None)
    if data is not None:
        data = exact_value(bytes(_raw_decoder.decode(event)["data"]))
    texts = {name: _string_encoding(value) for name, value in members.items() if value is not None}
    if "time" in texts:
        texts["time"] = _exact_time(texts["time"])
    if is_json(texts.get("datacontenttype", "")):
        del texts["datacontenttype"]
    return _canonical_encoder.encode([texts, data])


def _string_encoding(value: Json) -> str:
    return value if isinstance(value, str) else _encoder.encode(value).decode()


def _exact_time(time: str) -> str:
    """Return a time in UTC with all its digits."""
    try:
        matched = RFC3339.fullmatch(time)
        assert matched is not None
        second = parse_time(f"{matched[1]}{matched[2]}{matched[4]}")
    except (AssertionError, ValueError):
        return time
    return f"{second:%Y-%m-%dT%H:%M:%S}.{(matched[3] or '').rstrip('0')}"
