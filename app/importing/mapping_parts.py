"""The parts of a column mapping: rows in groups, conditions on them, and values from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

Row = Mapping[str, str]


class MappingError(ValueError):
    """An invalid mapping; the message names the part."""


class ValueProblem(ValueError):
    """A row's value that cannot be read; the row's event is rejected."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class Group(NamedTuple):
    """Rows that belong together, in the mapping's order, with their lines and the computed sums."""

    lines: Sequence[int]
    rows: Sequence[Row]
    sums: Mapping[str, Decimal]

    @property
    def line(self) -> int:
        """The line of the first row."""
        return self.lines[0]


class RowContext(NamedTuple):
    """A row in its group, the argument of conditions and values."""

    group: Group
    number: int

    @property
    def line(self) -> int:
        """The row's line in the file; rows that the mapping sorts share out their lines in its order."""
        return self.group.lines[self.number]

    @property
    def row(self) -> Row:
        """The row."""
        return self.group.rows[self.number]

    @property
    def previous(self) -> Row | None:
        """The previous row of the group."""
        return self.group.rows[self.number - 1] if self.number else None


Condition = Callable[[RowContext], bool]
Test = Callable[[Any], bool]
Value = Callable[[RowContext], Any]


def first(context: RowContext) -> bool:
    """Return whether the row is the first of its group."""
    return context.number == 0


def not_first(context: RowContext) -> bool:
    """Return whether the row is not the first of its group."""
    return context.number > 0


def constant(value: Any) -> Value:
    """Return a value that is the same for every row."""
    return lambda _place: value


def on_column(column: str, test: Test) -> Condition:
    """Return a condition on a column of the row."""
    return lambda context: test(context.row[column])


def on_sum(name: str, test: Test) -> Condition:
    """Return a condition on a sum of the group."""
    return lambda context: test(context.group.sums[name])


def on_previous(tests: Sequence[tuple[str, Test]]) -> Condition:
    """Return a condition on the previous row; false for the first row."""

    def check(context: RowContext) -> bool:
        row = context.previous
        return row is not None and all(test(row[column]) for column, test in tests)

    return check


def changed(columns: Sequence[str]) -> Condition:
    """Return the condition that a column differs from the previous row; false for the first row."""

    def check(context: RowContext) -> bool:
        row = context.previous
        return row is not None and any(row[column] != context.row[column] for column in columns)

    return check


def decimal_of(text: str, column: str) -> Decimal | None:
    """Return the number in a text; None if the text is blank."""
    if not text.strip():
        return None
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise ValueProblem(f"{column} {text[:40]!r} is not a number", column)
    return value


def number(text: str, kind: type[Any], column: str) -> Any:
    """Return the float or integer in a text; None if the text is blank."""
    if not text.strip():
        return None
    try:
        return kind(text)
    except ValueError:
        raise ValueProblem(f"{column} {text[:40]!r} is not a number", column) from None
