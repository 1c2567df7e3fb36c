"""Import of history: CSV files become events by a column mapping."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.document_file import DocumentFileError, read_document_file
from app.importing.mapping import ColumnMapping, build_mapping
from app.importing.mapping_parts import Group, MappingError, RowContext, ValueProblem
from app.publisher import Outcome, Outgoing
from consumers.intake.validation import Rejection
from domain.serialization import encode
from ledger.store.cloudevents import encode_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from app.document_file import DocumentFile
    from app.importing.mapping import Emission
    from app.importing.mapping_parts import Row


class ImportFileError(ValueError):
    """A file that does not fit the mapping; the message names file, line and remedy."""


def load_mapping(name: str) -> ColumnMapping:
    """Return a mapping from a YAML file, or a shipped mapping by its name.

    Raises:
        MappingError: no such file, not YAML, or not a mapping.

    """
    path = Path(name)
    if not path.exists():
        shipped = Path(str(resources.files("config") / "mappings"))
        path = shipped / f"{Path(name).stem}.yaml"
        if not path.exists():
            names = ", ".join(sorted(found.stem for found in shipped.glob("*.yaml")))
            raise MappingError(f"no mapping {name}: give a YAML file, or the name of a shipped mapping ({names})")
    try:
        file = read_document_file(path)
    except DocumentFileError as error:
        raise MappingError(f"{path}: {error}") from None
    try:
        return build_mapping(file.document)
    except MappingError as error:
        line, column = _place_of(file, str(error))
        raise MappingError(f"{path}: line {line}, column {column}: {error}") from None


def _place_of(file: DocumentFile, message: str) -> tuple[int, int]:
    """Return the place of the part at the start of a message, e.g. ``events[0].data.total: ...``."""
    found: tuple[int, int, int] = (0, 1, 1)
    for path, place in file.places.items():
        part = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path).removeprefix(".")
        if message.startswith((f"{part}:", f"{part}.", f"{part}[")):
            found = max(found, (len(part), *place))
    return found[1:]


def import_events(
    mapping: ColumnMapping, paths: Sequence[Path], outcome: Outcome, progressed: Callable[[int], None]
) -> Iterator[Outgoing]:
    """Yield the events of these files; grouped rows are sorted by event time.

    Rows that are read or make no event are counted with their reasons. A value that cannot be read is a rejection.
    """
    for path in paths:
        rows = _rows(mapping, path, outcome, progressed)
        if mapping.group_by is None:
            for line, row in rows:
                group = Group([line], [row], {name: product(row) for name, product in mapping.sums.items()})
                yield from (event for _, event in _group_events(mapping, group, outcome))
        else:
            groups = _grouped(mapping, rows)
            made = [timed for group in groups for timed in _group_events(mapping, group, outcome)]
            made.sort(key=lambda timed: timed[0])
            yield from (event for _, event in made)


def _rows(
    mapping: ColumnMapping, path: Path, outcome: Outcome, progressed: Callable[[int], None]
) -> Iterator[tuple[int, Row]]:
    """Yield (line, row) of a CSV file with the columns that the mapping uses; report progress in bytes."""
    line = 0
    try:
        with path.open("rb") as raw:
            packed: Any = gzip.open(raw) if path.suffix == ".gz" else raw  # noqa: SIM115 - closed with `raw`
            text = io.TextIOWrapper(packed, encoding=mapping.encoding, newline="")
            reader = csv.reader(text, delimiter=mapping.delimiter)
            header = next(reader, None)
            if header is None:
                raise ImportFileError(f"{path} is empty")
            places = _places(mapping, header, path)
            reported = 0
            for line, cells in enumerate(reader, 2):
                outcome.read += 1
                if len(cells) < len(header):
                    outcome.skipped["too few columns"] += 1
                    continue
                yield line, {name: cells[place] for name, place in places}
                if line % 5000 == 0:
                    at = raw.tell()
                    progressed(at - reported)
                    reported = at
            progressed(raw.tell() - reported)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImportFileError(f"{path} is damaged or cut short after line {line}: {error}; fetch it again") from None
    except (UnicodeDecodeError, csv.Error, LookupError) as error:
        message = f"{path}, after line {line}: {error}; is the mapping's encoding or delimiter right?"
        raise ImportFileError(message) from None


def _places(mapping: ColumnMapping, header: Sequence[str], path: Path) -> list[tuple[str, int]]:
    names = [name.removeprefix("\ufeff") for name in header]
    for column in mapping.columns:
        if column not in names:
            raise ImportFileError(f"{path} has no column {column!r}, which the mapping uses; it has {', '.join(names)}")
    return [(column, names.index(column)) for column in mapping.columns]


def _grouped(mapping: ColumnMapping, rows: Iterator[tuple[int, Row]]) -> Iterator[Group]:
    """Yield groups in the order of their first rows; a mapping of groups keeps only the first row of each."""
    assert mapping.group_by is not None
    kept: dict[str, tuple[list[int], list[Row], dict[str, Decimal]]] = {}
    whole = mapping.each == "row"
    for line, row in rows:
        found = kept.get(row[mapping.group_by])
        if found is None:
            found = kept[row[mapping.group_by]] = ([line], [row], dict.fromkeys(mapping.sums, Decimal(0)))
        elif whole:
            found[0].append(line)
            found[1].append(row)
        for name, product in mapping.sums.items():
            try:
                found[2][name] += product(row)
            except ValueProblem:
                found[2][name] = Decimal("NaN")
    for lines, members, sums in kept.values():
        if mapping.order_by is not None:
            members.sort(key=lambda row: _order_key(row[mapping.order_by or ""]))
        yield Group(lines, members, sums)


def _order_key(text: str) -> tuple[int, float, str]:
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def _group_events(mapping: ColumnMapping, group: Group, outcome: Outcome) -> Iterator[tuple[datetime, Outgoing]]:
    if any(total.is_nan() for total in group.sums.values()):
        outcome.reject(group.line, "", Rejection("invalid", "sums", "a factor of the sum is not a number"))
        return
    contexts = [RowContext(group, number) for number in range(len(group.rows))]
    if mapping.only_with is not None and not any(mapping.only_with(context) for context in contexts):
        outcome.skipped[mapping.only_with_reason] += 1
        return
    done: set[int] = set()
    for context in contexts:
        skip = next((skip for skip in mapping.skips if skip.when(context)), None)
        if skip is not None:
            outcome.skipped[skip.reason] += 1
            continue
        made = False
        for number, emission in enumerate(mapping.emissions):
            if (emission.once and number in done) or not emission.when(context):
                continue
            done.add(number)
            made = True
            try:
                yield _event(mapping, emission, context)
            except ValueProblem as problem:
                outcome.reject(context.line, "", Rejection("invalid", problem.field, str(problem)))
        if not made:
            outcome.skipped["no event"] += 1


def _event(mapping: ColumnMapping, emission: Emission, context: RowContext) -> tuple[datetime, Outgoing]:
    identifier = str(emission.id(context))
    moment = emission.time(context)
    values: Mapping[str, Any] = {field: value(context) for field, value in emission.data.items()}
    data = {field: value for field, value in values.items() if value is not None}
    event = encode_event(mapping.source, identifier, emission.type, moment, encode(data), context.line)
    return moment, Outgoing(context.line, mapping.source, identifier, event)
