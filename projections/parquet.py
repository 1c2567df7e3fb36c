"""Lists as Parquet files. Requires pyarrow, which the package's extra `archive` installs."""

from __future__ import annotations

from decimal import Decimal
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, get_args, get_origin

import sqlalchemy as sa

from domain.currencies import UNLISTED_DIGITS
from domain.documents.rows import Moment, SignedMoney
from domain.serialization import encode
from ledger.archive.parquet import moments  # first of all it reports a missing extra
from projections.json_schemas import fields_of

import pyarrow as pa  # isort: skip
import pyarrow.parquet as pq  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

    from domain.serialization import Json

_AMOUNT = pa.decimal128(38, UNLISTED_DIGITS)
"""Minor units have at most 64 bits, which is 19 digits, and no currency has more digits than an unlisted one."""
_TIME = pa.timestamp("us", tz="UTC")
_KINDS: dict[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    Moment: _TIME,
    SignedMoney: _AMOUNT,
}
_GROUP_ROWS = 16_384


class ListWriter:
    """A context in which the rows of a list are written to a file, group by group.

    ``row`` is the class of a row, or the table whose rows they are. It alone decides the columns: money takes two,
    ``amount`` (decimal, four digits) and ``amount_currency``; times are UTC with microseconds; lists stay lists. A
    value in a text column of a table that is no text is JSON.
    """

    def __init__(self, file: IO[bytes], row: type | sa.Table) -> None:
        self._kinds = dict(_columns(row))
        self._waiting: list[Mapping[str, Json]] = []
        fields: list[tuple[str, pa.DataType]] = []
        for name, kind in self._kinds.items():
            fields.append((name, kind))
            if kind is _AMOUNT:
                fields.append((f"{name}_currency", pa.string()))
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.flush()
        self._writer.close()

    def add(self, rows: Sequence[Mapping[str, Json]]) -> None:
        """Add rows; they are written once a row group is full."""
        self._waiting += rows
        if len(self._waiting) >= _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait, if any, as a row group."""
        if not self._waiting:
            return
        arrays: list[pa.Array] = []
        for name, kind in self._kinds.items():
            values: list[Any] = [row[name] for row in self._waiting]
            arrays.append(_array(values, kind))
            if kind is _AMOUNT:
                arrays.append(pa.array([one and one["currency"] for one in values], pa.string()))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._waiting = []


def _columns(row: type | sa.Table) -> Iterator[tuple[str, pa.DataType]]:
    if isinstance(row, sa.Table):
        for column in row.columns:
            kinds = ((sa.Boolean, bool), (sa.Integer, int), (sa.Float, float))
            yield column.name, _KINDS[next((kind for sql, kind in kinds if isinstance(column.type, sql)), str)]
    else:
        for field in fields_of(row):
            yield field.name, _kind_of(field.hint)


def _kind_of(hint: object) -> pa.DataType:
    origin, arguments = get_origin(hint), [one for one in get_args(hint) if one is not type(None)]
    if origin in (Union, UnionType, Annotated):
        return _kind_of(arguments[0])
    if origin is Literal:
        return _KINDS[type(arguments[0])]
    if origin is list:
        return pa.list_(_kind_of(arguments[0]))
    return _KINDS[hint]


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if kind is _AMOUNT:
        return pa.array([one and Decimal(one["amount"]) for one in values], kind)
    if kind is _TIME:
        return moments(values)
    if kind == pa.bool_():
        return pa.array([None if one is None else bool(one) for one in values], kind)
    if kind == pa.string():
        return pa.array([one if one is None or isinstance(one, str) else encode(one).decode() for one in values], kind)
    return pa.array(values, kind)
