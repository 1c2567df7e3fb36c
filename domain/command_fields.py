"""Check the fields of requests, and name the nearest known field for a misspelt one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, get_args, get_type_hints

import msgspec

from domain.commands import RequestError
from domain.money import Money, shown
from domain.suggestions import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LEDGERS_OWN = frozenset(("note_hash",))
"""Fields of requests that the ledger itself adds before it decides."""
_MONEY = frozenset(("amount", "currency"))
_SHOWN = 200
"""Characters of a path that an error shows."""


@lru_cache(maxsize=64)
def known_fields(cls: type[msgspec.Struct]) -> frozenset[str]:
    """Return the fields that a sender may write in requests of this class."""
    return frozenset(cls.__struct_fields__) - LEDGERS_OWN


@lru_cache(maxsize=64)
def _inner_fields(cls: type[msgspec.Struct]) -> tuple[tuple[str, type[msgspec.Struct] | None], ...]:
    """Return the fields that hold an object, each with its class; ``None`` for an amount."""
    found: list[tuple[str, type[msgspec.Struct] | None]] = []
    for name, hint in get_type_hints(cls).items():
        for one in (hint, *get_args(hint)):
            if one is Money:
                found.append((name, None))
            elif isinstance(one, type) and issubclass(one, msgspec.Struct):
                found.append((name, one))
    return tuple(found)


def check_fields(
    value: Mapping[str, object], cls: type[msgspec.Struct], own: frozenset[str] = frozenset(), at: str = ""
) -> None:
    """Reject a request with an unknown field at any level; ``own`` are fields that the ledger adds.

    ``at`` is the path before the request, ending in a point.

    Raises:
        RequestError: `unknown_field`, with its path and the nearest known field.

    """
    known = known_fields(cls) | own if own else known_fields(cls)
    if not known.issuperset(value):
        check_names(value, known, at)
    for name, inner_class in _inner_fields(cls):
        inner = value.get(name)
        if not isinstance(inner, dict):
            continue
        if inner_class is not None:
            check_fields(inner, inner_class, at=f"{at}{name}.")
        elif not _MONEY.issuperset(inner):
            check_names(inner, _MONEY, f"{at}{name}.")


def check_names(value: Mapping[str, object], known: frozenset[str], at: str = "") -> None:
    """Reject a mapping with an unknown key; ``at`` is the path before it, ending in a point.

    Raises:
        RequestError: `unknown_field`.

    """
    if known.issuperset(value):
        return
    for name in value:
        if name not in known:
            raise RequestError("unknown_field", unknown_message(name, known), f"{at}{name}"[:_SHOWN])


def unknown_message(name: str, known: Collection[str]) -> str:
    """Return the error message for an unknown field."""
    near = nearest(name, known)
    hint = f"did you mean `{near}`?" if near else f"known are {', '.join(sorted(known))}"
    return f"there is no field {shown(name)} here; {hint}"
