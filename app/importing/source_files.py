"""Files of an import as chunks of rows with their lines: CSV, JSON Lines, Parquet and Excel."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import msgspec
import pyarrow as pa

from app.importing.csv_rows import (
    CHUNK_ROWS,
    MOST_CHARACTERS,
    CsvReader,
    ImportFileError,
    RowFault,
    header_names,
    open_quote_line,
)
from ledger.store.json_text import parse, repeated_key

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
_GZIP = b"\x1f\x8b"
_KINDS: dict[bytes, tuple[str, tuple[str, ...], str]] = {
    b"PAR1": ("a Parquet file", ("parquet",), "say `format: parquet` in the mapping"),
    b"PK\x03\x04": ("a workbook or a ZIP file", ("xlsx",), "say `format: xlsx` in the mapping, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old or encrypted workbook", ("xlsx",), "say `format: xlsx` in the mapping"),
}
"""The first bytes of formats: what they are, the formats that read them, and the remedy."""
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
        self._check_kind(form)
        readers = {"jsonl": self._json_lines, "parquet": self._parquet, "xlsx": self._excel}
        try:
            if form == "csv":
                yield from self._csv(wanted, encoding or self.options.encoding or self._detected())
            else:
                yield from readers[form](wanted)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ImportFileError(f"{self.path} is damaged or cut short: {error}; fetch it again") from None
        except (pa.ArrowException, OSError) as error:
            raise ImportFileError(f"{self.path} is not a readable {form} file: {error}") from None

    def _check_kind(self, form: str) -> None:
        """Reject a file whose first bytes are those of another format, such as a workbook that is named `.csv`."""
        with self.path.open("rb") as file:
            first = file.read(4)
        kind, forms, remedy = _KINDS.get(first, ("", (), ""))
        if form == "csv" and first.startswith(b"{"):
            kind, remedy = "JSON", "give its name the ending .jsonl, or say `format: jsonl` in the mapping"
        if first.startswith(_GZIP) and self.path.suffix != ".gz":
            kind, forms, remedy = "a gzip file", (), "give its name the ending .gz"
        if kind and form not in forms:
            raise ImportFileError(f"{self.path} is {kind}, and is read as {form}: {remedy}")

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
        if "limit" in text:
            wrong += f", or has more than {MOST_CHARACTERS:,} characters"
        return ImportFileError(
            f"{self.path}, line {line}: the quoted cell that begins here {wrong}; write a quote inside a quoted cell "
            'twice (""), and a cell with a quote, a delimiter or a line break in quotes'
        )

    def _json_lines(self, wanted: Callable[[str], bool]) -> Iterator[Chunk]:
        keys = _Keys(wanted)
        with self._opened() as (file, raw):
            numbered = enumerate(file, 1)
            while batch := list(islice(numbered, CHUNK_ROWS)):
                lines: list[int] = []
                rows: list[dict[str, str | None]] = []
                for line, data in batch:
                    if text := data.strip().removeprefix(b"\xef\xbb\xbf"):
                        try:
                            rows.append(keys.cells(text))
                        except (ValueError, RecursionError) as error:
                            self._report.faulty(RowFault(line, f"not a JSON object: {error}"))
                            continue
                        lines.append(line)
                self.header = keys.names
                if rows:
                    kept = [name for name in keys.names if wanted(name)]
                    yield Chunk(lines, {name: pa.array([row.get(name) for row in rows], pa.string()) for name in kept})
                self._report.progressed(raw.since())

    def _parquet(self, wanted: Callable[[str], bool]) -> Iterator[Chunk]:
        import pyarrow.parquet as pq

        with self._opened() as (_, raw), pq.ParquetFile(self.path) as file:
            stored = file.schema_arrow.names
            self.header = header_names(stored, str(self.path))
            kept = {old: name for old, name in zip(stored, self.header, strict=True) if wanted(name)}
            begin = 1
            for batch in file.iter_batches(CHUNK_ROWS, columns=list(kept) or stored[:1]):
                yield Chunk(range(begin, begin + batch.num_rows), _typed(batch, kept))
                begin += batch.num_rows
                self._report.progressed(raw.since())
            if begin == 1:
                yield Chunk(range(0), _typed(file.schema_arrow.empty_table(), kept))

    def _excel(self, wanted: Callable[[str], bool]) -> Iterator[Chunk]:
        from app.importing.excel_rows import ExcelReader

        with self._opened() as (file, raw):
            sheet = self.options.sheet
            reader = ExcelReader(file.read(), str(self.path), sheet, self._report.faulty, self._report.warn)
            self._report.progressed(raw.since())
            self.header = reader.header
            kept = [place for place, name in enumerate(reader.header) if wanted(name)]
            names = [reader.header[place] for place in kept or [0]]
            for lines, columns in reader.chunks(kept or [0]):
                yield Chunk(lines, dict(zip(names, columns, strict=True)))


_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".xls": "xlsx",
    ".ods": "xlsx",
}


class _Keys:
    """The keys of the objects of a file, as columns: case does not count in SQL, so the first spelling is the name."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._known: dict[str, str] = {}
        """The names of columns by each spelling of them."""
        self._by_lower: dict[str, str] = {}
        self._kept: set[str] = set()

    @property
    def names(self) -> list[str]:
        """The names so far."""
        return list(self._by_lower.values())

    def cells(self, text: bytes) -> dict[str, str | None]:
        """Return the values of the wanted keys of a JSON object as texts.

        Raises:
            ValueError, RecursionError: it is no JSON object in UTF-8, or a key stands twice in it.

        """
        if not text.isascii():
            text.decode()
        row = _object_decoder.decode(text)
        again = parse(text).canonical if text.count(b"{") > 1 else msgspec.json.encode(row)
        if (path := repeated_key(text, again)) is not None:
            raise ValueError(f"{path or 'a key'} stands twice in the object")
        if b"\\u0000" in text and any("\0" in key for key in row):
            raise ValueError("a key has a NUL")
        for key in row.keys() - self._known.keys():
            name = key.strip() or "column"
            name = self._known[key] = self._by_lower.setdefault(name.lower(), name)
            if self._wanted(name):
                self._kept.add(name)
        named = {self._known[key]: value for key, value in row.items()}
        if len(named) < len(row):
            raise ValueError(f"two of the keys {', '.join(row)} differ in their case alone, which does not count")
        return {name: _json_cell(value) for name, value in named.items() if name in self._kept}


def _typed(rows: pa.RecordBatch | pa.Table, kept: Mapping[str, str]) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Return the columns of rows by their new names; values of dictionaries stand for themselves."""
    found = {kept[name]: column for name, column in zip(rows.schema.names, rows.columns, strict=True) if name in kept}
    return {
        name: column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for name, column in found.items()
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
