"""A fenced DuckDB for one import: tables of the files, and the results of a mapping's SELECTs.

The statements of a mapping read the tables of the import and nothing else: no file, no network, no extension, no
setting. They have limits of memory and time. Rows that do not fit into memory are in a folder that is removed
afterwards.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from app.importing.csv_rows import ColumnError, ImportFileError
from app.importing.mapping import MappingError
from app.importing.select_tree import (
    Node,
    SelectRewriter,
    functions_of,
    names_in,
    outputs_of,
    walk,
)
from ledger.errors import MissingExtraError

try:
    import duckdb
    import pyarrow as pa
    from duckdb.func import PythonUDFType
except ImportError as error:
    raise MissingExtraError("Imports", "import") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from app.importing.mapping import TableOptions

LINE_BITS = 40
"""``_row`` is the file's number, shifted by these bits, plus the line."""
BATCH_ROWS = 5_000
_MOST_COLUMNS = 1_000
_INSERTED_ROWS = 30_000
_NUMBER_MACRO = r"""
CREATE MACRO _number(cell, decimal_sign, thousands_sign) AS CASE
  WHEN typeof(cell) <> 'VARCHAR' THEN CAST(cell AS VARCHAR)
  WHEN thousands_sign <> '' AND contains(CAST(cell AS VARCHAR), thousands_sign)
    AND NOT regexp_full_match(trim(CAST(cell AS VARCHAR)), '[+-]?[0-9]{1,3}(' || regexp_escape(thousands_sign)
      || '[0-9]{3})+(' || regexp_escape(decimal_sign) || '[0-9]*)?')
    OR regexp_matches(CAST(cell AS VARCHAR), '[_xXbB]')
    OR '.' NOT IN (decimal_sign, thousands_sign) AND contains(CAST(cell AS VARCHAR), '.')
    THEN '?' || CAST(cell AS VARCHAR)
  WHEN decimal_sign <> '.' OR thousands_sign <> ''
    THEN replace(replace(CAST(cell AS VARCHAR), thousands_sign, ''), decimal_sign, '.')
  ELSE CAST(cell AS VARCHAR) END
"""
"""A cell's number with a point, or a text that no cast accepts. DuckDB alone reads `1_000`, `0x1F` and `0b11`, too."""
_WHOLE_NUMBER_MACRO = r"""
CREATE MACRO _whole_number(cell, number) AS CASE
  WHEN typeof(cell) = 'VARCHAR' AND regexp_matches(number, '[.eE]')
    AND (regexp_matches(number, '\.[0-9]*[1-9][0-9]*\s*$') OR coalesce(TRY_CAST(number AS DOUBLE) % 1 <> 0, false))
    THEN '?' || number
  ELSE number END
"""
"""The number of a cell, or a text that no cast accepts if it is not whole. DuckDB alone rounds `1.5`."""
_TIME_ZONES = "SELECT lower(name) FROM pg_timezone_names()"
_TIME_ZONE_MACRO = """
CREATE OR REPLACE MACRO _time_zone(name) AS CASE
  WHEN name IS NULL OR list_contains({names}, lower(name)) THEN name
  ELSE CAST(CAST('no time zone: ' || name AS INTEGER) AS VARCHAR) END
"""
"""A time zone's name, or an error that TRY catches; it catches neither that of an unknown zone nor `error()`."""
_NO_TIME_ZONE = re.compile(r"Could not convert string '(no time zone: .*)' to INT32")
_TABLE_FUNCTIONS = ("generate_series", "json_each", "json_tree", "range", "repeat_row", "unnest")
"""Functions in a FROM that make rows of their arguments alone; others read files, or the state of the database."""
_STATEMENT_WORDS = {
    "LOAD": "INSTALL or LOAD",
    "TRANSACTION": "BEGIN or COMMIT",
    "MERGE_INTO": "MERGE",
    "MULTI": "PIVOT without a list of values",
}
"""The words that statements begin with, where DuckDB's name of their kind is another one."""
_OWN_COLUMNS = {"_bad", "_file", "_line", "_row"}
"""The columns that each table has beside those of its files."""
_SHOWN = 300
_CLOCKS = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
_SPARE_MEGABYTES = 512
"""Memory beside the limit for values that DuckDB does not count, such as long texts and lists."""


class TextColumn(NamedTuple):
    """A table's column of text cells."""

    table: str
    name: str


class Statement(NamedTuple):
    """A checked SELECT: its part of the mapping, its text and its tree."""

    at: str
    text: str
    tree: Node

    @property
    def node(self) -> Node:
        """The root of the SELECT."""
        root: Node = self.tree["statements"][0]["node"]
        return root

    @property
    def outputs(self) -> dict[str, list[str]]:
        """The source columns of each result column."""
        return outputs_of(self.node)


class Fence(NamedTuple):
    """The limits of a mapping's statements."""

    memory_mb: int = 192
    seconds: float = 600.0


class ImportDatabase:
    """An in-memory database with its overflow in ``folder``; ``hash_of`` computes the keyed hash of a text."""

    def __init__(self, folder: Path, hash_of: Callable[[str], str], fence: Fence) -> None:
        self._fence = fence
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{fence.memory_mb}MB",
                "temp_directory": str(folder / "overflow"),
                "threads": 1,  # the same order of rows in every run
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "python_enable_replacements": False,
            },
        )
        self._add_functions(hash_of)
        self._rows("SET TimeZone = 'UTC'")
        self._rows("SET enable_progress_bar = false")  # it would be in the midst of the command's own output
        self._rows("SET disabled_optimizers = 'common_subexpressions'")  # it takes a failing part out of its TRY
        self._rows("SET enable_external_access = false")
        self._rows("SET lock_configuration = true")
        functions = self._rows(
            "SELECT function_name, bool_or(function_type = 'aggregate'), bool_and(coalesce(stability <> 'CONSISTENT', "
            "macro_definition LIKE '%current_%')) FROM duckdb_functions() GROUP BY 1"
        )
        self._aggregates = frozenset(str(name) for name, is_aggregate, _ in functions if is_aggregate)
        self._unstable = frozenset(str(name) for name, _, is_unstable in functions if is_unstable)
        numbers = self._rows(
            "SELECT DISTINCT lower(type_name), logical_type NOT IN ('DECIMAL', 'DOUBLE', 'FLOAT') FROM duckdb_types() "
            "WHERE type_category = 'NUMERIC' OR logical_type = 'BIGNUM'"
        )
        self._number_types = {str(name): bool(is_whole) for name, is_whole in numbers}
        self._text_columns: dict[str, tuple[str, str]] = {}
        self._inserter = ThreadPoolExecutor(1)
        self.files: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._inserter.shutdown()
        self._connection.close()

    def _add_functions(self, hash_of: Callable[[str], str]) -> None:
        """Add the functions that mappings may call beside DuckDB's own."""

        def hashed(texts: Any) -> Any:
            values = (None if text is None else hash_of(text) for text in texts.to_pylist())
            return pa.array(values, pa.string())

        self._connection.create_function("keyed_hash", hashed, ["VARCHAR"], "VARCHAR", type=PythonUDFType.ARROW)
        self._rows(_NUMBER_MACRO)
        self._rows(_WHOLE_NUMBER_MACRO)
        self._rows("CREATE MACRO email_hash(address) AS keyed_hash(lower(trim(nfc_normalize(address))))")

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Return all rows of a statement; a result that is not read to its end would block the connection."""
        return rows_of(self._connection, sql, parameters)

    # ------------------------------------------------------------------ statements

    def parse(self, at: str, text: str, made: str) -> Statement:
        """Return a SELECT of a mapping; ``made`` names what its rows are, such as ``purchase.returned``.

        Raises:
            MappingError: it is not one SELECT, or its result would differ from run to run.

        """
        tree = json.loads(str(self._rows("SELECT json_serialize_sql(?)", [text.strip().rstrip(";")])[0][0]))
        if tree["error"]:
            if kind := self._other_kind(text):
                raise MappingError(
                    f"{at}: {kind} is not allowed for {made}: one SELECT is expected, which reads the files of the "
                    f"import and changes nothing; remove {kind}, and give other data as files "
                    f"(DuckDB: {tree['error_message']})"
                )
            raise MappingError(f"{at}: {tree['error_message']}")
        if len(tree["statements"]) != 1:
            number = len(tree["statements"])
            raise MappingError(f"{at}: one SELECT is expected for {made}, not {number}; UNION ALL joins several")
        if unstable := functions_of(tree) & self._unstable:
            raise MappingError(f"{at}: {min(unstable)}() gives another result in each run, which no import may have")
        return Statement(at, text, tree)

    def _other_kind(self, text: str) -> str:
        """Return the kind of the first statement that is no SELECT, such as ``ATTACH``; empty if all are SELECTs."""
        try:
            kinds = [statement.type for statement in self._connection.extract_statements(text)]
        except duckdb.Error:
            return ""  # a syntax error
        other = next((kind for kind in kinds if kind != duckdb.StatementType.SELECT), None)
        return "" if other is None else _STATEMENT_WORDS.get(other.name, other.name)

    def rewriter(self, *, careful: bool) -> SelectRewriter:
        """Return a rewriter for statements over the loaded tables."""
        if careful:
            self._rows(_TIME_ZONE_MACRO.format(names=[str(row[0]) for row in self._rows(_TIME_ZONES)]))
        return SelectRewriter(
            self._expression, self._aggregates, self._text_columns, self._number_types, careful=careful
        )

    def _expression(self, text: str) -> Node:
        serialized = str(self._rows("SELECT json_serialize_sql(?)", [f"SELECT {text}"])[0][0])
        expression: Node = json.loads(serialized)["statements"][0]["node"]["select_list"][0]
        return expression

    def text_of(self, tree: Node) -> str:
        """Return a statement's tree as SQL."""
        return str(self._rows("SELECT json_deserialize_sql(?)", [json.dumps(tree)])[0][0])

    def expression_text(self, node: Node) -> str:
        """Return the SQL of an expression."""
        tree = json.loads(json.dumps(_EMPTY_SELECT))
        tree["statements"][0]["node"]["select_list"] = [node | {"alias": ""}]
        return self.text_of(tree).removeprefix("SELECT ")

    # ------------------------------------------------------------------ tables

    def create_table(self, options: TableOptions) -> TableWriter:
        """Return a writer of a new table."""
        return TableWriter(self._connection, self._inserter, options, self._text_columns, self.files)

    def finish_table(self, writer: TableWriter, optional: Sequence[str]) -> None:
        """Make a loaded table visible under its name, with ``_file``, ``_line``, ``_row`` and ``_bad``."""
        parts = [_quoted(name) for name in writer.columns]
        parts += [f"CAST(NULL AS VARCHAR) AS {_quoted(name)}" for name in writer.without_values(optional)]
        names = " ".join(f"WHEN {number} THEN {_text(name)}" for number, name in enumerate(self.files))
        parts += [f"CASE _row >> {LINE_BITS} {names} END AS _file", f"_row & {(1 << LINE_BITS) - 1} AS _line"]
        parts += ["_row", "CAST(NULL AS BIGINT) AS _bad"]
        self._rows(
            f"CREATE VIEW {_quoted(writer.name)} AS SELECT {', '.join(parts)} FROM {_quoted(writer.stored_name)}"  # noqa: S608
        )

    def finish_view(self, name: str) -> None:
        """Take note of the texts of a stored view, whose numbers have a point unless a file has the same column."""
        for column, kind in self.described(f"SELECT * FROM {_quoted(name)}"):  # noqa: S608
            if kind == "VARCHAR":
                self._text_columns.setdefault(column.lower(), (".", ""))

    def cells(self, relations: Sequence[str], row: int, columns: Sequence[str]) -> dict[str, object]:
        """Return the cells of a row of the files as texts, by column, as far as a table or a view has them."""
        wanted = {one.lower() for one in columns}
        found: dict[str, tuple[str, object]] = {}
        for relation in relations:
            try:
                names = [name for name, _ in self.described(f"SELECT * FROM {_quoted(relation)}")]  # noqa: S608
                rows = self.run(f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM {_quoted(relation)} WHERE _row = ?", [row])  # noqa: S608
            except duckdb.Error:
                continue
            for name, *cells in zip(names, *rows, strict=True):
                if name.lower() in wanted and len(set(cells)) == 1:  # a view may have several rows of one row of a file
                    found.setdefault(name.lower(), (name, cells[0]))
        return dict(found[one.lower()] for one in columns if one.lower() in found)

    def error_of(self, expression: Node, relations: Sequence[str], row: int) -> str | None:
        """Return the error that an expression has in a row of the files, or ``None``."""
        text = self.expression_text(expression)
        for relation in relations:
            try:
                query = f"SELECT {text} FROM {_quoted(relation)} WHERE _row = ?"  # noqa: S608
                found = self.run(query, [row])
            except (duckdb.BinderException, duckdb.CatalogException):
                continue
            except duckdb.Error as error:
                return first_line(error)
            if found and found[0][0] is None:
                return f"not readable as {_type_of(expression)}, so that a condition is undecided"
        return None

    # ------------------------------------------------------------------ results

    def run(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Return the rows of a statement that runs within the limits.

        Raises:
            duckdb.Error: the statement is wrong, or a value cannot be read.
            ImportFileError: it takes too long or too much memory.

        """
        with self._limited():
            return self._rows(sql, parameters)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        timer = threading.Timer(self._fence.seconds, self._connection.interrupt)
        timer.start()
        try:
            with _allocating_at_most((2 * self._fence.memory_mb + _SPARE_MEGABYTES) << 20):
                yield
        except duckdb.InterruptException:
            message = f"a SELECT took longer than {self._fence.seconds:.0f} seconds: simplify it, or raise --time-limit"
            raise ImportFileError(message) from None
        except (duckdb.OutOfMemoryException, MemoryError) as error:
            message = f"a SELECT needs more memory than it may use: raise --memory ({first_line(error)})"
            raise ImportFileError(message) from None
        finally:
            timer.cancel()

    def batches(self, sql: str) -> Iterator[list[tuple[object, ...]]]:
        """Yield the rows of a query in batches, with a cursor of its own."""
        cursor = self._connection.cursor()
        try:
            found = cursor.execute(sql)
            while batch := found.fetchmany(BATCH_ROWS):
                yield batch
        except duckdb.Error as error:
            raise ImportFileError(f"a result cannot be read: {first_line(error)}; cast it to text") from None
        finally:
            cursor.close()

    def insert(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table."""
        self._connection.register("_chunk", rows)
        try:
            self._rows(f"INSERT INTO {table} SELECT * FROM _chunk")  # noqa: S608
        finally:
            self._connection.unregister("_chunk")

    def present(self, table: str, ids: Sequence[str]) -> list[str]:
        """Return those of these ids that a table has."""
        sql = f"SELECT DISTINCT CAST(id AS VARCHAR) FROM {table} WHERE CAST(id AS VARCHAR) IN (SELECT unnest(?))"  # noqa: S608
        return [str(row[0]) for row in self._rows(sql, [list(ids)])]

    def lookup(self, table: str, ids: Sequence[str]) -> dict[str, str]:
        """Return the contents of these ids in a table."""
        sql = f"SELECT id, content FROM {table} WHERE id IN (SELECT unnest(?))"  # noqa: S608
        return {str(row[0]): str(row[1]) for row in self._rows(sql, [list(ids)])}

    def described(self, sql: str) -> list[tuple[str, str]]:
        """Return name and type of each column of a query."""
        return [(str(row[0]), str(row[1])) for row in self.run(f"DESCRIBE {sql}")]

    def missing_column(self, error: duckdb.Error, at: str, headers: Mapping[str, Sequence[str]]) -> MappingError:
        """Return the error of a SELECT that cannot be bound, with the columns that the files have."""
        tables = "; ".join(f"{name} has {', '.join(header)}" for name, header in headers.items())
        return ColumnError(f"{at}: {first_line(error)}; {tables}")


class TableWriter:
    """Appends rows of files to a table."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        inserter: ThreadPoolExecutor,
        options: TableOptions,
        texts: dict[str, tuple[str, str]],
        files: Sequence[str],
    ) -> None:
        self.name, self.stored_name = options.name, f"_rows_{options.name}"
        self.columns: dict[str, str] = {}
        self._connection, self._inserter, self._texts, self._files = connection, inserter, texts, files
        self._inserted: Future[None] | None = None
        self._spelling: dict[str, str] = {}
        """The names of columns as they were first read, by their names in lower case."""
        self._signs, self._blank = (options.decimal, options.thousands), options.blank
        self._exists = False
        self._schema: pa.Schema | None = None
        """The columns of the rows that were inserted last."""
        self._waiting: list[pa.Table] = []
        self._file = 0
        """The number of the file whose rows wait."""
        self._count = 0

    def append(self, lines: Sequence[int], columns: Mapping[str, pa.Array | pa.ChunkedArray], file: int) -> None:
        """Append rows of a file; a column that is new is NULL in earlier rows.

        Raises:
            ImportFileError: a column has a name of the import's own.

        """
        numbers = np.arange(lines.start, lines.stop) if isinstance(lines, range) else np.array(lines, np.int64)
        arrays = {self._named(name, file): array for name, array in columns.items() if not pa.types.is_null(array.type)}
        table = pa.table({**arrays, "_row": numbers + (file << LINE_BITS)})
        if self._waiting and (file != self._file or self._waiting[0].schema != table.schema):
            self.flush()
        self._file = file
        self._waiting.append(table)
        self._count += len(table)
        if self._count >= _INSERTED_ROWS:
            self.flush()

    def _named(self, column: str, file: int) -> str:
        """Return a column's name as it was first read, since case does not count in SQL."""
        if column.lower() in _OWN_COLUMNS:
            raise ImportFileError(f"{self._files[file]}: each table has a {column} of its own: rename the column")
        return self._spelling.setdefault(column.lower(), column)

    def flush(self) -> None:
        """Insert the rows that wait, in another thread: the next rows are read meanwhile."""
        tables, self._waiting, self._count = self._waiting, [], 0
        self.settle()
        if tables:
            self._inserted = self._inserter.submit(self._insert, pa.concat_tables(tables), self._files[self._file])

    def settle(self) -> None:
        """Wait until the rows of the last ``flush`` are inserted.

        Raises:
            ImportFileError: a column has another type than in an earlier file, or a value cannot be stored.

        """
        inserted, self._inserted = self._inserted, None
        if inserted is not None:
            inserted.result()

    def _insert(self, table: pa.Table, file: str) -> None:
        names = table.schema.names
        try:
            self._connection.register("_chunk", table)
            if table.schema != self._schema:
                self._fit(names[:-1], file)
                self._schema = table.schema
            listed = ", ".join(_quoted(name) for name in names)
            cells = ", ".join(
                _without_blanks(name, self._blank) if self.columns.get(name) == "VARCHAR" else _quoted(name)
                for name in names
            )
            rows_of(self._connection, f"INSERT INTO {_quoted(self.stored_name)} ({listed}) SELECT {cells} FROM _chunk")  # noqa: S608
        except (duckdb.Error, pa.ArrowException) as error:
            raise ImportFileError(f"{file}: rows cannot be stored: {first_line(error)}") from None
        finally:
            self._connection.unregister("_chunk")

    def _fit(self, names: Sequence[str], file: str) -> None:
        """Add the columns that are new; a column has one type in all files of the table."""
        types = {str(row[0]): str(row[1]) for row in rows_of(self._connection, "DESCRIBE _chunk")}
        new = [name for name in names if name not in self.columns]
        self.columns |= {name: types[name] for name in new}
        if len(self.columns) > _MOST_COLUMNS:
            raise ImportFileError(f"{file}: a table has at most {_MOST_COLUMNS:,} columns: name those that are needed")
        self._texts.update({name.lower(): self._signs for name in new if types[name] == "VARCHAR"})
        if not self._exists:
            self._exists = True
            listed = ", ".join(f"{_quoted(name)} {types[name]}" for name in (*new, "_row"))
            rows_of(self._connection, f"CREATE TABLE {_quoted(self.stored_name)} ({listed})")
            return
        for name in new:
            sql = f"ALTER TABLE {_quoted(self.stored_name)} ADD COLUMN {_quoted(name)} {types[name]}"
            rows_of(self._connection, sql)
        for name in names:
            if self.columns[name] != (kind := types[name]):
                raise ImportFileError(
                    f"{file}: column {name!r} is {kind}, and {self.columns[name]} in an earlier file of the table "
                    f"{self.name}: give each file a table of its own in `files`; UNION ALL joins them"
                )

    def finish(self, header: Sequence[str], wanted: Callable[[str], bool], file: int) -> None:
        """Insert the rows that wait, and take note of the columns of a file, which may have no rows."""
        self.flush()
        self.settle()
        rows_of(self._connection, f"CREATE TABLE IF NOT EXISTS {_quoted(self.stored_name)} (_row BIGINT)")
        for name in filter(wanted, header):
            self._named(name, file)

    def without_values(self, optional: Sequence[str]) -> list[str]:
        """Return the columns of the files, and the optional ones, that no row has a value of."""
        own = {name.lower() for name in self.columns}
        names = self._spelling | {name.lower(): name for name in optional if name.lower() not in self._spelling}
        missing = [name for lower, name in names.items() if lower not in own]
        self._texts.update({name.lower(): self._signs for name in missing})
        return missing

    def undo(self, file: int) -> None:
        """Delete the rows of a file that is read again."""
        self.flush()
        self.settle()
        if self._exists:
            rows_of(
                self._connection,
                f"DELETE FROM {_quoted(self.stored_name)} WHERE _row >= ?",  # noqa: S608
                [file << LINE_BITS],
            )


_EMPTY_SELECT: Node = {
    "error": False,
    "statements": [
        {
            "node": {
                "type": "SELECT_NODE",
                "modifiers": [],
                "cte_map": {"map": []},
                "select_list": [],
                "from_table": {"type": "EMPTY", "alias": "", "sample": None},
                "where_clause": None,
                "group_expressions": [],
                "group_sets": [],
                "aggregate_handling": "STANDARD_HANDLING",
                "having": None,
                "sample": None,
                "qualify": None,
            },
            "named_param_map": [],
        }
    ],
}


def rows_of(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()
) -> list[tuple[object, ...]]:
    """Return all rows of a statement."""
    rows: list[tuple[object, ...]] = connection.execute(sql, list(parameters)).fetchall()
    return rows


@contextmanager
def _allocating_at_most(more: int) -> Iterator[None]:
    """Bound the memory of this process to ``more`` bytes beyond those that it has; only Linux can.

    DuckDB's own limit counts neither long texts nor lists: `len(range(2000000000))` takes 20 GB.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii")
    taken = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) << 10
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [one for one in (taken + more, before, most) if one != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def _type_of(expression: Node) -> str:
    return str((expression.get("type_expr") or {}).get("type_name", "a time"))


def first_line(error: Exception) -> str:
    """Return the first line of a DuckDB error, without its kind; a long one is cut short."""
    text = str(error).partition("\n")[0].partition(": ")[2].strip() or str(error)
    text = _NO_TIME_ZONE.sub(r"\1, such as Europe/London", text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _without_blanks(column: str, blank: Sequence[str]) -> str:
    """Return an expression for the cells of a column, with NULL for blank ones; most cells need no trimming."""
    name, blanks = _quoted(column), ", ".join(_text(one) for one in blank)
    ends = f"{name} < '!' OR {name} > '~'" + (f" OR right({name}, 1) < '!'" if len(blank) > 1 else "")
    return (
        f"CASE WHEN {name} IN ({blanks}) THEN NULL "
        f"WHEN ({ends}) AND trim({name}, {_text(_WHITE_SPACE)}) IN ({blanks}) THEN NULL ELSE {name} END"
    )


_WHITE_SPACE = "".join(filter(str.isspace, map(chr, range(0x3001))))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def check_tables(statement: Statement, tables: Sequence[str]) -> None:
    """Reject a SELECT that reads anything but the tables of the import, such as DuckDB's own.

    Raises:
        MappingError: with the tables that there are.

    """
    known = {table.lower() for table in tables} | {entry["key"].lower() for entry in _cte_entries(statement.tree)}
    for node in walk(statement.tree):
        kind = node.get("type")
        if kind == "BASE_TABLE" and (node["schema_name"] or node["table_name"].lower() not in known):
            name = ".".join(part for part in (node["schema_name"], node["table_name"]) if part)
            raise MappingError(f"{statement.at}: there is no table {name}; the files are {', '.join(tables)}")
        if kind == "TABLE_FUNCTION" and (name := node["function"]["function_name"].lower()) not in _TABLE_FUNCTIONS:
            raise MappingError(f"{statement.at}: {name}() in a FROM reads something else than the files")
        if node.get("class") == "POSITIONAL_REFERENCE":
            raise MappingError(f"{statement.at}: #{node['index']} names no column: write its name")
        if node.get("sample"):
            raise MappingError(f"{statement.at}: a sample has other rows in each run, which no import may have")
        if kind == "SHOW_REF":
            raise MappingError(f"{statement.at}: DESCRIBE, SHOW and SUMMARIZE give no rows of the files")


def check_clock(statement: Statement, columns: Collection[str]) -> None:
    """Reject a SELECT that reads the clock by a name without parentheses, unless a file has such a column.

    Raises:
        MappingError: it does.

    """
    own = {column.lower() for column in columns}
    if found := sorted(_CLOCKS & names_in(statement.tree) - own):
        raise MappingError(f"{statement.at}: {found[0]} gives another result in each run, which no import may have")


def _cte_entries(tree: Node) -> list[Node]:
    return [entry for node in walk(tree) for entry in (node.get("cte_map") or {}).get("map", ())]
