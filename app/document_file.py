"""Policies and column mappings in YAML or JSON files; each fault has its line and column.

YAML follows the JSON schema of YAML 1.2. Keys are always text, and so are `NO`, `yes`, `on`, `007` and `2026-01-01`.
`1.50` is a number. `true`, `false` and `null` are as in JSON. Anchors, aliases and merge keys (`<<`) are resolved; a
value counts again at each alias.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import yaml
from yaml import events
from yaml.reader import Reader

from domain.serialization import Json, JsonObject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

type FieldPath = tuple[str | int, ...]

MOST_BYTES, MOST_VALUES, MOST_LEVELS = 262_144, 20_000, 50
"""Limits of a file: bytes, values (again at each alias), and levels."""
_DIGITS = 18
_SHOWN = 40
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_FRACTION = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")
_MERGE = "<<"


class DocumentFileError(ValueError):
    """A file that cannot be read: the message has the remedy, ``line`` and ``column`` (from 1) the place."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.message, self.line, self.column = message, line, column


class DocumentFile(NamedTuple):
    """A document, and the (line, column) of each of its values by path."""

    document: Json
    places: dict[FieldPath, tuple[int, int]]

    def place(self, path: FieldPath) -> tuple[int, int]:
        """Return the (line, column) of the deepest existing part of a path."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))


def read_document_file(path: Path) -> DocumentFile:
    """Return the document in a file.

    Raises:
        DocumentFileError: the file is not YAML, or exceeds a limit.
        OSError: the file cannot be read.

    """
    with path.open("rb") as file:
        return read_document(file.read(MOST_BYTES + 1))


def read_document(data: bytes) -> DocumentFile:
    """Return the document in a YAML or JSON text.

    Raises:
        DocumentFileError: the text is not YAML, or exceeds a limit.

    """
    text = _text(data)
    try:
        return _Composer(text).file()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise DocumentFileError(f"not YAML: {problem}", line, column) from None


def _text(data: bytes) -> str:
    if len(data) > MOST_BYTES:
        raise DocumentFileError(f"the file has more than {MOST_BYTES} bytes")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DocumentFileError("the file is in UTF-16: save it as UTF-8")
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line, column = _place_in(data[: error.start].decode(errors="replace"))
        raise DocumentFileError(f"not UTF-8 text: byte {data[error.start]:#04x}", line, column) from None
    if (odd := Reader.NON_PRINTABLE.search(text)) is not None:
        line, column = _place_in(text[: odd.start()])
        raise DocumentFileError(f"the character U+{ord(odd[0]):04X} is not allowed in YAML: remove it", line, column)
    return text


def _place_in(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


class _Built(NamedTuple):
    """A value, and the number of values in it."""

    value: Json
    size: int


class _Composer:
    """Builds a document from the parser's events one by one, so that a fault ends the reading early."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[events.Event] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, _Built | None] = {}
        self._places: dict[FieldPath, tuple[int, int]] = {}
        self._values = 0

    def file(self) -> DocumentFile:
        """Return the one document."""
        next(self._events)  # start of the stream
        first = next(self._events)
        if isinstance(first, events.StreamEndEvent):
            return DocumentFile(None, {})
        document = self._value(next(self._events), ()).value
        next(self._events)  # end of the document
        if not isinstance(after := next(self._events), events.StreamEndEvent):
            raise _fault(after, "a second document begins here: give one document to a file")
        return DocumentFile(document, self._places)

    def _value(self, event: events.Event, path: FieldPath) -> _Built:
        self._places.setdefault(path, _place(event))
        if len(path) > MOST_LEVELS:
            raise _fault(event, f"nested deeper than {MOST_LEVELS} levels")
        if isinstance(event, events.AliasEvent):
            return self._alias(event)
        assert isinstance(event, events.NodeEvent)
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        built = self._counted(event, self._new(event, path))
        if anchor is not None:
            self._anchors[anchor] = built
        return built

    def _new(self, event: events.NodeEvent, path: FieldPath) -> _Built:
        if isinstance(event, events.ScalarEvent):
            self._values += 1
            return _Built(_scalar(event), 1)
        self._values += 1
        _check_tag(event)
        if isinstance(event, events.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _alias(self, event: events.AliasEvent) -> _Built:
        built = self._anchors.get(event.anchor or "", _ABSENT)
        if built is _ABSENT:
            raise _fault(event, f"there is no anchor &{event.anchor} before this alias")
        if built is None:
            raise _fault(event, f"the alias *{event.anchor} is inside its own anchor")
        self._values += built.size
        return self._counted(event, built)

    def _counted(self, event: events.Event, built: _Built) -> _Built:
        if self._values > MOST_VALUES:
            raise _fault(event, f"more than {MOST_VALUES} values, with aliases counted each time")
        return built

    def _sequence(self, path: FieldPath) -> _Built:
        items: list[Json] = []
        size = 1
        while not isinstance(event := next(self._events), events.SequenceEndEvent):
            built = self._value(event, (*path, len(items)))
            items.append(built.value)
            size += built.size
        return _Built(items, size)

    def _mapping(self, path: FieldPath) -> _Built:
        found: JsonObject = {}
        merged: JsonObject = {}
        size = 1
        while not isinstance(event := next(self._events), events.MappingEndEvent):
            key = _key(event)
            is_merge = key == _MERGE and isinstance(event, events.ScalarEvent) and event.implicit[0]
            if key in found or (is_merge and merged):
                raise _fault(event, f"the key {key[:_SHOWN]!r} occurs twice in one mapping")
            self._places[*path, key] = _place(event)
            built = self._value(next(self._events), (*path, key))
            size += built.size
            if is_merge:
                merged = _merged(event, built.value)
            else:
                found[key] = built.value
        return _Built(merged | found if merged else found, size)


_ABSENT = _Built(None, -1)


def _merged(event: events.Event, value: Json) -> JsonObject:
    """Return the values that a merge key adds; of several mappings, the first wins."""
    merged: JsonObject = {}
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict):
            raise _fault(event, "`<<` takes a mapping or a list of mappings")
        merged = one | merged
    return merged


def _key(event: events.Event) -> str:
    """Return a key as text."""
    if not isinstance(event, events.ScalarEvent):
        raise _fault(event, "a key is text: write it in quotes")
    _check_tag(event)
    return event.value


def _check_tag(event: events.NodeEvent) -> None:
    tag = getattr(event, "tag", None)
    if tag not in _TEXT_TAGS:
        raise _fault(event, f"the tag {tag[:_SHOWN]} is not supported: remove it")


def _scalar(event: events.ScalarEvent) -> Json:
    _check_tag(event)
    text = event.value
    if not event.implicit[0] or event.tag is not None:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    whole = _WHOLE.fullmatch(text)
    if whole is None and _FRACTION.fullmatch(text) is None:
        return text
    if sum(letter.isdigit() for letter in text) > _DIGITS:
        raise _fault(event, f"a number has at most {_DIGITS} digits: write it in quotes, if it is text")
    number = int(text) if whole is not None else float(text)
    if not isfinite(number):
        raise _fault(event, f"the number {text} is out of range")
    return number


def _place(event: events.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _fault(event: events.Event, message: str) -> DocumentFileError:
    return DocumentFileError(message, *_place(event))
