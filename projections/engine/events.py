"""Decode stored bytes into typed events: one codec for facts and the ledger's own events."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from domain.events.decisions import RECORDS
from domain.events.facts import FACTS
from domain.serialization import FieldError, decode
from ledger.store.cloudevents import StoredFields, parse_time, stored_decoder, utc_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ledger.store.log import Recorded


class Upcast(NamedTuple):
    """The class of a type's newer version, and the function that makes its body from one of the earlier version."""

    newer: type[msgspec.Struct]
    change: Callable[[Any], msgspec.Struct]


TYPES: dict[str, type[msgspec.Struct]] = {**FACTS, **RECORDS}


UPCASTS: dict[type[msgspec.Struct], Upcast] = {}
"""Class of a type's earlier version -> its upcast. ``TYPES`` has the names of both versions."""


def types_of(*classes: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Return the stored types of these classes and their subclasses, and the earlier versions of these types."""

    def newest(cls: type[msgspec.Struct]) -> type[msgspec.Struct]:
        return UPCASTS[cls].newer if cls in UPCASTS else cls

    return {name: cls for name, cls in TYPES.items() if issubclass(newest(cls), classes)}


class Event:
    """A decoded event of the log; ``body`` is an instance of one of the requested classes."""

    __slots__ = ("body", "correction", "position", "stored", "subject")

    def __init__(self, position: int, stored: StoredFields, body: msgspec.Struct, subject: str = "") -> None:
        self.position = position
        self.subject = subject
        self.stored = stored
        self.body = body
        self.correction: Correction | None = None  # set for a `fact.corrected`

    @property
    def type(self) -> str:
        """The stored type name."""
        return self.stored.type

    @property
    def time(self) -> datetime:
        """The event time."""
        return parse_time(self.stored.time)

    @property
    def recorded(self) -> datetime:
        """The recorded time."""
        return parse_time(self.stored.recordedtime)


class Correction(NamedTuple):
    """A correction of a fact: as it was known before, and as it is known now (``None``: it never happened)."""

    position: int
    before: Event | None
    after: Event | None
    reason: str


class UnknownEventError(Exception):
    """An event that this version cannot read: its position, its type and the reason."""

    def __init__(self, position: int, type_name: str, reason: str) -> None:
        super().__init__(f"position {position}, {type_name or 'no type'}: {reason}")
        self.position = position
        self.type = type_name
        self.reason = reason


def type_in(data: bytes) -> bytes:
    """Return the type of a stored event without decoding it; empty if it is not found in the ledger's own form."""
    start = data.find(
        _TYPE
    )  # other matches cannot come first: within a text quotes are escaped, and the data follows the type
    return data[start + len(_TYPE) : data.find(b'"', start + len(_TYPE))] if start >= 0 else b""


_TYPE = b'"type":"'


def read_event(recorded: Recorded, types: Mapping[str, type[msgspec.Struct]] = TYPES) -> Event:
    """Return the typed event of a stored message.

    A reader on a hot path passes ``types`` with smaller classes that hold only the fields it needs. The body of an
    earlier version is that of the newest version; ``stored`` is as it was stored.

    Raises:
        UnknownEventError: this version does not know the event's type or form.

    """
    name = ""
    try:
        stored = stored_decoder.decode(recorded.data)
        name = stored.type
        cls = types.get(name)
        if cls is None:
            raise UnknownEventError(recorded.position, name, "a type this version does not know")
        stored.time = utc_text(stored.time)  # views store and compare times as texts, so all have one form
        body, upcast = decode(cls, stored.data), UPCASTS.get(cls)
        return Event(recorded.position, stored, body if upcast is None else upcast.change(body), recorded.subject)
    except (msgspec.MsgspecError, FieldError, ValueError) as error:
        raise UnknownEventError(recorded.position, name, str(error)) from error
