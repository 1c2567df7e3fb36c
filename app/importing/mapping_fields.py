"""Readers for the parts of a column mapping's document; errors name the invalid part."""

from __future__ import annotations

import codecs
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import re2

from app.importing.mapping_parts import MappingError
from domain.money import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.importing.mapping_parts import Test

_PATTERNS_AT_MOST, _PATTERN_CHARACTERS, _NAME_CHARACTERS = 100, 1_000, 40
_PATTERNS = re2.Options()
_PATTERNS.log_errors, _PATTERNS.max_mem = False, 1 << 20
"""A pattern of this size takes some milliseconds to compile."""


class Pattern(Protocol):
    """A compiled regular expression."""

    @property
    def groups(self) -> int:
        """Return the number of groups."""

    def fullmatch(self, text: str) -> Any:
        """Return a match of the whole text, or none."""

    def search(self, text: str) -> Any:
        """Return the first match in the text, or none."""


class FieldReader:
    """Reads values of a document; ``used`` has the requested columns in order.

    Each method raises ``MappingError`` for another kind of value. ``at`` is the part's path, e.g. ``events[0].id``.
    """

    def __init__(self) -> None:
        self.used: dict[str, None] = {}
        self._patterns = 0

    def column(self, name: Any) -> str:
        """Return a column's name and mark it as used."""
        if not isinstance(name, str):
            raise MappingError(f"a column's name is needed, not {shown(name)}")
        self.used[name] = None
        return name

    @staticmethod
    def mapping(spec: Any, at: str) -> dict[str, Any]:
        """Return a mapping."""
        if not isinstance(spec, dict):
            raise MappingError(f"{at}: must be a mapping, not {shown(spec)}")
        return spec

    @staticmethod
    def items(spec: Any, at: str) -> list[Any]:
        """Return a list's items."""
        if not isinstance(spec, list):
            raise MappingError(f"{at}: must be a list, not {shown(spec)}")
        return spec

    @staticmethod
    def check_names(spec: Mapping[str, Any], names: Sequence[str], at: str) -> None:
        """Reject unknown names; ``at`` is empty for the document itself."""
        for name in spec:
            if name not in names:
                part = name if name.isprintable() and len(name) <= _NAME_CHARACTERS else shown(name)
                raise MappingError(f"{f'{at}.' if at else ''}{part}: unknown name; known are {', '.join(names)}")

    @staticmethod
    def text(spec: Any, at: str) -> str:
        """Return a text, or a whole number as text."""
        if isinstance(spec, bool) or not isinstance(spec, (str, int)):
            message = f"{at}: must be a text, in quotes where it looks like something else, not {shown(spec)}"
            raise MappingError(message)
        return str(spec)

    def pattern(self, text: Any, at: str) -> Pattern:
        """Return an RE2 pattern; its matching time is proportional to the text."""
        self._patterns += 1
        if self._patterns > _PATTERNS_AT_MOST:
            raise MappingError(f"{at}: a mapping has at most {_PATTERNS_AT_MOST} regular expressions")
        if not isinstance(text, str) or len(text) > _PATTERN_CHARACTERS:
            message = f"{at}: must be a regular expression of at most {_PATTERN_CHARACTERS} characters, in quotes"
            raise MappingError(message)
        try:
            found: Pattern = re2.compile(text, _PATTERNS)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
            message = f"{at}: is no regular expression of RE2 (no look-around, no back-references): {reason}"
            raise MappingError(message) from None
        return found

    @staticmethod
    def decimal(value: Any, at: str) -> Decimal:
        """Return a finite number."""
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite():
            raise MappingError(f"{at}: must be a number, not {shown(value)}")
        return number

    @staticmethod
    def truth(value: Any, at: str) -> bool:
        """Return true or false; ``yes`` and ``no`` are text."""
        if not isinstance(value, bool):
            raise MappingError(f"{at}: must be true or false, not {shown(value)}")
        return value

    @staticmethod
    def encoding(name: Any) -> str:
        """Return the name of a text encoding."""
        try:
            "a".encode(name)  # some codecs are no text encodings
            return codecs.lookup(name).name
        except (LookupError, TypeError, ValueError):
            message = f"encoding: must be a text encoding such as utf-8 or cp1252, not {shown(name)}"
            raise MappingError(message) from None

    @staticmethod
    def delimiter(spec: Any) -> str:
        """Return the character between two cells."""
        if not isinstance(spec, str) or len(spec) != 1 or spec in '\r\n"':
            raise MappingError(f'delimiter: must be one character such as ";" in quotes, not {shown(spec)}')
        return spec

    @staticmethod
    def time_zone(name: Any) -> ZoneInfo | None:
        """Return an IANA zone; None if there is none."""
        if name is None:
            return None
        try:
            return ZoneInfo(str(name))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise MappingError(f"time_zone: must be an IANA zone such as Europe/London, not {shown(name)}") from None

    @staticmethod
    def equality(spec: Any, at: str) -> Test:
        """Return a test of equality: fractions as numbers, booleans in any case, other values as text."""
        match spec:
            case bool():
                truth = str(spec).lower()
                return lambda value: str(value).strip().lower() == truth
            case float():
                number = Decimal(str(spec))
                return lambda value: _is_number(value, number)
            case str() | int():
                text = str(spec)
                return lambda value: value == text
        raise MappingError(f"{at}: compare with a text or a number, not {shown(spec)}")


def _is_number(value: Any, wanted: Decimal) -> bool:
    try:
        return Decimal(value) == wanted
    except (InvalidOperation, TypeError):
        return False
