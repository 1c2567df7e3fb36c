"""Reports and their oracle: views folded in memory from events, and the same events as a table of DuckDB.

The oracle's SQL in `tests/reports/oracle/` reads only the table `events`, which holds what `audit replay` prints: position,
type, source, id, event time, recorded time, sequence and data. It does not use the product's code.
"""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import re
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa

from domain.events.decisions import PolicyPublished
from ledger.store.log import Recorded
from projections.engine.events import read_event
from projections.engine.projector import Projector
from projections.engine.sqlite_store import create_tables, memory_engine
from projections.engine.storage import ViewStore
from projections.reading import ReadResult
from projections.registry import MODELS
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.oracle_intervals import intervals_of

FOLDER = ROOT / "tests" / "reports" / "oracle"
_BATCH = 1000
_PREFIXES = {"policy": "ledger.policy", "flag": "ledger.flag", "customer.charged": "ledger.customer"}


def subject_of(event: Document) -> str:
    """Return the subject of an event, as far as views look at it."""
    name, data = event["type"].removeprefix("resolution."), event["data"]
    if event["source"] != "resolution-ledger":
        return f"ledger.fact.{event['source']}"
    for prefix, subject in _PREFIXES.items():
        if name.startswith(prefix):
            return subject
    amount = data.get("amount") or data.get("granted") or data.get("spent") or {}
    return f"ledger.budget.{data.get('holder') or data.get('budget')}.{amount.get('currency')}.{data.get('period')}"


class HistoryLedger:
    """A history of events as `audit replay` prints them, with the views that read it and the oracle's table.

    A view is folded when it is first read.
    """

    def __init__(self, events: Iterable[Document], store: ViewStore | None = None) -> None:
        """``store`` is the place of the views; they are in memory without one."""
        self._store = store
        self.events = list(events)
        self._views: dict[str, tuple[sa.Engine, Projector]] = {}
        weakref.finalize(self, _dispose, self._views)  # engines are in circles, which are collected late
        policies = (one for one in self.events if subject_of(one) == "ledger.policy")
        bodies = (read_event(recorded_of(one)).body for one in policies)
        self.published = [body for body in bodies if isinstance(body, PolicyPublished)]
        self._kept: dict[tuple[str, ...], bytes] | None = None
        self._earlier: dict[int, HistoryLedger] = {}
        self.database = duckdb.connect()
        self.database.execute("SET TimeZone = 'UTC'")
        self.database.execute("SET threads = 1")  # a forked process has no other threads
        self.database.register("told", _table(self.events))
        self.database.execute("CREATE TABLE events AS SELECT * REPLACE (d::JSON AS d) FROM told")
        self.database.execute((FOLDER / "macros.sql").read_text(encoding="utf-8"))

    def earlier(self, share: float) -> HistoryLedger:
        """Return a ledger that ends after this share of the events; it is built once."""
        position = max(1, int(len(self.events) * share))
        if position not in self._earlier:
            self._earlier[position] = HistoryLedger(self.events[:position])
        return self._earlier[position]

    def without(self, hidden: Callable[[Document], bool]) -> HistoryLedger:
        """Return a ledger in which some events are of no known type; the others keep their positions."""
        nothing: Document = {"type": "resolution.hidden.v1"}
        return HistoryLedger([one | nothing if hidden(one) else one for one in self.events])

    @cached_property
    def _stored(self) -> list[Recorded]:
        return [recorded_of(one) for one in self.events]

    def _view(self, name: str) -> tuple[sa.Engine, Projector]:
        """Return a view that has read all events."""
        if name not in self._views:
            model, originals = MODELS[name](), {one.position: one for one in self._stored}
            if self._store is None:
                engine = memory_engine()
                create_tables(engine, model)
            else:
                engine = self._store.open_generation(model, self._store.next_generation(model))
            projector = Projector(model, engine)
            for start in range(0, len(self._stored), _BATCH):
                projector.take(self._stored[start : start + _BATCH], originals)
            self._views[name] = engine, projector
        return self._views[name]

    def views(self) -> list[tuple[sa.Engine, Projector]]:
        """Return the views that were read."""
        return list(self._views.values())

    async def read[T](self, name: str, query: Callable[[sa.Connection], T], /) -> ReadResult[T]:
        """Return the result of a query; it is a `Reader` of reports."""
        engine, projector = self._view(name)
        with engine.begin() as connection:
            return ReadResult(query(connection), projector.progress)

    def report(self, make: Callable[..., Any], *arguments: Any, **named: Any) -> Document:
        """Return a report's document."""
        document: Document = asyncio.run(make(self.read, *arguments, **named))
        return document

    def keep_figures(self) -> None:
        """Compute the oracle's figures once for all later calls."""
        self._kept = {}

    def figures(self, name: str, *given: str) -> dict[str, list[dict[str, Any]]]:
        """Return the oracle's figures of a report: by the name of each query in its file, the rows.

        The statements in ``given`` create the tables that the queries read beside the events.
        """
        if self._kept is None:
            return self._computed(name, given)
        if (name, *given) not in self._kept:
            self._kept[name, *given] = pickle.dumps(self._computed(name, given))
        found: dict[str, list[dict[str, Any]]] = pickle.loads(self._kept[name, *given])
        return found

    def _computed(self, name: str, given: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for statement in given:
            self.database.execute(statement)
        for title, text in _queries(name):
            result = self.database.execute(text)
            if result.description and not text.lstrip().upper().startswith("CREATE"):
                columns = [column[0] for column in result.description]
                found[title] = [intervals_of(dict(zip(columns, row, strict=True))) for row in result.fetchall()]
        return found


def recorded_of(event: Document) -> Recorded:
    """Return an event as the log holds it, without spaces between its parts."""
    kept = {name: value for name, value in event.items() if name != "position"}
    return Recorded(event["position"], subject_of(event), json.dumps(kept, separators=(",", ":")).encode())


@cache
def _queries(name: str) -> list[tuple[str, str]]:
    text = (FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- figure: (\w+)$", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _dispose(views: dict[str, tuple[sa.Engine, Projector]]) -> None:
    for engine, _ in views.values():
        engine.dispose()


def _table(events: Sequence[Document]) -> pa.Table:
    def moment(text: str) -> datetime:
        return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)

    return pa.table(
        {
            "position": pa.array([one["position"] for one in events], pa.int64()),
            "type": [one["type"].removeprefix("resolution.").removesuffix(".v1") for one in events],
            "source": [one["source"] for one in events],
            "id": [one["id"] for one in events],
            "moment": pa.array([moment(one["time"]) for one in events], pa.timestamp("us")),
            "recorded": pa.array([moment(one["recordedtime"]) for one in events], pa.timestamp("us")),
            "sequence": pa.array([int(one["sequence"]) if "sequence" in one else None for one in events], pa.int64()),
            "d": [json.dumps(one["data"]) for one in events],
        }
    )


def read_replay(path: Path) -> list[Document]:
    """Return the events of a file that `audit replay` printed."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def differences(found: object, expected: object, where: str = "") -> list[str]:
    """Return the places where two documents differ; numbers may differ in the last digits of a float."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return [
            line
            for name in (found | expected)
            for line in differences(found.get(name, "missing"), expected.get(name, "missing"), f"{where}.{name}")
        ]
    if isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)):
        if len(found) != len(expected):
            return [f"{where}: {len(found)} items, the oracle has {len(expected)}: {found!r:.300} / {expected!r:.300}"]
        return [
            line
            for number, (one, other) in enumerate(zip(found, expected, strict=True))
            for line in differences(one, other, f"{where}[{number}]")
        ]
    if isinstance(found, float | int) and isinstance(expected, float | int) and not isinstance(found, bool):
        same = math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)
    else:
        same = found == expected
    return [] if same else [f"{where}: {found!r}, the oracle has {expected!r}"]
