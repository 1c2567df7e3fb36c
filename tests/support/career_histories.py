"""Histories of employees and of what other systems reported about them, in any order, and their oracle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import sqlalchemy as sa

from projections.engine.row_cache import dict_rows
from projections.engine.temporal_tables import as_of
from projections.views import authority, casework
from tests.support.report_histories import REASONS, ROLES, TEAMS, RandomHistory, event_document, money, numbered
from tests.support.report_oracle import HistoryLedger, differences

if TYPE_CHECKING:
    from datetime import datetime

    from tests.support.documents import Document

_SHARES = (0.4, 0.7, 1.0)
"""The parts of a history as of whose ends rows are compared."""


class CareerHistory(RandomHistory):
    """Facts about employees, actions and escalations of other systems, and corrections, in any order."""

    def events(self) -> list[Document]:
        """Return the events, each with its position; their order has nothing to do with their times."""
        self._people()
        self._elsewhere()
        for _ in range(self.count(60)):
            agent, amount = self.random.choice(self.agents), money(self.random.randint(1, 50_000))
            told = {"kind": "refund", "amount": amount, "reason": self.random.choice(REASONS)}
            self._tell(
                "action.reported", self._at_a_move(agent), agent_id=agent, team_id=self._maybe(TEAMS, 0.1), **told
            )
        last = max(at for at, _, _ in self._events)
        found = numbered(self._events, last)
        recorded = found[-1]["recordedtime"]
        self.random.shuffle(found)
        for wrong in self.random.sample(found, len(found) // 6):
            if not wrong["type"].startswith("resolution.escalation.outcome"):
                correction = self._correction(wrong, last, len(found))
                found.insert(self.random.randint(found.index(wrong) + 1, len(found)), correction)
        found = [one | {"position": number, "recordedtime": recorded} for number, one in enumerate(found, 1)]
        places = {one["id"]: one["position"] for one in found}
        return [one | {"corrects": places[one["data"]["id_of"]]} if "id_of" in one["data"] else one for one in found]

    def _correction(self, wrong: Document, at: datetime, number: int) -> Document:
        """Return a correction that names another employee or role, or says that the fact never happened."""
        right: Document = wrong["data"] | {"role": self.random.choice(ROLES)}
        right |= dict.fromkeys({"employee_id", "agent_id", "requested_by"} & {*right}, self.random.choice(self.agents))
        correction = event_document(number, wrong["source"], "fact.corrected", at, {})
        told = {"source_of": wrong["source"], "id_of": wrong["id"], "reason": "typed wrongly"}
        data = {**told, "data": self._maybe([right])}
        return correction | {"id": f"c-{number}", "data": data}

    def _at_a_move(self, agent: str) -> datetime:
        """Return a time, often that of a fact about an employee."""
        moves = [at for at, _, event in self._events if event["data"].get("employee_id") == agent]
        return self.random.choice(moves) if self.random.random() < 0.2 else self._at()


def career_differences(ledger: HistoryLedger) -> list[str]:
    """Return the rows whose role or team differs from the oracle's; the views are folded anew."""
    found: list[str] = []
    views = HistoryLedger(ledger.events)
    for share in _SHARES:
        earlier = ledger.earlier(share)
        expected = earlier.figures("careers")["reported"]
        requests = [one for one in expected if not one["name"].startswith("act-")]
        at = len(earlier.events)
        listed = _rows(views, "casework", casework.actions, at) + _rows(views, "casework", casework.escalations, at)
        found += differences(listed, expected, f"casework as of {at}")
        found += differences(_rows(views, "authority", authority.asked, at), requests, f"authority as of {at}")
    return found


def _rows(views: HistoryLedger, name: str, table: sa.Table, at: int) -> list[Document]:
    """Return name, role and team of the rows of what happened as of a position, by name."""
    source = as_of(table, at)
    key = source.c[next(iter(table.primary_key)).name]
    query = sa.select(key.label("name"), source.c.role, source.c.team_id.label("team"))
    if table is casework.actions:
        query = query.where(source.c.state != casework.NEVER_HAPPENED)
    else:
        query = query.where(source.c.asked_minor.is_not(None))
    query = query.order_by(key)
    return asyncio.run(views.read(name, lambda connection: dict_rows(connection, query))).result
