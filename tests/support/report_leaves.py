"""Figures of a report's document, each of which can be changed on its own: no figure is without an oracle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.support.documents import Document

type Place = tuple[str | int, ...]


def figures_of(document: Document) -> dict[str, Place]:
    """Return a place of each figure, by its name with the numbers of list items left out: ``by_team.*.reopened.k``."""
    found: dict[str, Place] = {}
    for place in _places(document, ()):
        found.setdefault(".".join("*" if isinstance(part, int) else part for part in place), place)
    return found


def _places(value: Any, at: Place) -> Iterator[Place]:
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    if not items and not isinstance(value, dict | list | tuple):
        yield at
    for name, inner in items:
        yield from _places(inner, (*at, name))


def changed(document: Document, place: Place) -> Document:
    """Return the document with another value at a place; both share what is elsewhere."""
    found: Document = _changed(document, place)
    return found


def _changed(value: Any, place: Place) -> Any:
    if not place:
        return _other(value)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = _changed(copy[place[0]], place[1:])
    return copy


def _other(value: Any) -> Any:
    """Return another value of the same kind; an amount stays an amount."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if value is None:
        return 1
    try:
        return f"{float(value) + 7:.2f}"
    except ValueError:
        return "EUR" if value == "GBP" else "GBP" if value == "EUR" else f"{value} (changed)"
