"""Stored bytes to typed events: the one codec, which knows facts and records alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from domain.events.decisions import RECORDS
from domain.events.facts import FACTS
from domain.serialization import FieldError, decode
from ledger.store.cloudevents import Stored, parse_time, stored_decoder, utc_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ledger.store.log import Recorded

TYPES: dict[str, type[Any]] = {**FACTS, **RECORDS}


def types_of(*classes: type[Any]) -> dict[str, type[Any]]:
    """The types whose events are of these classes, or of classes below them."""
    return {name: cls for name, cls in TYPES.items() if issubclass(cls, classes)}


class Event:
    """An event of the log, decoded: ``body`` is of one of the classes asked for."""

    __slots__ = ("body", "correction", "position", "stored", "subject")

    def __init__(self, position: int, stored: Stored, body: Any, subject: str = "") -> None:
        self.position = position
        self.subject = subject
        self.stored = stored
        self.body = body
        self.correction: Any = (
            None  # of a `fact.corrected`: what it changes (projections.engine.corrections.Correction)
        )

    @property
    def type(self) -> str:
        """The stored type name."""
        return self.stored.type

    @property
    def time(self) -> datetime:
        """When it happened."""
        return parse_time(self.stored.time)

    @property
    def recorded(self) -> datetime:
        """When the ledger recorded it."""
        return parse_time(self.stored.recordedtime)


class UnknownEventError(Exception):
    """An event that this version cannot read: its position, its type, and why."""

    def __init__(self, position: int, type_name: str, reason: str) -> None:
        super().__init__(f"position {position}, {type_name or 'no type'}: {reason}")
        self.position = position
        self.type = type_name
        self.reason = reason


def type_in(data: bytes) -> bytes:
    """The type of a stored event, without decoding it; empty where it is not written as we write it."""
    start = data.find(_TYPE)  # what else says so lies in a text, its quotes escaped, or behind it, in the data
    return data[start + len(_TYPE) : data.find(b'"', start + len(_TYPE))] if start >= 0 else b""


_TYPE = b'"type":"'


def read_event(recorded: Recorded, types: Mapping[str, type[Any]] = TYPES) -> Event:
    """The typed event in what the log holds.

    A reader in a hurry passes ``types`` with smaller classes of the fields it needs.

    Raises:
        UnknownEventError: its type, or its form, is not known to this version.

    """
    name = ""
    try:
        stored = stored_decoder.decode(recorded.data)
        name = stored.type
        cls = types.get(name)
        if cls is None:
            raise UnknownEventError(recorded.position, name, "a type this version does not know")
        stored.time = utc_text(stored.time)  # views keep and compare texts: one instant has one zone
        return Event(recorded.position, stored, decode(cls, stored.data), recorded.subject)
    except (msgspec.MsgspecError, FieldError, ValueError) as error:
        raise UnknownEventError(recorded.position, name, str(error)) from error
