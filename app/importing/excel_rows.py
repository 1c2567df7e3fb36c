"""Sheets of Excel as rows of texts: no value that Excel rounds, has no value for, or hides is taken for another.

`python-calamine` reads the cells. It gives neither errors of cells nor formulas without a value, and takes memory for
each cell up to the last one, so that these are found in the XML first.
"""

from __future__ import annotations

import io
import re
import zipfile
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pyarrow as pa
import python_calamine

from app.importing.csv_rows import CHUNK_ROWS, ImportFileError, RowChunk, RowFault, header_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_EXACT = 1e15
_MOST_BYTES, _MOST_CELLS = 1 << 29, 50_000_000
"""Limits of the unpacked files, and of the cells from A1 to the last one, each of which the reader keeps."""
_REST = 4_096
_DIMENSION = re.compile(rb'<dimension ref="[A-Z]+[0-9]+:([A-Z]+)([0-9]+)"')
_ERROR = re.compile(rb'<c r="([A-Z]+)([0-9]+)"[^>]*? t="e"[^>]*>(?:<f[^<]*(?:</f>)?)?<v>([^<]*)</v>')
_NO_VALUE = re.compile(
    rb'<c r="([A-Z]+)([0-9]+)"(?![^>]* t="str")[^>]*><f[^>]*(?:/>|>[^<]*</f>)(?:<v ?/>|<v></v>)?</c>'
)
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")

type _CellFaults = dict[tuple[int, int], str]
"""The faults of cells by line (from 1) and column (from 0)."""


class ExcelReader:
    """Reads the rows of one sheet, with some of its columns."""

    def __init__(
        self,
        data: bytes,
        path: str,
        sheet: str | None,
        faulty: Callable[[RowFault], None],
        warn: Callable[[str], None],
    ) -> None:
        """Read the header: the first row with a cell.

        ``faulty`` is called with each row that has a cell without an exact value. Without ``sheet``, the first one that
        is not hidden is read.

        Raises:
            ImportFileError: there is no such sheet, no header, or a column stands twice in it.

        """
        self._path, self._faulty, self._warn = path, faulty, warn
        _cell_faults(data, path, "")
        try:
            book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
            name = self._sheet_of(book, sheet)
            self._faults = _cell_faults(data, path, name)
            found = book.get_sheet_by_name(name)
        except python_calamine.CalamineError as error:
            raise ImportFileError(f"{path} is not a readable Excel file: {error}") from None
        if found.merged_cell_ranges:
            warn(f"{path}: {name!r} has merged cells: all but the first of each are read as blank")
        rows = enumerate(found.iter_rows(), 1)
        first = next((row for _, row in rows if _has_cells(row)), None)
        if first is None:
            raise ImportFileError(f"{path} is empty: the first row of {name!r} must name the columns")
        lines = {line for line, _ in self._faults}
        self._rows = ((line, row) for line, row in rows if _has_cells(row) or line in lines)
        self._begin = next(place for place, cell in enumerate(first) if cell != "")
        self.header = header_names([_text_of(cell) or "" for cell in first[self._begin :]], path)

    def chunks(self, kept: Sequence[int]) -> Iterator[RowChunk]:
        """Yield the rows below the header, with the cells of the columns ``kept``."""
        while batch := list(islice(self._rows, CHUNK_ROWS)):
            lines: list[int] = []
            rows: list[list[str | None]] = []
            for line, row in batch:
                try:
                    rows.append([self._cell(line, place, row) for place in kept])
                except ValueError as error:
                    self._faulty(RowFault(line, str(error)))
                else:
                    lines.append(line)
            if lines:
                yield RowChunk(lines, [pa.array(cells, pa.string()) for cells in zip(*rows, strict=True)])

    def _cell(self, line: int, place: int, row: Sequence[object]) -> str | None:
        """Return a cell as text.

        Raises:
            ValueError: it has no exact value.

        """
        at = place + self._begin
        fault = self._faults.get((line, at))
        value = row[at]
        if isinstance(value, float) and value.is_integer() and abs(value) >= _EXACT:
            fault = f"{value:.16g} has more digits than the 15 that Excel keeps: store it as text there"
        if fault is not None:
            raise ValueError(f"{self.header[place]} {fault}")
        return _text_of(value)

    def _sheet_of(self, book: python_calamine.CalamineWorkbook, wanted: str | None) -> str:
        """Return the name of the sheet to read: the one of the mapping, else the first one that is not hidden."""
        if wanted is not None:
            if wanted not in book.sheet_names:
                names = ", ".join(map(repr, book.sheet_names))
                raise ImportFileError(f"{self._path} has no sheet {wanted!r}; it has {names}")
            return wanted
        worksheet, visible = python_calamine.SheetTypeEnum.WorkSheet, python_calamine.SheetVisibleEnum.Visible
        shown = [one.name for one in book.sheets_metadata if (one.typ, one.visible) == (worksheet, visible)]
        if not shown:
            raise ImportFileError(f"{self._path}: all sheets are hidden; name one with `sheet` in the mapping")
        if len(shown) > 1:
            others = ", ".join(map(repr, shown[1:]))
            self._warn(f"{self._path}: the sheet {shown[0]!r} is read, and not {others}: say `sheet` in the mapping")
        return shown[0]


def _has_cells(row: Sequence[object]) -> bool:
    return any(cell != "" for cell in row)


def _text_of(value: object) -> str | None:
    """Return a cell as text: numbers with at most 15 digits as Excel shows them, times as ISO 8601."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < _EXACT else format(value, ".15g")
        case datetime():
            return value.isoformat(" ")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return str(value.total_seconds())
        case _:
            return None if value is None else str(value)


def _cell_faults(data: bytes, path: str, sheet: str) -> _CellFaults:
    """Return the cells of a sheet of an Office Open XML workbook that have no value; none for other formats.

    Raises:
        ImportFileError: the workbook is encrypted, or too large for its reader.

    """
    if _ENCRYPTED in data:
        raise ImportFileError(f"{path} is encrypted: save it without a password")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        size = sum(one.file_size for one in archive.infolist())
        if size > _MOST_BYTES:
            raise ImportFileError(
                f"{path} unpacks to {size >> 20} MB, which is too much for a workbook: save it as CSV"
            )
        part = _part_of(archive, sheet) if sheet else ""
        if not part:
            return {}
        with archive.open(part) as file:
            return _faults_in(file.read(), path, sheet)
    except (zipfile.BadZipFile, KeyError, ET.ParseError, NotImplementedError, EOFError):
        return {}  # not of this format, or damaged, which its reader reports


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str:
    """Return the name of the file with a sheet's cells, empty if there is none (ECMA-376, part 1, 18.2.19)."""
    if "xl/workbook.xml" not in archive.namelist():
        return ""
    relations = ET.fromstring(archive.read("xl/_rels/workbook.xml.rels"))  # noqa: S314 - expat bounds entities
    targets = {one.get("Id"): one.get("Target", "") for one in relations}
    for one in ET.fromstring(archive.read("xl/workbook.xml")).iter():  # noqa: S314
        if one.tag.endswith("}sheet") and one.get("name") == sheet:
            key = next((value for name, value in one.items() if name.endswith("}id")), None)
            target = targets.get(key, "")
            return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
    return ""


def _faults_in(text: bytes, path: str, sheet: str) -> _CellFaults:
    if (found := _DIMENSION.search(text, 0, _REST)) is not None:
        last, rows = found[1].decode(), int(found[2])
        if rows * (_column(found[1]) + 1) > _MOST_CELLS:
            raise ImportFileError(
                f"{path}: {sheet!r} reaches to {last}{rows}: delete the cells outside of the table, or save it as CSV"
            )
    faults: _CellFaults = {}
    for one in _ERROR.finditer(text):
        faults[int(one[2]), _column(one[1])] = f"has the error {one[3].decode(errors='replace')}"
    for one in _NO_VALUE.finditer(text):
        faults[int(one[2]), _column(one[1])] = "has a formula without a value: open the file in Excel and save it"
    return faults


def _column(letters: bytes) -> int:
    """Return the number of a column from 0: A is 0, AA is 26."""
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number - 1
