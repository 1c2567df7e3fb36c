"""CSV files read strictly: exact lines, and no row that is dropped or shifted silently.

Python's ``csv`` decides about quotes, line breaks and widths. Lines without any of these difficulties are the same to
every parser of CSV, so that Arrow parses them, in a tenth of the time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from app.importing.mapping import MappingError
from ledger.errors import MissingExtraError

try:
    import pyarrow as pa
    import pyarrow.csv as arrow_csv
except ImportError as error:
    raise MissingExtraError("Imports", "import") from error

if TYPE_CHECKING:
    from _csv import Reader
    from collections.abc import Callable, Iterator
    from typing import TextIO

CHUNK_ROWS = 2_000
_BLOCK_CHARACTERS = 1 << 18
_RECORDS_AT_ONCE = 500
"""Records that may reach beyond the end of a block, if they have several lines each."""
MOST_CHARACTERS = 1 << 24
"""Characters of a cell, and of a line."""
csv.field_size_limit(MOST_CHARACTERS)
_QUOTES_ARE_RARE = 400
"""Characters for each quote from which writing quoted records anew is faster than reading all records by Python."""
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
    columns: Sequence[pa.Array | pa.ChunkedArray]


class CsvReader:
    """Reads the rows of one CSV file, with some of its columns."""

    def __init__(self, text: TextIO, path: str, delimiter: str, faulty: Callable[[RowFault], None]) -> None:
        """Read the header; ``faulty`` is called with each row that has another number of cells.

        Raises:
            ImportFileError: there is no header, or a column stands twice in it.

        """
        self._text, self._path, self._faulty = text, path, faulty
        self.delimiter = delimiter
        self._block, self._lines = "", 0
        """The text that is read next, to the end of a line, and its number of lines."""
        reader = self._reader(self._file_lines())
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise self._error(error, 1) from None
        if not header:
            raise ImportFileError(f"{path} is empty: its first line must name the columns")
        self.header = header_names(header, path)
        self._line = reader.line_num
        """The last line that has been read."""
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
        while block := self._text.read(_BLOCK_CHARACTERS):
            self._block = block + next(self._file_lines(), "")
            self._lines = _lines_of(self._block)
            chunk = (self._by_arrow(kept) if self._is_plain() else None) or self._by_python(kept)
            if chunk.lines:
                yield chunk

    def _file_lines(self) -> Iterator[str]:
        """Yield the next lines of the file.

        Raises:
            ImportFileError: a line is too long to be one of a text.

        """
        while line := self._text.readline(MOST_CHARACTERS):
            if len(line) == MOST_CHARACTERS:
                raise ImportFileError(f"{self._path}: a line has {MOST_CHARACTERS:,} characters or more: is this CSV?")
            yield line

    def _reader(self, lines: Iterator[str]) -> Reader:
        return csv.reader(lines, delimiter=self.delimiter, strict=True)

    # ------------------------------------------------------------------ by Arrow

    def _is_plain(self) -> bool:
        """Return whether Arrow may parse the block: its lines end with a line feed, and quotes are rare."""
        block = self._block
        return (
            len(self.header) > 1  # of one column, a blank line is no row for Python and a blank cell for Arrow
            and self.delimiter.isascii()
            and ("\r" not in block or block.count("\r") == block.count("\r\n"))
            and ('"' not in block or block.count('"') * _QUOTES_ARE_RARE < len(block))
            and "\0" not in block
            and not block.startswith("\ufeff")
        )

    def _by_arrow(self, kept: Sequence[int]) -> RowChunk | None:
        """Return the rows of a plain block, or ``None`` if a line is no row with one cell for each column."""
        faults: list[RowFault] = []
        block = self._block
        text = block
        lines: Sequence[int] = range(self._line + 1, self._line + 1 + self._lines)
        if '"' in text:
            text, lines = self._with_records_written_anew(faults)
            if self._block is not block:  # a record goes on beyond the block
                self._lines = _lines_of(self._block)
                if not self._is_plain():
                    return None
        columns = self._parsed(text, kept) if lines else []
        if lines and len(columns[0]) != len(lines):
            return None
        for fault in faults:
            self._faulty(fault)
        self._line += self._lines
        return RowChunk(lines, columns)

    def _parsed(self, text: str, kept: Sequence[int]) -> list[pa.ChunkedArray]:
        """Return the columns of rows that have one cell for each column; other rows are left out."""
        data = text.encode()
        names = [str(place) for place in range(len(self.header))]
        table = arrow_csv.read_csv(
            pa.py_buffer(data),
            read_options=arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
            parse_options=arrow_csv.ParseOptions(
                delimiter=self.delimiter,
                newlines_in_values=True,
                invalid_row_handler=lambda _: "skip",
            ),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=[names[place] for place in kept],
                column_types=dict.fromkeys(names, pa.string()),
                check_utf8=False,
            ),
        )
        columns: list[pa.ChunkedArray] = table.columns
        return columns

    def _with_records_written_anew(self, faults: list[RowFault]) -> tuple[str, Sequence[int]]:
        """Return the block with each record that has a quote as Python reads it, and the line of each record.

        The block grows if its last record goes on beyond it. Records of another width are left out and reported.
        """
        text, lines = io.StringIO(newline=""), list[Sequence[int]]()
        write = csv.writer(text, delimiter=self.delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow
        at, line = 0, self._line + 1
        while (quote := self._block.find('"', at)) >= 0:
            begin = self._block.rfind("\n", at, quote) + 1 or at
            before = self._block[at:begin]
            text.write(before)
            lines.append(range(line, line + before.count("\n")))
            line += len(lines[-1])
            reader = self._reader(self._lines_from(begin))
            try:
                row = next(reader)
            except csv.Error as error:
                raise self._error(error, line) from None
            if len(row) == len(self.header):
                write(row)
                lines.append((line,))
            else:
                faults.append(self._width_fault(line, row))
            at = begin
            for _ in range(reader.line_num):
                at = self._block.find("\n", at) + 1 or len(self._block)
            line += reader.line_num
        rest = self._block[at:]
        text.write(rest)
        lines.append(range(line, line + _lines_of(rest)))
        return text.getvalue(), list(chain.from_iterable(lines))

    def _lines_from(self, at: int) -> Iterator[str]:
        """Yield the lines of the block from a place on; lines of the file that follow are added to the block."""
        while True:
            if at == len(self._block):
                self._block += next(self._file_lines(), "")
            end = self._block.find("\n", at) + 1 or len(self._block)
            if end == at:
                return
            yield self._block[at:end]
            at = end

    # ------------------------------------------------------------------ by Python

    def _by_python(self, kept: Sequence[int]) -> RowChunk:
        """Return the rows of the block, and of the lines after it on which its last records end."""
        reader = self._reader(chain(io.StringIO(self._block, newline=""), self._file_lines()))
        rows: list[list[str]] = []
        last = -1
        failure: csv.Error | None = None
        try:
            while reader.line_num < self._lines and last != reader.line_num:
                last = reader.line_num
                rows.extend(islice(reader, min(self._lines - last, _RECORDS_AT_ONCE)))
        except csv.Error as error:
            failure = error
        begin = self._line + 1
        lines: Sequence[int] = range(begin, begin + len(rows))
        if failure is not None or reader.line_num != len(rows):
            lines = []
            for row in rows:
                lines.append(begin)
                begin += 1 + sum(map(_breaks, row))
        if failure is not None:
            raise self._error(failure, begin)
        self._line += reader.line_num
        width = len(self.header)
        if set(map(len, rows)) - {width}:
            lines, rows = self._full_rows(lines, rows, width)
        cells = list(chain.from_iterable(rows))
        return RowChunk(lines, [pa.array(cells[place::width], pa.string()) for place in kept])

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
                self._faulty(self._width_fault(line, row))
        return kept_lines, kept_rows

    def _width_fault(self, line: int, row: Sequence[str]) -> RowFault:
        return RowFault(line, f"{len(row)} cells for {len(self.header)} columns")

    def _error(self, error: csv.Error, line: int) -> ImportFileError:
        return ImportFileError(f"{self._path}, line {line}: {error}")


def _breaks(text: str) -> int:
    """Return the number of line breaks: line feeds, carriage returns, or both together."""
    if "\r" in text:
        return text.count("\n") + text.count("\r") - text.count("\r\n")
    return text.count("\n")


def _lines_of(text: str) -> int:
    """Return the number of lines, the last one with or without a line break."""
    return _breaks(text) + (not text.endswith(("\n", "\r"))) if text else 0


def header_names(header: Sequence[str], path: str) -> list[str]:
    """Return the names of a header's columns; a blank one becomes ``column_<n>``, and a line break a space.

    Raises:
        ImportFileError: a column stands twice, also in another case, since case does not count in SQL.

    """
    if any("\0" in name for name in header):
        raise ImportFileError(f"{path}: the name of a column has a NUL: is this the right format?")
    names = [" ".join(map(str.strip, name.split("\n"))).strip() or f"column_{n}" for n, name in enumerate(header, 1)]
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
    in_quotes = False
    for number, line in enumerate(islice(lines, record_line - 1, None), record_line):
        quote = line.find('"')
        while quote >= 0:
            if not in_quotes and (quote == 0 or line[quote - 1] == delimiter):
                began = number
            in_quotes = not in_quotes
            quote = line.find('"', quote + 1)
        if not in_quotes:
            break
    return began
