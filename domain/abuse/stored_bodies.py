"""The stored form of values that msgspec does not know, for a state file.

The body of an event is kept as its class and its JSON. A body may have a part that is JSON already (the command of a
decision), which no other format can hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.events.decisions import RECORDS
from domain.events.facts import FACTS
from domain.money import Money
from domain.serialization import decode, encode

if TYPE_CHECKING:
    import msgspec

_CLASSES = {cls.__name__: cls for cls in (*FACTS.values(), *RECORDS.values())}


class StoredBody:
    """The body of an event, which a state file keeps as its class and its JSON."""

    __slots__ = ("body",)

    def __init__(self, body: msgspec.Struct) -> None:
        self.body = body


def to_stored(value: object) -> object:
    """Return the stored form of a value that msgspec does not know, for a state file."""
    if isinstance(value, Money):
        return value.minor, value.currency
    if isinstance(value, StoredBody):
        return type(value.body).__name__, encode(value.body)
    message = f"no stored form for {type(value)}"
    raise NotImplementedError(message)  # msgspec requires this error for an unsupported type


def from_stored(wanted: type, value: Any) -> object:
    """Return a value from its stored form."""
    if wanted is Money:
        return Money(*value)
    if wanted is StoredBody:
        name, data = value
        return StoredBody(decode(_CLASSES[name], data))
    message = f"no stored form for {wanted}"
    raise NotImplementedError(message)  # msgspec requires this error for an unsupported type
