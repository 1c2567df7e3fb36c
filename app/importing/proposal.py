"""A proposed mapping for a file: a shipped one that fits the file's columns, else a commented skeleton."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from app.importing.csv_rows import ImportFileError
from app.importing.mapping import TableOptions, load_mapping, shipped_mappings, short_name
from app.importing.select_tree import names_in
from app.importing.source_files import FileReport, SourceFile, read_chunks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.importing.database import ImportDatabase

_SAMPLES, _SHOWN = 200, 40
_DELIMITERS = (",", ";", "\t", "|")
_TIMES = (
    (r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?", None),
    (r"\d\d/\d\d/\d{4} \d\d:\d\d", "%d/%m/%Y %H:%M"),
    (r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d", "%d/%m/%Y %H:%M:%S"),
    (r"\d\d\.\d\d\.\d{4} \d\d:\d\d", "%d.%m.%Y %H:%M"),
    (r"\d\d\.\d\d\.\d{4}", "%d.%m.%Y"),
    (r"\d\d/\d\d/\d{4}", "%d/%m/%Y"),
)
_AMOUNT = re.compile(r"(\d{1,3}([.,' ]\d{3})*|\d+)[.,]\d{2}", re.ASCII)
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)
_KEYWORDS = {"at", "order", "group", "select", "from", "to", "date", "time", "user", "table", "case", "end", "desc"}


class MappingProposal(NamedTuple):
    """A mapping's YAML, and the name of the shipped mapping that it is, or empty."""

    text: str
    shipped: str


class _Sample(NamedTuple):
    """The first rows of a file: its options, and the first cells of each column."""

    options: TableOptions
    cells: dict[str, list[str]]


def propose(path: Path, database: ImportDatabase) -> MappingProposal:
    """Return a mapping for a file.

    Raises:
        ImportFileError: the file cannot be read.

    """
    sample = _read(path)
    header = list(sample.cells)
    if not header:
        raise ImportFileError(f"{path} has no columns, so that no mapping can be proposed")
    name = _shipped_for(header, database)
    if name:
        return MappingProposal(shipped_mappings()[name].read_text(encoding="utf-8"), name)
    return MappingProposal(_skeleton(path, sample), "")


def _read(path: Path) -> _Sample:
    options = TableOptions("rows")
    if SourceFile(path, options, _SILENT).format == "csv":
        options = options._replace(delimiter=_delimiter_of(path))
    file = SourceFile(path, options, _SILENT)
    found: dict[str, list[str]] = {}
    for chunk in read_chunks(file, lambda _: True, found.clear):
        for name, array in chunk.columns.items():
            cells = (
                str(cell) for cell in array.slice(0, _SAMPLES).to_pylist() if cell is not None and str(cell).strip()
            )
            found.setdefault(name, []).extend(cells)
        break
    return _Sample(options, {name: found.get(name, []) for name in file.header})


_SILENT = FileReport(lambda _: None, lambda _: None, lambda _: None)


def _delimiter_of(path: Path) -> str:
    """Return the delimiter that gives the header the most columns."""
    best = ","
    for delimiter in _DELIMITERS:
        options = TableOptions("rows", delimiter=delimiter)
        file = SourceFile(path, options, _SILENT)
        try:
            next(iter(read_chunks(file, lambda _: True, lambda: None)), None)
        except ImportFileError:
            continue
        if len(file.header) > 1:
            return delimiter
    return best


def _shipped_for(header: Sequence[str], database: ImportDatabase) -> str:
    """Return the shipped mapping of one file that needs only these columns, the one that uses most of them."""
    own = {name.lower() for name in header}
    found: list[tuple[int, str]] = []
    for name in shipped_mappings():
        mapping = load_mapping(name)
        if len(mapping.tables) != 1:
            continue
        table = mapping.tables[0]
        statements = [database.parse(view.at, view.select, f"the view {view.name}") for view in mapping.views]
        statements += [database.parse(event.at, event.select, short_name(event.type)) for event in mapping.events]
        used = {column for one in statements for column in names_in(one.tree)} & own
        needed = {column.lower() for column in table.required}
        if needed and needed <= own:
            found.append((len(used), name))
    return max(found, default=(0, ""))[1]


def _skeleton(path: Path, sample: _Sample) -> str:
    """Return a mapping for purchases, with guesses for id, time, customer and amount, and every column as a comment."""
    columns = sample.cells
    time, form = _time_column(columns)
    amount = _named(columns, ("amount", "total", "price", "betrag", "sum", "value"), _AMOUNT)
    identifier = _named(columns, ("id", "no", "number", "nr", "order", "invoice"), None) or next(iter(columns))
    customer = _named(columns, ("customer", "client", "kunde", "user", "buyer"), None)
    decimal = "," if amount and any(re.search(r",\d\d$", cell) for cell in columns[amount]) else "."
    happened = f"try_strptime({_quoted(time)}, '{form}')" if form else _quoted(time)
    options = [] if sample.options.delimiter == "," else [f"delimiter: {sample.options.delimiter!r}"]
    if decimal == ",":
        options += ["decimal: ','", "thousands: '.'"]
    listed = "\n".join(f"#   {name}: {', '.join(_shown(cells))}" for name, cells in columns.items())
    selected = [f"{_quoted(identifier)} AS id", f"{happened} AS time", f"{_quoted(identifier)} AS order_id"]
    if customer:
        selected.append(f"{_quoted(customer)} AS customer_id    -- an e-mail address: email_hash({_quoted(customer)})")
    selected.append(f"{{'amount': {_quoted(amount or identifier)}, 'currency': 'GBP'}} AS total")
    lines = [f"{part},{note}" for part, note in (_split(one) for one in selected[:-1])] + [selected[-1]]
    body = "\n             ".join(lines)
    return f"""# A proposal for {path.name}: check each line that says CHECK. The columns, with their first values:
{listed}
source: my-shop                     # CHECK: the name of the system that these rows come from
time_zone: Europe/London            # CHECK: of times without a zone
files: {{rows: {{{", ".join(options)}}}}}
events:
  - type: purchase.completed        # CHECK: the type of fact (docs/integrate/fact-types.md)
    select: |                       # CHECK: the column behind each field, and the currency
      SELECT {body}
      FROM rows
"""  # noqa: S608 - a text to edit, not to run


def _split(part: str) -> tuple[str, str]:
    text, mark, note = part.partition("    --")
    return text, f"{mark}{note}" if mark else ""


def _time_column(columns: dict[str, list[str]]) -> tuple[str, str | None]:
    for name, cells in columns.items():
        for pattern, form in _TIMES:
            if cells and all(re.fullmatch(pattern, cell.strip(), re.ASCII) for cell in cells):
                return name, form
    return next(iter(columns)), None


def _named(columns: dict[str, list[str]], words: Sequence[str], pattern: re.Pattern[str] | None) -> str | None:
    """Return the first column with one of these words in its name, else the first with cells that match a pattern."""
    for word in words:
        for name in columns:
            if word in re.split(r"[^a-z]+", name.lower()):
                return name
    for name, cells in columns.items():
        if pattern is not None and cells and all(pattern.fullmatch(cell.strip()) for cell in cells):
            return name
    return None


def _shown(cells: Sequence[str]) -> list[str]:
    return [repr(cell[:_SHOWN]) for cell in dict.fromkeys(cells)][:3]


def _quoted(name: str) -> str:
    is_plain = _PLAIN_NAME.fullmatch(name.lower()) is not None and name.lower() not in _KEYWORDS
    return name if is_plain else '"' + name.replace('"', '""') + '"'
