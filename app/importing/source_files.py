"""Files of an import as chunks of rows with their lines: CSV, JSON Lines, Parquet and Excel."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec
import pyarrow as pa

from app.importing.csv_rows import (
    CHUNK_ROWS,
    CsvReader,
    ImportFileError,
    RowFault,
    header_names,
    open_quote_line,
)
from ledger.store.json_text import repeated_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.importing.mapping import TableOptions

_BOMS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_SAMPLE = 4_096
_FALLBACK = "cp1252"
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)


class Chunk(NamedTuple):
    """Some rows: the lines where they begin, and their columns by name."""

    lines: Sequence[int]
    columns: dict[str, pa.Array | pa.ChunkedArray]


class FileReport(NamedTuple):
    """Things to say about a file."""

    faulty: Callable[[RowFault], None]
    warn: Callable[[str], None]
    progressed: Callable[[int], None]


class _WrongEncodingError(Exception):
    """The file is not in the encoding that was assumed."""


class SourceFile:
    """A file of a table. ``chunks`` may be called once; ``sha256`` is that of the whole file afterwards."""

    def __init__(self, path: Path, options: TableOptions, report: FileReport) -> None:
        self.path, self.options, self._report = path, options, report
        self.header: list[str] = []
        """The names of its columns, as far as they have been read."""
        self.sha256 = ""
        self.name = str(path)

    @property
    def format(self) -> str:
        """One of ``mapping.FORMATS``, by the mapping or by the file's name."""
        if self.options.format is not None:
            return self.options.format
        name = self.path.name.lower().removesuffix(".gz")
        for ending, form in _ENDINGS.items():
            if name.endswith(ending):
                return form
        if name.endswith(".json"):
            raise ImportFileError(f"{self.path}: one JSON object a line is read (.jsonl); `jq -c '.[]'` makes lines")
        return "csv"

    def restart(self) -> None:
        """Begin anew after a wrong encoding."""
        self.header = []

    def chunks(self, wanted: Callable[[str], bool], encoding: str | None = None) -> Iterator[Chunk]:
        """Yield the rows, with the columns whose names are ``wanted``.

        Raises:
            ImportFileError: the file cannot be read; the message names file, line and remedy.

        """
        form = self.format
        readers = {"jsonl": self._json_lines, "parquet": self._parquet, "xlsx": self._excel}
        try:
            if form == "csv":
                yield from self._csv(wanted, encoding or self.options.encoding or self._detected())
            else:
                yield from readers[form](wanted)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ImportFileError(f"{self.path} is damaged or cut short: {error}; fetch it again") from None
        except pa.ArrowInvalid as error:
            raise ImportFileError(f"{self.path} is not a readable {form} file: {error}") from None

    @contextmanager
    def _opened(self) -> Iterator[tuple[BinaryIO, _Hashed]]:
        with _Hashed(self.path) as raw:
            buffered = io.BufferedReader(raw, 1 << 18)
            if self.path.suffix == ".gz":
                with unpacked(buffered) as file:
                    yield file, raw
            else:
                yield buffered, raw
            while buffered.read(1 << 18):  # the hash is that of the whole file
                pass
            self.sha256 = raw.sha256.hexdigest()

    def _detected(self) -> str:
        """Return the encoding by the byte order mark, else by NUL bytes, else UTF-8."""
        with self.path.open("rb") as raw:
            if self.path.suffix == ".gz":
                with unpacked(raw) as file:
                    sample = file.read(_SAMPLE)
            else:
                sample = raw.read(_SAMPLE)
        for mark, name in _BOMS:
            if sample.startswith(mark):
                return name
        zeros = (sample[::2].count(0), sample[1::2].count(0))
        if sum(zeros) > len(sample) // 4:
            name = "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
            self._report.warn(f"{self.path} is read as {name}, which its NUL bytes suggest: say `encoding`")
            return name
        return "utf-8"

    def _csv(self, wanted: Callable[[str], bool], encoding: str) -> Iterator[Chunk]:
        sniffed = self.options.encoding is None and encoding == "utf-8"
        with self._opened() as (file, raw):
            text = io.TextIOWrapper(file, "utf-8-sig" if encoding == "utf-8" else encoding, newline="")
            line = 0
            try:
                reader = CsvReader(text, str(self.path), self.options.delimiter, self._report.faulty)
                self.header = reader.header
                kept = [place for place, name in enumerate(reader.header) if wanted(name)]
                names = [reader.header[place] for place in kept or [0]]
                for lines, columns in reader.chunks(kept or [0]):
                    yield Chunk(lines, dict(zip(names, columns, strict=True)))
                    line = lines[-1]
                    self._report.progressed(raw.since())
                self._report.progressed(raw.since())
            except UnicodeDecodeError as error:
                if sniffed:
                    raise _WrongEncodingError from None
                message = f"{self.path}, after line {line}: not {encoding}: {error.reason}; name the right `encoding`"
                raise ImportFileError(message) from None
            except UnicodeError as error:
                raise ImportFileError(f"{self.path}: not {encoding}: {error}; name the right `encoding`") from None
            except ImportFileError as error:
                raise self._explained(error, encoding) from None

    def _explained(self, error: ImportFileError, encoding: str) -> ImportFileError:
        """Return an error of the CSV reader with the line where an open quote began."""
        text = str(error)
        prefix = f"{self.path}, line "
        reasons = ("unexpected end of data", "field larger than field limit", "expected after")
        if not text.startswith(prefix) or not any(reason in text for reason in reasons):
            return error
        record = int(text.removeprefix(prefix).partition(":")[0])
        with self._opened() as (file, _):
            lines = io.TextIOWrapper(file, encoding, newline="", errors="replace")
            line = open_quote_line(lines, self.options.delimiter, record)
        wrong = "has text after its closing quote" if "expected after" in text else "is never closed"
        return ImportFileError(
            f"{self.path}, line {line}: the quoted cell that begins here {wrong}; write a quote inside a quoted cell "
            'twice (""), and a cell with a quote, a delimiter or a line break in quotes'
        )

    def _json_lines(self, wanted: Callable[[str], bool]) -> Iterator[Chunk]:
        names: dict[str, None] = {}
        with self._opened() as (file, raw):
            numbered = enumerate(file, 1)
            while batch := list(islice(numbered, CHUNK_ROWS)):
                lines: list[int] = []
                rows: list[dict[str, msgspec.Raw]] = []
                for line, data in batch:
                    if text := data.strip().removeprefix(b"\xef\xbb\xbf"):
                        try:
                            row = _object_decoder.decode(text)
                            if (path := repeated_key(text, msgspec.json.encode(row))) is not None:
                                raise ValueError(f"{path or 'a key'} stands twice in the object")  # noqa: TRY301
                        except (ValueError, RecursionError) as error:
                            self._report.faulty(RowFault(line, f"not a JSON object: {error}"))
                            continue
                        names |= dict.fromkeys(row)
                        lines.append(line)
                        rows.append(row)
                self.header = list(names)
                kept = [name for name in names if wanted(name)]
                cells = {name: [_json_cell(row.get(name)) for row in rows] for name in kept}
                if rows:
                    arrays = {name: pa.array(some, pa.string()) for name, some in cells.items()}
                    yield Chunk(lines, arrays)
                self._report.progressed(raw.since())

    def _parquet(self, wanted: Callable[[str], bool]) -> Iterator[Chunk]:
        import pyarrow.parquet as pq

        with self._opened() as (_, raw), pq.ParquetFile(self.path) as file:
            self.header = header_names(file.schema_arrow.names, str(self.path))
            kept = [name for name in file.schema_arrow.names if wanted(name.strip())]
            begin = 1
            for batch in file.iter_batches(CHUNK_ROWS, columns=kept or file.schema_arrow.names[:1]):
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                yield Chunk(range(begin, begin + batch.num_rows), columns)
                begin += batch.num_rows
                self._report.progressed(raw.since())

    def _excel(self, wanted: Callable[[str], bool]) -> Iterator[Chunk]:
        import python_calamine

        with self._opened() as (file, raw):
            try:
                book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(file.read()))
                sheet_name = self.options.sheet or book.sheet_names[0]
                rows = iter(book.get_sheet_by_name(sheet_name).to_python(skip_empty_area=False))
            except (python_calamine.CalamineError, python_calamine.WorksheetNotFound, IndexError) as error:
                raise ImportFileError(
                    f"{self.path} is not a readable Excel file, or has no such sheet: {error}"
                ) from None
            self._report.progressed(raw.since())
            header = [str(_excel_cell(cell) or "") for cell in next(rows, ())]
            if not any(header):
                raise ImportFileError(f"{self.path} is empty: the first row of {sheet_name!r} must name the columns")
            self.header = header_names(header, str(self.path))
            kept = [place for place, name in enumerate(self.header) if wanted(name)]
            numbered = enumerate(rows, 2)
            while batch := list(islice(numbered, CHUNK_ROWS)):
                filled = [(line, row) for line, row in batch if any(cell != "" for cell in row)]
                cells = {self.header[place]: [_excel_cell(row[place]) for _, row in filled] for place in kept}
                arrays = {name: pa.array(some, pa.string()) for name, some in cells.items()}
                if filled:
                    yield Chunk([line for line, _ in filled], arrays)


_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".xls": "xlsx",
    ".ods": "xlsx",
}


@contextmanager
def unpacked(packed: BinaryIO) -> Iterator[BinaryIO]:
    """Open the contents of a gzip file, which a thread unpacks ahead.

    Raises:
        EOFError, gzip.BadGzipFile, zlib.error: the file is damaged or cut short.

    """
    read_end, write_end = os.pipe()
    errors: list[Exception] = []

    def unpack() -> None:
        with open(write_end, "wb", buffering=0) as out, suppress(BrokenPipeError):  # noqa: PTH123 - a descriptor
            try:
                shutil.copyfileobj(gzip.GzipFile(fileobj=packed), out, 1 << 18)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                errors.append(error)

    thread = threading.Thread(target=unpack, daemon=True)
    thread.start()
    try:
        with open(read_end, "rb", buffering=1 << 18) as file:  # noqa: PTH123 - a descriptor
            yield file
    finally:
        thread.join()
        if errors:
            raise errors[0]  # rather than the fault that a reader finds at the end of a file that was cut short


class _Hashed(io.FileIO):
    """A file that hashes the bytes read from it, for the identity of a run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.sha256 = hashlib.sha256()
        self._read = self._reported = 0

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Read bytes and add them to the hash."""
        count = super().readinto(buffer)
        self.sha256.update(memoryview(buffer)[:count])
        self._read += count
        return count

    def since(self) -> int:
        """Return the bytes read since the last call."""
        since, self._reported = self._read - self._reported, self._read
        return since

    def seekable(self) -> bool:
        """Return false, so that every byte is read once and in order."""
        return False


def read_chunks(file: SourceFile, wanted: Callable[[str], bool], undo: Callable[[], None]) -> Iterator[Chunk]:
    """Yield a file's rows; a file that is not UTF-8 is read again as Windows-1252, after ``undo``.

    Raises:
        ImportFileError: the file cannot be read.

    """
    try:
        yield from file.chunks(wanted)
    except _WrongEncodingError:
        undo()
        file.restart()
        file._report.warn(  # noqa: SLF001
            f"{file.path} is not UTF-8 and is read as Windows-1252 ({_FALLBACK}): say `encoding` in the mapping"
        )
        yield from file.chunks(wanted, _FALLBACK)


def _json_cell(value: msgspec.Raw | None) -> str | None:
    """Return a JSON value as text: a string without its quotes, null as None, other values as they stand."""
    if value is None:
        return None
    raw = bytes(value)
    if raw[:1] == b'"':
        return _text_decoder.decode(raw)
    return None if raw == b"null" else raw.decode()


def _excel_cell(value: object) -> str | None:
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


_EXACT = 1e15
