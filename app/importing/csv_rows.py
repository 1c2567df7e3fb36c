"""CSV files read strictly by Python's ``csv``: exact lines, and no row that is dropped or shifted silently."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from app.importing.mapping import MappingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

CHUNK_ROWS = 2_000
"""Few rows, whose cells are still in the processor's cache when they are sorted into columns."""
_DELIMITERS = (",", ";", "\t", "|")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


class ImportFileError(ValueError):
    """A file that cannot be read as the mapping says; the message names file, line and remedy."""


class ColumnError(MappingError):
    """A column that the mapping uses and no file has."""


class RowFault(NamedTuple):
    """A row that cannot be read: its line, and the reason."""

    line: int
    message: str


class RowChunk(NamedTuple):
    """Some rows of a file: the lines where they begin, and their cells column by column."""

    lines: Sequence[int]
    columns: Sequence[Sequence[object]]


class CsvReader:
    """Reads the rows of one CSV file, with some of its columns."""

    def __init__(self, text: TextIO, path: str, delimiter: str, faulty: Callable[[RowFault], None]) -> None:
        """Read the header; ``faulty`` is called with each row that has another number of cells.

        Raises:
            ImportFileError: there is no header, or a column stands twice in it.

        """
        self._path, self._faulty = path, faulty
        self._reader = csv.reader(text, delimiter=delimiter, strict=True)
        self._line = 0
        self.delimiter = delimiter
        try:
            header = next(self._reader, None)
        except csv.Error as error:
            raise self._error(error, 1) from None
        if not header:
            raise ImportFileError(f"{path} is empty: its first line must name the columns")
        self.header = header_names(header, path)
        self._line = self._reader.line_num
        if len(header) == 1 and (other := self.likely_delimiter(header[0])) is not None:
            raise ImportFileError(
                f"{path}: the file looks like {_NAMES[other]}: its header has one column {header[0][:60]!r}; "
                f"say `files: {{table: {{delimiter: {other!r}}}}}` in the mapping"
            )

    def likely_delimiter(self, header: str) -> str | None:
        """Return the other delimiter that stands most often in a header, or ``None``."""
        counted = {one: header.count(one) for one in _DELIMITERS if one != self.delimiter}
        best = max(counted, key=lambda one: counted[one])
        return best if counted[best] else None

    def chunks(self, kept: Sequence[int]) -> Iterator[RowChunk]:
        """Yield the rows in the order of the file, with the cells of the columns ``kept``.

        Raises:
            ImportFileError: a quoted cell is not closed, or is followed by other text than a delimiter.

        """
        width = len(self.header)
        ended = False
        while not ended:
            rows: list[list[str]] = []
            failure: csv.Error | None = None
            try:
                rows.extend(islice(self._reader, CHUNK_ROWS))
            except csv.Error as error:
                failure = error
            lines = self._lines(rows, failed=failure is not None)
            if failure is not None:
                raise self._error(failure, self._line + 1)
            ended = len(rows) < CHUNK_ROWS
            if set(map(len, rows)) - {width}:
                lines, rows = self._full_rows(lines, rows, width)
            if rows:
                cells = list(chain.from_iterable(rows))
                yield RowChunk(lines, [cells[place::width] for place in kept])

    def _lines(self, rows: Sequence[Sequence[str]], *, failed: bool) -> Sequence[int]:
        """Return the line where each row begins; a quoted cell may hold line breaks."""
        begin = self._line + 1
        if not failed and self._reader.line_num == self._line + len(rows):
            self._line += len(rows)
            return range(begin, begin + len(rows))
        lines: list[int] = []
        for row in rows:
            lines.append(self._line + 1)
            self._line += 1 + sum(_breaks(cell) for cell in row)
        return lines

    def _full_rows(
        self, lines: Sequence[int], rows: Sequence[list[str]], width: int
    ) -> tuple[list[int], list[list[str]]]:
        """Return the rows with one cell for each column; report the others, but for blank lines."""
        kept_lines: list[int] = []
        kept_rows: list[list[str]] = []
        for line, row in zip(lines, rows, strict=True):
            if len(row) == width:
                kept_lines.append(line)
                kept_rows.append(row)
            elif row:
                self._faulty(RowFault(line, f"{len(row)} cells for {width} columns"))
        return kept_lines, kept_rows

    def _error(self, error: csv.Error, line: int) -> ImportFileError:
        return ImportFileError(f"{self._path}, line {line}: {error}")


def _breaks(cell: str) -> int:
    return cell.count("\n") + cell.count("\r") - cell.count("\r\n") if "\n" in cell or "\r" in cell else 0


def header_names(header: Sequence[str], path: str) -> list[str]:
    """Return the names of a header's columns; a blank one becomes ``column_<n>``.

    Raises:
        ImportFileError: a column stands twice, also in another case, since case does not count in SQL.

    """
    names = [name.strip() or f"column_{number}" for number, name in enumerate(header, 1)]
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(name.lower(), name)
        if first is not name:
            others = "" if first == name else f" (as {first!r} and {name!r}; case does not count)"
            raise ImportFileError(f"{path}: column {first!r} stands twice in the header{others}: rename one")
    return names


def open_quote_line(lines: Iterator[str], delimiter: str, record_line: int) -> int:
    """Return the line where the last quoted cell of a record begins, from the lines of the file.

    ``record_line`` is the line where the record begins.
    """
    began = record_line
    in_quotes, at_start = False, True
    for number, line in enumerate(islice(lines, record_line - 1, None), record_line):
        for character in line:
            if in_quotes:
                in_quotes = character != '"'
            elif character == '"':
                if at_start:
                    began = number
                in_quotes = True
            at_start = character == delimiter and not in_quotes
        if not in_quotes:
            break
    return began
