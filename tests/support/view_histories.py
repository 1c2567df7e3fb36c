"""Histories folded into views without a server: the log's messages go straight to the engine, in any order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from ledger.store.cloudevents import time_text, with_corrects
from ledger.store.log import Recorded
from projections.engine.projection import HasDayBlocks
from projections.engine.projector import Projector
from projections.engine.sqlite_store import SqliteStore
from projections.engine.storage import ViewStore
from projections.reading import ReadResult
from projections.registry import MODELS
from tests.support.builders import NOW
from tests.support.documents import Document

RECORDED = b',"recordedtime":"%b"}' % time_text(NOW).encode()


def recorded(history: Iterable[Document | tuple[str, bytes]]) -> list[Recorded]:
    """Return events as the log holds them: facts as documents, decisions as (subject, JSON).

    A correction gets the position of the fact that it corrects, which must come before it.
    """
    found: list[Recorded] = []
    places: dict[tuple[str, str], int] = {}
    for position, one in enumerate(history, 1):
        if isinstance(one, tuple):
            subject, data = one
        else:
            subject, data = f"ledger.fact.{one['source']}", json.dumps(one, separators=(",", ":")).encode()
            places[one["source"], one["id"]] = position
            if "fact.corrected" in one["type"]:
                data = with_corrects(data, places[one["data"]["source_of"], one["data"]["id_of"]])
        found.append(Recorded(position, subject, data[:-1] + RECORDED))
    return found


class Views:
    """Views of a history, each in a database of its own."""

    def __init__(
        self, place: Path | ViewStore, names: Sequence[str] = tuple(MODELS), quiet_seconds: float = 0.0
    ) -> None:
        """``place`` is a folder, or a store in which the views get new generations."""
        store = SqliteStore(place) if isinstance(place, Path) else place
        models = {name: MODELS[name]() for name in names}
        for model in models.values():
            if isinstance(model, HasDayBlocks):
                model.day_blocks.quiet_seconds = quiet_seconds
        self._engines = {
            name: store.open_generation(model, store.next_generation(model)) for name, model in models.items()
        }
        self._projectors = {name: Projector(model, self._engines[name]) for name, model in models.items()}

    def take(
        self, messages: Sequence[Recorded], batch: int = 1000, originals: Sequence[Recorded] | None = None
    ) -> Views:
        """Fold messages in batches, each committed by itself; ``originals`` may be other messages that they correct."""
        known = {one.position: one for one in originals or messages}
        for at in range(0, len(messages), batch):
            for projector in self._projectors.values():
                projector.take(messages[at : at + batch], known)
        return self

    def settle(self, rows: int) -> bool:
        """Make day blocks of about so many rows in each view; return whether all quiet days have one."""
        settled = [projector.settle(rows) for projector in self._projectors.values()]
        return all(settled)

    async def read[T](self, name: str, query: Callable[[sa.Connection], T], /) -> ReadResult[T]:
        """Return the result of a query; it is a `Reader` of reports."""
        with self._engines[name].begin() as connection:
            return ReadResult(query(connection), self._projectors[name].progress)

    def rows(self, name: str, without: Sequence[str] = ()) -> dict[str, list[Mapping[str, object]]]:
        """Return the rows of a view's tables by key, without their earlier versions and some columns."""
        found: dict[str, list[Mapping[str, object]]] = {}
        with self._engines[name].begin() as connection:
            for table in MODELS[name]().metadata.sorted_tables:
                if not table.name.endswith(("_past", "_facts", "_spans")):
                    columns = [column for column in table.columns if column.name not in without]
                    query = sa.select(*columns)
                    found[table.name] = sorted((dict(row) for row in connection.execute(query).mappings()), key=repr)
        return found

    def close(self) -> None:
        """Close the databases."""
        for engine in self._engines.values():
            engine.dispose()
