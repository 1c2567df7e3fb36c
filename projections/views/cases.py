"""Tables of cases, which the view flags keeps beside its flags: a case is closed once all its flags are reviewed."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING

import sqlalchemy as sa

from domain.events.flags import CaseEvent, CaseOpened, CaseRanked
from domain.money import Money
from ledger.store.cloudevents import time_text
from projections.engine.columns import texts
from projections.engine.pages import WHOLE, PageRequest, paged, source_of
from projections.engine.row_cache import RowCache
from projections.engine.temporal_tables import past_of
from projections.views.flag_tables import metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from projections.engine.events import Event
    from projections.engine.storage import Row

cases = sa.Table(
    "cases",
    metadata,
    sa.Column("case_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, index=True),
    sa.Column("rank", sa.Integer),
    sa.Column("score", sa.Float),
    sa.Column("loss_minor", sa.BigInteger),
    *texts("subject", "about", "flag_ids", "rules", "loss_currency", "explanation", "status"),
    *texts("found", "opened", "closed", "reviewed_flags"),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(cases)
case_flags = sa.Table(
    "case_flags",
    metadata,
    sa.Column("flag_id", sa.Text, primary_key=True),
    sa.Column("case_id", sa.Text),
    sa.Column("since", sa.BigInteger, nullable=False),
)
past_of(case_flags)


class CaseTables:
    """The fold of cases."""

    def __init__(self) -> None:
        self._cases = RowCache(cases)
        self._flags = RowCache(case_flags)

    def put(self, connection: sa.Connection, event: Event, body: CaseEvent) -> None:
        """Write an event of a case."""
        loss = body.expected_loss
        values: Row = {
            "subject": body.subject,
            "about": json.dumps(body.about),
            "flag_ids": json.dumps(body.flag_ids),
            "rules": json.dumps(body.rules),
            "rank": body.rank,
            "score": body.score,
            "loss_minor": None if loss is None else loss.minor,
            "loss_currency": None if loss is None else loss.currency,
            "explanation": body.explanation,
        }
        known = self._cases.get(connection, body.case_id)
        if known is None:
            values |= {"position": event.position, "found": event.stored.time, "reviewed_flags": "[]"}
        if isinstance(body, CaseRanked):
            values |= {"status": "below"}
        elif isinstance(body, CaseOpened):
            values |= {"status": "open", "opened": event.stored.time}
        self._cases.put(connection, body.case_id, values, event.position)
        for flag_id in body.flag_ids:
            if self._flags.get(connection, flag_id) is None:
                self._flags.put(connection, flag_id, {"case_id": body.case_id}, event.position)

    def review(self, connection: sa.Connection, event: Event, flag_id: str) -> None:
        """Write a review of a flag."""
        found = self._flags.get(connection, flag_id)
        case = None if found is None else self._cases.get(connection, str(found["case_id"]))
        if case is None:
            return
        reviewed = {*json.loads(case["reviewed_flags"]), flag_id}
        values: Row = {"reviewed_flags": json.dumps(sorted(reviewed))}
        if reviewed >= set(json.loads(case["flag_ids"])) and case["closed"] is None:
            values |= {"status": "closed", "closed": time_text(event.recorded)}
        self._cases.put(connection, case["case_id"], values, event.position)

    def write(self, connection: sa.Connection) -> None:
        """Write the changed rows."""
        self._cases.write(connection)
        self._flags.write(connection)

    def forget(self) -> None:
        """Drop cached rows."""
        self._cases.forget()
        self._flags.forget()


def read_cases(
    connection: sa.Connection,
    *,
    status: str | None = "open",
    subject: str | None = None,
    page: PageRequest = WHOLE,
    seen: Callable[[list[str]], bool] = lambda _about: True,
) -> list[Row]:
    """Return a page of cases of a status (``None``: all).

    ``seen`` returns whether the reader may see a case about these subjects.
    """
    source = source_of(cases, page)
    query = paged(sa.select(source), source, page.given(), newest_first=page.newest_first, time="found")
    if status is not None:
        query = query.where(source.c.status == status)
    shown = (_shown(row) for row in connection.execute(query).mappings())
    found = (case for case in shown if (subject is None or case["subject"] == subject) and seen(case["about"]))
    return list(islice(found, page.limit))


def count_open_cases(connection: sa.Connection) -> int:
    """Return the number of open cases."""
    return connection.execute(sa.select(sa.func.count()).where(cases.c.status == "open")).scalar_one()


def _shown(row: sa.RowMapping) -> Row:
    hidden = ("since", "loss_minor", "loss_currency")
    lists = ("about", "flag_ids", "rules", "reviewed_flags")
    shown = {name: json.loads(value) if name in lists else value for name, value in row.items() if name not in hidden}
    loss = None if row["loss_currency"] is None else Money(row["loss_minor"], row["loss_currency"])
    return {**shown, "expected_loss": None if loss is None else {"amount": loss.text, "currency": loss.currency}}
