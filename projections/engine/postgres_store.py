"""Views in PostgreSQL: one schema for each generation, and the schema ``ledger`` with SQL views of the live ones.

The schema ``ledger`` is for other tools: it has a view ``<view>_<table>`` for each table, which the role
``ledger_reader`` may read. It changes in the transaction that makes a generation live.
"""

from __future__ import annotations

import logging
import re
import threading
from contextlib import closing, contextmanager
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg.conninfo
import sqlalchemy as sa
from psycopg.adapt import Loader
from psycopg.errors import InvalidSchemaName, UndefinedTable
from sqlalchemy.exc import OperationalError

from ledger.errors import LedgerError, UnavailableError
from projections.engine.corrections import corrections_metadata
from projections.engine.storage import DRIVER, INTERNAL, READ_PROGRESS, names_of, progress_in, progress_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from psycopg.abc import Buffer

    from projections.engine.projection import Projection
    from projections.engine.storage import PreparedInsert, Progress

_log = logging.getLogger(__name__)
READER = "ledger_reader"
"""The role that may read the schema ``ledger``."""
_PORT = 5432
_LOCKS = 0x1ED6E5
"""The first number of the ledger's advisory locks; the second one is of a view."""
_FEW_ROWS = 50
"""Fewer rows are inserted one by one, in one round trip; more are copied."""
_CONNECT_SECONDS, _LOCK_SECONDS = 5, 10
_NAME_LENGTH = 63
"""PostgreSQL cuts longer names."""
_TEMPORARY = (psycopg.OperationalError, psycopg.InterfaceError, UndefinedTable, InvalidSchemaName)
"""Failures that pass: the server was away, or another generation has become the live one."""
_PLACEHOLDER = re.compile(r"""'[^']*'|"[^"]*"|::|%|\?|:(\w+)""")
_CONTROL = f"""
SELECT pg_advisory_xact_lock({_LOCKS}, 0);
CREATE SCHEMA IF NOT EXISTS ledger;
CREATE TABLE IF NOT EXISTS ledger.generations
    (view text PRIMARY KEY, version bigint NOT NULL, generation bigint NOT NULL);
COMMENT ON TABLE ledger.generations IS 'The live generation of each view.';
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN CREATE ROLE {READER}; END IF;
    GRANT USAGE ON SCHEMA ledger TO {READER};
    GRANT SELECT ON ledger.generations TO {READER};
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN NULL; END $$;
"""  # noqa: S608 - names of ours
"""Creates what all views share; a user that may not create roles leaves that to an operator."""


class _WholeLoader(Loader):
    """Loads sums of whole numbers, which PostgreSQL returns as `numeric`."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


@cache
def _translated(text: str) -> str:
    """Return a statement with psycopg's placeholders instead of ``?`` and ``:name``."""

    def change(found: re.Match[str]) -> str:
        whole, name = found[0], found[1]
        if name is not None:
            return f"%({name})s"
        return "%s" if whole == "?" else whole.replace("%", "%%")

    return _PLACEHOLDER.sub(change, text)


class PostgresDriver:
    """A connection of the driver (see ``projections.engine.storage.Driver``)."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._loads: set[str] = set()
        """The temporary tables that rows are copied to."""

    def execute(self, text: str, values: Sequence[object] | Mapping[str, object] = (), /) -> psycopg.Cursor[Any]:
        """Run a statement."""
        try:
            return self._connection.execute(_translated(text).encode(), values)
        except _TEMPORARY as error:
            raise OperationalError(text, None, error) from error

    def executemany(self, text: str, values: Sequence[Sequence[object]], /) -> None:
        """Run a statement that returns nothing for each of these values."""
        try:
            with self._connection.cursor() as cursor:
                cursor.executemany(_translated(text).encode(), values)
        except _TEMPORARY as error:
            raise OperationalError(text, None, error) from error

    def insert(self, into: PreparedInsert, rows: Sequence[tuple[object, ...]], /, *, are_new: bool = False) -> None:
        """Insert rows, each as its values; a row replaces another one with the same key."""
        if "\0" in "".join([value for row in rows for value in row if value.__class__ is str]):
            rows = [tuple(_without_nul(value) for value in row) for row in rows]
        if len(rows) < _FEW_ROWS:
            self.executemany(into.text, rows)
            return
        try:
            if are_new:
                self._copy(into.table, names_of(into.columns), rows)
            else:
                self._merge(into, rows)
        except _TEMPORARY as error:
            raise OperationalError(into.text, None, error) from error

    def _copy(self, table: str, columns: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def _merge(self, into: PreparedInsert, rows: Sequence[tuple[object, ...]]) -> None:
        """Copy rows into a temporary table, and insert them from there."""
        load, columns = f"load_{into.table}", names_of(into.columns)
        key_of = itemgetter(*into.keys)
        last = {key_of(row): row for row in rows}
        if load not in self._loads:
            like = f"ON COMMIT DELETE ROWS AS SELECT * FROM {into.table} WITH NO DATA"  # noqa: S608 - names of ours
            self.run(f"CREATE TEMPORARY TABLE IF NOT EXISTS {load} {like}")
            self._loads.add(load)
        self._copy(load, columns, last.values())
        conflict = into.text[into.text.index("ON CONFLICT") :]
        self.run(f"INSERT INTO {into.table} ({columns}) SELECT {columns} FROM {load} {conflict}; DELETE FROM {load}")  # noqa: S608 - names of ours

    def run(self, text: str) -> None:
        """Run statements without values."""
        self._connection.execute(text.encode())

    def note_rollback(self) -> None:
        """Forget the temporary tables, which may have been created in a transaction that was rolled back."""
        self._loads.clear()

    @contextmanager
    def limited(self, seconds: float, /) -> Iterator[None]:
        """Let the server cancel statements of this transaction that take longer."""
        self.execute(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}")
        yield


def _addresses_in(url: str) -> tuple[tuple[str, int], ...]:
    """Return the hosts and ports in a URL, which may name several; none for sockets, and in a URL that is wrong."""
    try:
        where = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return ()  # the first connection says why
    hosts, ports = (str(where.get(name) or "").split(",") for name in ("host", "port"))
    pairs = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=False)
    is_port = re.compile(r"\d{0,5}", re.ASCII).fullmatch
    return tuple((host, int(port or _PORT)) for host, port in pairs if host and host[0] not in "/@" and is_port(port))


def _without_nul(value: object) -> object:
    """Return a value without NUL characters, which PostgreSQL cannot store in a text."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


class PostgresStore:
    """The views in a database of PostgreSQL (see ``projections.engine.storage.ViewStore``)."""

    answers_at_once = False
    claim_seconds = 2.0  # each attempt opens a connection

    def __init__(self, url: str) -> None:
        """``url`` has the form that libpq knows: ``postgresql://user:password@host:5432/database``."""
        self._url = url
        self.addresses = _addresses_in(url)
        self._lock = threading.Lock()
        self._control: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        """Close the connection for questions about generations; a later question opens it again."""
        with self._lock:
            if self._control is not None:
                self._control.close()
                self._control = None

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Yield whether this process may run a view, by an advisory lock; false where another process runs it."""
        with closing(self._connect()) as connection:
            found = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (_LOCKS, name)).fetchone()
            yield bool(found and found[0])

    def live_generation(self, model: Projection) -> int | None:
        """Return the live generation of this version of the projection, or ``None``."""
        version, generation = self._pointer(model) or (None, None)
        return generation if version == model.version else None

    def is_new(self, model: Projection) -> bool:
        """Return whether no version of the projection has ever had a live generation."""
        return self._pointer(model) is None

    def _pointer(self, model: Projection) -> tuple[int, int] | None:
        try:
            rows = self._ask("SELECT version, generation FROM ledger.generations WHERE view = %s", (model.name,))
        except (UndefinedTable, InvalidSchemaName):
            return None
        return rows[0] if rows else None

    def progress_of(self, model: Projection) -> Progress | None:
        """Return the progress of the live generation, or ``None`` if none is live; nothing is created."""
        generation = self.live_generation(model)
        if generation is None:
            return None
        try:
            rows = self._ask(READ_PROGRESS.replace("FROM ", f"FROM {_schema_of(model, generation)}."))
        except (UndefinedTable, InvalidSchemaName):
            return None
        return progress_in(rows[0] if rows else None)

    def next_generation(self, model: Projection) -> int:
        """Return a generation number that no schema of this projection has."""
        return max((generation for _, generation in self._schemas(model)), default=0) + 1

    def _schemas(self, model: Projection) -> list[tuple[str, int]]:
        """Return the schemas of all versions of a projection, with their generations."""
        names = self._ask("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", (f"{model.name}_v",))
        found = [re.fullmatch(rf"{model.name}_v\d+_g(\d+)", name) for (name,) in names]
        return [(one[0], int(one[1])) for one in found if one is not None]

    def open_generation(self, model: Projection, generation: int, *, read_only: bool = False) -> sa.Engine:
        """Return the database of one generation; create it where it does not exist.

        Raises:
            UnavailableError: the server does not answer.

        """
        schema = _schema_of(model, generation)
        if not read_only and not self._ask("SELECT to_regclass(%s)", (f"{schema}.progress",))[0][0]:
            self._create(model, schema)
        return self._engine(schema, read_only=read_only)

    def switch_to(self, model: Projection, generation: int) -> None:
        """Make this generation live, and delete the others."""
        schema = _schema_of(model, generation)
        with closing(self._connect()) as connection:
            with connection.transaction():
                connection.execute(_CONTROL.encode())
                known = connection.execute(
                    "SELECT DISTINCT view_name FROM information_schema.view_table_usage "
                    "WHERE view_schema = 'ledger' AND table_schema ~ %s",
                    (rf"^{model.name}_v\d+_g\d+$",),
                )
                for (name,) in known.fetchall():
                    connection.execute(f'DROP VIEW ledger."{name}"'.encode())
                is_reader_known = connection.execute(
                    "SELECT has_schema_privilege(oid, 'ledger', 'USAGE') FROM pg_roles WHERE rolname = %s", (READER,)
                ).fetchone()
                for name in _stable_names(model):
                    view = f'ledger."{model.name}_{name}"'
                    definition = f"SELECT * FROM {schema}.{name}"  # noqa: S608 - names of ours
                    connection.execute(f"CREATE VIEW {view} AS {definition}".encode())
                    if is_reader_known and is_reader_known[0]:
                        connection.execute(f"GRANT SELECT ON {view} TO {READER}".encode())
                connection.execute(
                    "INSERT INTO ledger.generations (view, version, generation) VALUES (%s, %s, %s) ON CONFLICT (view) "
                    "DO UPDATE SET version = excluded.version, generation = excluded.generation",
                    (model.name, model.version, generation),
                )
            self._keep_only(connection, model, schema)

    def drop_unfinished(self, model: Projection) -> None:
        """Delete the generations that no switch has made live: builds that were interrupted."""
        pointer = self._pointer(model)
        with closing(self._connect()) as connection:
            self._keep_only(connection, model, f"{model.name}_v{pointer[0]}_g{pointer[1]}" if pointer else "")

    def _keep_only(self, connection: psycopg.Connection, model: Projection, schema: str) -> None:
        connection.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'".encode())
        for name, _ in self._schemas(model):
            if name != schema:
                try:
                    connection.execute(f"DROP SCHEMA {name} CASCADE".encode())
                except psycopg.OperationalError as error:  # a tool reads it; the next rebuild drops it
                    _log.warning("the schema %s is still in use and stays: %s", name, error)

    def place_of(self, model: Projection, generation: int) -> str:
        """Return the name of a generation's schema."""
        return f"the schema {_schema_of(model, generation)}"

    def _create(self, model: Projection, schema: str) -> None:
        """Create the schema and the tables of a generation, unless another process has."""
        long = [name for name in (schema, *_stable_names(model)) if len(f"{model.name}_{name}") > _NAME_LENGTH]
        if long:
            raise LedgerError(f"PostgreSQL allows names of {_NAME_LENGTH} characters: {model.name} has longer tables")
        engine = self._engine(schema)
        try:
            with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
                driver = PostgresDriver(connection.connection.driver_connection)  # type: ignore[arg-type]
                for statement in (_CONTROL, f"CREATE SCHEMA IF NOT EXISTS {schema}"):
                    driver.run(statement)
                known = driver.execute("SELECT to_regclass(?)", (f"{schema}.progress",)).fetchone()
                if not (known and known[0]):
                    _tables_of(model).create_all(connection, checkfirst=False)
        finally:
            engine.dispose()

    def _engine(self, schema: str, *, read_only: bool = False) -> sa.Engine:
        def connect() -> psycopg.Connection[Any]:
            connection = self._connect()
            # A tail that a crash of the database takes away is read from the log again.
            connection.execute(f"SET search_path TO {schema}; SET synchronous_commit TO off".encode())
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = read_only
            connection.autocommit = False
            return connection

        engine = sa.create_engine(
            "postgresql+psycopg://", creator=connect, use_native_hstore=False, pool_size=2, max_overflow=10
        )

        @sa.event.listens_for(engine, "connect")
        def wrap(connection: Any, record: Any) -> None:
            record.info[DRIVER] = PostgresDriver(connection)

        @sa.event.listens_for(engine, "rollback")
        def forget(connection: sa.Connection) -> None:
            connection.connection.info[DRIVER].note_rollback()

        return engine

    def _connect(self) -> psycopg.Connection[Any]:
        """Return a connection that commits each statement.

        Raises:
            UnavailableError: the server does not answer, or refuses.

        """
        try:
            connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=_CONNECT_SECONDS, application_name="resolution-ledger"
            )
        except psycopg.Error as error:
            reason = " ".join(str(error).split())
            raise UnavailableError(f"database_url: PostgreSQL does not serve views: {reason}") from None
        connection.adapters.register_loader("numeric", _WholeLoader)
        return connection

    def _ask(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a query about generations.

        Raises:
            UnavailableError: the server does not answer.

        """
        with self._lock:
            for is_last in (False, True):
                if self._control is None or self._control.closed:
                    self._control = self._connect()
                try:
                    return self._control.execute(query.encode(), values).fetchall()
                except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                    self._control.close()
                    if is_last:
                        raise UnavailableError(f"database_url: PostgreSQL does not answer: {error}") from error
        raise AssertionError


def _schema_of(model: Projection, generation: int) -> str:
    return f"{model.name}_v{model.version}_g{generation}"


def _stable_names(model: Projection) -> list[str]:
    """Return the tables of a generation that other tools may read."""
    tables = [*model.metadata.sorted_tables, *progress_metadata.sorted_tables]
    return [table.name for table in tables if not table.name.endswith(INTERNAL)]


def _tables_of(model: Projection) -> sa.MetaData:
    """Return the tables of a generation as PostgreSQL keeps them.

    Texts compare by their bytes, as in SQLite, and whole numbers have 64 bits.
    """
    found = sa.MetaData()
    for metadata in (model.metadata, corrections_metadata, progress_metadata):
        for table in metadata.sorted_tables:
            for column in table.to_metadata(found).columns:
                column.autoincrement = False
                if type(column.type) in (sa.Text, sa.String):
                    column.type = sa.Text(collation="C")
                elif isinstance(column.type, sa.Integer):
                    column.type = sa.BigInteger()
    return found
