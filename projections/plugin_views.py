"""Views of other packages: their checks, their registration beside the built-in views, and reading their tables."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from projections.engine.corrections import corrections_metadata
from projections.engine.events import TYPES
from projections.engine.pages import by_key
from projections.engine.projection import Projection
from projections.engine.row_cache import dict_rows
from projections.engine.storage import FAILURES, progress_metadata
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from projections.engine.events import Event
    from projections.engine.storage import Row

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RESERVED = frozenset((*progress_metadata.tables, *corrections_metadata.tables))
"""Tables that the engine keeps in each view's database."""


class PluginView:
    """A projection of another package; an error in its fold names the package."""

    def __init__(self, package: str, model: Projection) -> None:
        self._package, self._model = package, model
        self.name, self.version, self.metadata = model.name, model.version, model.metadata
        self.prefixes, self.types, self.forget = model.prefixes, model.types, model.forget

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Fold events as the package does.

        Raises:
            PluginViewError: the package's code failed; a failure of the database (a full disk) is raised as it is.

        """
        try:
            self._model.fold(connection, events)
        except BaseException as error:
            if isinstance(error, FAILURES) and not _is_wrong_sql(error):
                raise
            raise PluginViewError(self._package, error) from error


class PluginViewError(Exception):
    """An error in the fold of another package's projection; it names the package."""

    def __init__(self, package: str, error: BaseException) -> None:
        super().__init__(f"the package {package} failed: {type(error).__name__}: {error}")
        self.package = package


class PluginTable(NamedTuple):
    """A table of another package's view."""

    view: str
    table: sa.Table

    def read(
        self,
        connection: sa.Connection,
        limit: int | None = None,
        after: Sequence[object] | None = None,
        *,
        descending: bool = False,
    ) -> list[Row]:
        """Return rows in the order of the table's key, behind the key ``after``."""
        query = by_key(sa.select(self.table), self.table.primary_key.columns, after, descending=descending)
        return dict_rows(connection, query.limit(limit))


_packages: dict[str, str] = {}


def register_view(package: str, name: str, make: Callable[[], object]) -> None:
    """Add a package's projection to the registry.

    Raises:
        ValueError: it cannot be used, or has another name; the message says why.

    """
    for fault in _faults(make(), name):
        raise ValueError(fault)
    MODELS[name] = partial(_made, package, make)
    _packages[name] = package


def _made(package: str, make: Callable[[], object]) -> PluginView:
    model = make()
    assert isinstance(model, Projection)
    return PluginView(package, model)


def plugin_packages() -> Mapping[str, str]:
    """Return the registered views of other packages: package by view."""
    return _packages


def plugin_table(view: str, name: str | None) -> PluginTable:
    """Return a table of another package's view; its only table where ``name`` is ``None``.

    Raises:
        LookupError: there is none; the message lists the known ones.

    """
    if view not in _packages:
        known = ", ".join(sorted(_packages)) or "none is installed"
        raise LookupError(f"there is no view {view} of another package; known: {known}")
    tables = MODELS[view]().metadata.tables
    if name is None and len(tables) == 1:
        (name,) = tables
    if name is None or name not in tables:
        raise LookupError(f"name a table of {view}: {', '.join(sorted(tables))}")
    return PluginTable(view, tables[name])


def _is_wrong_sql(error: Exception) -> bool:
    """Return whether the database refused a statement (e.g. no such column), which it would refuse again."""
    cause = error.orig if isinstance(error, OperationalError) else error
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def _faults(model: object, wanted: str) -> Iterator[str]:
    """Yield the reasons why an object is not a projection that a package may add under a name."""
    if not isinstance(model, Projection):
        yield "it lacks one of name, version, metadata, prefixes, types, fold, forget"
        return
    described: tuple[object, ...] = (model.name, model.version, model.metadata, model.prefixes, model.types)
    name, version, metadata, prefixes, types = described
    yield from _faults_of_name(name, wanted)
    if not isinstance(version, int) or version < 1:
        yield f"its version {version!r} is not a whole number from 1 on"
    if not isinstance(prefixes, tuple) or not all(isinstance(one, str) and one for one in prefixes):
        yield "its prefixes are not a tuple of texts"
    if not isinstance(types, Mapping):
        yield "its types are not a mapping from stored types to classes"
    elif unknown := types.keys() - TYPES.keys():
        yield f"its types are not known to this version: {', '.join(sorted(unknown))}"
    yield from _faults_of_tables(metadata)


def _faults_of_name(name: object, wanted: str) -> Iterator[str]:
    if name != wanted:
        yield f"the projection's name is {name}: give the entry point that name"
    if not _NAME.fullmatch(wanted):
        yield f"its name {wanted} is not a lower-case word of at most 63 letters, digits and underscores"
    if wanted in MODELS:
        yield f"{_packages.get(wanted, 'the ledger itself')} has a view of that name already"


def _faults_of_tables(metadata: object) -> Iterator[str]:
    if not isinstance(metadata, sa.MetaData) or not metadata.tables:
        yield "its metadata holds no tables of SQLAlchemy"
        return
    for table in metadata.tables.values():
        if table.name in _RESERVED:
            yield f"the engine itself keeps a table {table.name} in each view"
        if not table.primary_key.columns:
            yield f"its table {table.name} has no primary key"
