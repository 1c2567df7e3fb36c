"""Expressions of SQL that SQLAlchemy does not have, each as SQLite and PostgreSQL write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


class _ListedValues(FunctionElement[Any]):
    name, inherit_cache = "listed_values", True


class _ListedRows(FunctionElement[Any]):
    name, inherit_cache = "listed_rows", True


class _ShiftedTime(FunctionElement[str]):
    name, inherit_cache, type = "shifted_time", True, sa.Text()


class _NumberText(FunctionElement[str]):
    name, inherit_cache, type = "number_text", True, sa.Text()


_COLUMNS = ("a", "b", "c")


def listed_values(parameter: str) -> sa.Select[tuple[Any]]:
    """Return a query of the texts in a parameter, a JSON list."""
    return sa.select(_ListedValues(sa.bindparam(parameter, type_=sa.Text)).table_valued("value").c.value)


def listed_positions(parameter: str) -> sa.Select[tuple[int]]:
    """Return a query of the positions in a parameter, a JSON list."""
    values = _ListedValues(sa.bindparam(parameter, type_=sa.Text)).table_valued("value")
    return sa.select(sa.cast(values.c.value, sa.BigInteger))


def listed_rows(parameter: str) -> sa.TableValuedAlias:
    """Return the rows in a parameter, a JSON list of lists, with the columns ``a``, ``b`` and ``c`` of text."""
    return _ListedRows(sa.bindparam(parameter, type_=sa.Text)).table_valued(*_COLUMNS)


def shifted_time(time: sa.ColumnElement[str], days: int) -> sa.ColumnElement[str]:
    """Return a time of a view (RFC 3339, UTC, as text) so many days later, or earlier, exactly."""
    return _ShiftedTime(time, sa.literal_column(f"{days:+d}"))


def number_text(number: sa.ColumnElement[float]) -> sa.ColumnElement[str]:
    """Return a real number as text that says it exactly."""
    return _NumberText(number)


def larger(one: Any, other: Any) -> Any:
    """Return the larger of two expressions that are not NULL."""
    return sa.case((one > other, one), else_=other)


def smaller(one: Any, other: Any) -> Any:
    """Return the smaller of two expressions that are not NULL."""
    return sa.case((one < other, one), else_=other)


def _parts(element: FunctionElement[Any], compiler: SQLCompiler, given: dict[str, Any]) -> list[str]:
    return [compiler.process(part, **given) for part in element.clauses]


@compiles(_ListedValues, "sqlite")
def _(element: _ListedValues, compiler: SQLCompiler, **given: Any) -> str:
    return f"(SELECT value FROM json_each({_parts(element, compiler, given)[0]}))"  # noqa: S608 - a parameter


@compiles(_ListedValues, "postgresql")
def _(element: _ListedValues, compiler: SQLCompiler, **given: Any) -> str:
    return "(SELECT jsonb_array_elements_text(CAST({} AS jsonb)) AS value)".format(*_parts(element, compiler, given))


@compiles(_ListedRows, "sqlite")
def _(element: _ListedRows, compiler: SQLCompiler, **given: Any) -> str:
    columns = ", ".join(f"json_extract(value, '$[{at}]') AS {name}" for at, name in enumerate(_COLUMNS))
    return f"(SELECT {columns} FROM json_each({_parts(element, compiler, given)[0]}))"  # noqa: S608 - names of ours


@compiles(_ListedRows, "postgresql")
def _(element: _ListedRows, compiler: SQLCompiler, **given: Any) -> str:
    columns = ", ".join(f"value ->> {at} AS {name}" for at, name in enumerate(_COLUMNS))
    rows = f"jsonb_array_elements(CAST({_parts(element, compiler, given)[0]} AS jsonb)) AS value"
    return f"(SELECT {columns} FROM {rows})"  # noqa: S608 - names of ours


@compiles(_ShiftedTime, "sqlite")
def _(element: _ShiftedTime, compiler: SQLCompiler, **given: Any) -> str:
    # The fraction stays as it is, since SQLite's functions round it to milliseconds.
    time, days = _parts(element, compiler, given)
    return f"(strftime('%Y-%m-%dT%H:%M:%S', substr({time}, 1, 19), '{days} days') || substr({time}, 20))"


@compiles(_ShiftedTime, "postgresql")
def _(element: _ShiftedTime, compiler: SQLCompiler, **given: Any) -> str:
    time, days = _parts(element, compiler, given)
    moved = f"CAST(substr({time}, 1, 19) AS timestamp) + interval '{days} days'"
    return f"(to_char({moved}, 'YYYY-MM-DD\"T\"HH24:MI:SS') || substr({time}, 20))"


@compiles(_NumberText, "sqlite")
def _(element: _NumberText, compiler: SQLCompiler, **given: Any) -> str:
    return "printf('%!.17g', {})".format(*_parts(element, compiler, given))


@compiles(_NumberText, "postgresql")
def _(element: _NumberText, compiler: SQLCompiler, **given: Any) -> str:
    return "CAST({} AS text)".format(*_parts(element, compiler, given))
