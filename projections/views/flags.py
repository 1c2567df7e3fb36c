"""View flags: suspected misuse for human review, the reviews and answers, the evidence, and the cases."""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

import sqlalchemy as sa

from domain.events.flags import (
    CaseEvent,
    CaseOpened,
    CaseRanked,
    CaseUpdated,
    FlagAnswered,
    FlagRaised,
    FlagReviewed,
    FlagUnmasked,
    FlagUpdated,
)
from ledger.store.cloudevents import time_text
from projections.engine.columns import position_key, texts
from projections.engine.pages import WHOLE, PageRequest, paged, source_of
from projections.engine.row_cache import RowCache
from projections.engine.storage import upsert
from projections.engine.temporal_tables import past_of
from projections.views.cases import CaseTables
from projections.views.flag_tables import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    import msgspec

    from projections.engine.events import Event
    from projections.engine.storage import Row

flags = sa.Table(
    "flags",
    metadata,
    sa.Column("flag_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, index=True),
    sa.Column("rule", sa.Text),
    sa.Column("rule_version", sa.Integer),
    *texts("about", "explanation", "evidence", "raised", "status", "unmasked_by"),
    *texts("reviewed", "reviewed_by", "answered_by", "answer", "note"),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(flags)
evidence = sa.Table(
    "evidence",
    metadata,
    position_key(),
    sa.Column("flag_id", sa.Text, primary_key=True),
)
DISMISSED_DAYS = 365
"""Days after which lists leave out dismissed flags; they stay in the log."""


class Flags:
    """The projection of this view (see ``projections.engine.projection.Projection``)."""

    name = "flags"
    version = 5
    metadata = metadata
    prefixes = ("ledger.flag.", "ledger.case.")
    types: Mapping[str, type[msgspec.Struct]] = {
        "resolution.flag.raised.v1": FlagRaised,
        "resolution.flag.updated.v1": FlagUpdated,
        "resolution.flag.unmasked.v1": FlagUnmasked,
        "resolution.flag.reviewed.v1": FlagReviewed,
        "resolution.flag.answered.v1": FlagAnswered,
        "resolution.case.ranked.v1": CaseRanked,
        "resolution.case.opened.v1": CaseOpened,
        "resolution.case.updated.v1": CaseUpdated,
    }

    def __init__(self) -> None:
        self._rows = RowCache(flags)
        self._cases = CaseTables()

    def fold(self, connection: sa.Connection, events: Sequence[Event]) -> None:
        """Update the flags and cases that these events concern."""
        proofs: list[Row] = []
        for event in events:
            body = event.body
            match body:
                case FlagRaised():
                    proofs += [{"position": at, "flag_id": body.flag_id} for at in body.evidence]
                    values = _raised(event, body)
                case FlagUnmasked():
                    values = {"unmasked_by": body.unmasked_by}
                case CaseEvent():
                    self._cases.put(connection, event, body)
                    continue
                case FlagReviewed():
                    self._cases.review(connection, event, body.flag_id)
                    values = {
                        "status": body.verdict,
                        "reviewed": time_text(event.recorded),
                        "note": body.note,
                        "reviewed_by": body.reviewed_by,
                    }
                case FlagAnswered():
                    values = {"answered_by": body.employee_id, "answer": body.text}
                case _:
                    continue
            self._rows.put(connection, body.flag_id, values, event.position)
        self._rows.write(connection)
        self._cases.write(connection)
        upsert(connection, evidence, proofs, replaces=False)

    def forget(self) -> None:
        """Drop cached rows."""
        self._rows.forget()
        self._cases.forget()


def _raised(event: Event, body: FlagRaised) -> Row:
    values: Row = {"explanation": body.explanation, "evidence": json.dumps(body.evidence)}
    if not isinstance(body, FlagUpdated):
        values |= {
            "rule": body.rule,
            "rule_version": body.rule_version,
            "about": json.dumps(body.about),
            "position": event.position,
            "raised": event.stored.time,
            "status": "open",
        }
    return values


def read_flags(
    connection: sa.Connection,
    now: datetime,
    *,
    rule: str | None = None,
    about: str | None = None,
    flag_id: str | None = None,
    status: str | None = None,
    position: int | None = None,
    page: PageRequest = WHOLE,
    everything: bool = False,
    seen: Callable[[list[str]], bool] = lambda _about: True,
) -> list[Row]:
    """Return a page of flags; with a ``position``, those that it proves.

    ``seen`` returns whether the reader may see a flag about these subjects.
    """
    source = source_of(flags, page)
    query = paged(sa.select(source), source, page.given(), newest_first=page.newest_first, time="raised")
    if rule is not None:
        query = query.where(source.c.rule == rule)
    if flag_id is not None:
        query = query.where(source.c.flag_id == flag_id)
    if status is not None:
        query = query.where(source.c.status == status)
    if position is not None:
        proved = sa.select(evidence.c.flag_id).where(evidence.c.position == position)
        query = query.where(source.c.flag_id.in_(proved))
    if not everything:
        old = time_text(now - timedelta(days=DISMISSED_DAYS))
        query = query.where(sa.not_(sa.and_(source.c.status == "dismissed", source.c.reviewed < old)))
    shown = (_shown(row) for row in connection.execute(query).mappings())
    found = (flag for flag in shown if (about is None or about in flag["about"]) and seen(flag["about"]))
    return list(islice(found, page.limit))


def _shown(row: sa.RowMapping) -> Row:
    shown = {name: value for name, value in row.items() if name != "since"}
    return {**shown, "about": json.loads(row["about"]), "evidence": json.loads(row["evidence"])}


def read_proofs(connection: sa.Connection) -> dict[int, frozenset[str]]:
    """Return, by position, the rules of flags that it is evidence for, without dismissed flags."""
    query = sa.select(evidence.c.position, flags.c.rule).join(flags, flags.c.flag_id == evidence.c.flag_id)
    found: dict[int, set[str]] = {}
    for position, rule in connection.execute(query.where(flags.c.status != "dismissed")):
        found.setdefault(position, set()).add(rule)
    return {position: frozenset(rules) for position, rules in found.items()}
