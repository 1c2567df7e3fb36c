"""Check documents from outside, as JSON text or parsed: bounds that hold before anything reads their meaning.

A strictly read document means the same to every reader: no name occurs twice in an object, no number is out of range,
and all text is valid Unicode.
"""

from __future__ import annotations

import json
from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.serialization import Json, JsonObject

DEPTH, VALUES = 64, 100_000
"""The most levels and the most values of a document."""
SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""Whole numbers within these bounds are exact in every format that the ledger writes."""
_DIGITS = 40
_SHOWN = 40

type Path = tuple[str | int, ...]


class DocumentError(ValueError):
    """An error about a document out of bounds; ``path`` leads to the first such value, ``code`` is stable."""

    def __init__(self, path: Path, message: str, code: str = "not_json") -> None:
        super().__init__(f"{'.'.join(map(str, path))}: {message}" if path else message)
        self.path, self.message, self.code = path, message, code

    @property
    def field(self) -> str:
        """The path as text, e.g. ``roles.agent.budget``."""
        return ".".join(str(part) for part in self.path)


def read_json(data: bytes) -> Json:
    """Return the document of a JSON text (RFC 8259), read strictly.

    Raises:
        DocumentError: the text is not JSON, ambiguous, or out of bounds.

    """
    try:
        document = json.loads(
            data.decode(), object_pairs_hook=_object, parse_constant=_constant, parse_int=_whole, parse_float=_fraction
        )
    except RecursionError:
        raise DocumentError((), f"is nested deeper than {DEPTH} levels") from None
    except UnicodeDecodeError as error:
        raise DocumentError((), f"is not UTF-8 text: byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        message = f"is not JSON: {error.msg}, line {error.lineno}, column {error.colno}"
        raise DocumentError((), message) from None
    check_document(document)
    return document


def check_document(document: object) -> None:
    """Reject a parsed document that is out of bounds; works without recursion.

    Raises:
        DocumentError: too many levels or values, a number out of range, or text that is not valid Unicode.

    """
    waiting: list[tuple[Path, object]] = [((), document)]
    values = 0
    while waiting:
        path, value = waiting.pop()
        values += 1
        if values > VALUES:
            raise DocumentError((), f"has more than {VALUES} values")
        if len(path) > DEPTH:
            raise DocumentError(path[:3], f"is nested deeper than {DEPTH} levels")
        if (wrong := _wrong(value)) is not None:
            raise DocumentError(path, wrong)
        waiting += _inside(path, value)


def _inside(path: Path, value: object) -> Iterator[tuple[Path, object]]:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise DocumentError(path, f"the name {name!r:.{_SHOWN}} is not text: write it in quotes")
            if (wrong := _wrong(name)) is not None:
                raise DocumentError(path, f"the name {ascii(name)[:_SHOWN]} {wrong}")
            yield (*path, name), item
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield (*path, number), item


def _wrong(value: object) -> str | None:
    match value:
        case str() if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return "is not Unicode text: it holds half a surrogate pair"
        case int() if not SMALLEST <= value <= LARGEST:
            return "is a number out of range"
        case float() if not isfinite(value):
            return "is not a finite number"
    return None


def _object(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, number in counts.items() if number > 1)
        raise DocumentError((ascii(twice)[1:-1][:_SHOWN],), "occurs twice in one object", "duplicate_field")
    return found


def _constant(name: str) -> NoReturn:
    raise DocumentError((), f"is not JSON: {name} is not a number")


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise DocumentError((), f"holds a number of {len(text)} digits")
    return int(text)


def _fraction(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise DocumentError((), f"holds a number out of range: {text[:_SHOWN]}")
    return number
