"""What a column mapping is made of: rows in their groups, conditions on them, values from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

Row = Mapping[str, str]


class MappingError(ValueError):
    """A mapping that cannot be used; the message names the part."""


class ValueProblem(ValueError):
    """A row's value that cannot be read; it becomes a rejection of that row's event."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class Group(NamedTuple):
    """Rows that belong together, with the line of the first and the computed sums."""

    line: int
    rows: Sequence[Row]
    sums: Mapping[str, Decimal]


class RowContext(NamedTuple):
    """A row in its group: what conditions and values look at."""

    group: Group
    number: int

    @property
    def row(self) -> Row:
        """The row."""
        return self.group.rows[self.number]

    @property
    def previous(self) -> Row | None:
        """The row before it in its group."""
        return self.group.rows[self.number - 1] if self.number else None


Condition = Callable[[RowContext], bool]
Test = Callable[[Any], bool]
Value = Callable[[RowContext], Any]


def first(place: RowContext) -> bool:
    """The row is its group's first."""
    return place.number == 0


def not_first(place: RowContext) -> bool:
    """The row is not its group's first."""
    return place.number > 0


def constant(value: Any) -> Value:
    """Always this value."""
    return lambda _place: value


def on_column(column: str, test: Test) -> Condition:
    """A test of the row's column."""
    return lambda place: test(place.row[column])


def on_sum(name: str, test: Test) -> Condition:
    """A test of the group's sum."""
    return lambda place: test(place.group.sums[name])


def on_previous(tests: Sequence[tuple[str, Test]]) -> Condition:
    """Tests of the row before; false for a first row."""

    def check(place: RowContext) -> bool:
        row = place.previous
        return row is not None and all(test(row[column]) for column, test in tests)

    return check


def changed(columns: Sequence[str]) -> Condition:
    """One of these columns differs from the row before; false for a first row."""

    def check(place: RowContext) -> bool:
        row = place.previous
        return row is not None and any(row[column] != place.row[column] for column in columns)

    return check


def decimal_of(text: str, column: str) -> Decimal | None:
    """The number in a text; nothing where it is blank."""
    if not text.strip():
        return None
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        message = f"{column} {text[:40]!r} is not a number"
        raise ValueProblem(message, column)
    return value


def number(text: str, kind: type[Any], column: str) -> Any:
    """The float or integer in a text; nothing where it is blank."""
    if not text.strip():
        return None
    try:
        return kind(text)
    except ValueError:
        message = f"{column} {text[:40]!r} is not a number"
        raise ValueProblem(message, column) from None
