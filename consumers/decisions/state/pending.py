"""Matters that wait: escalations nobody decided yet, and facts that still have to be posted to a budget."""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from domain.decisions.escalations import Open
from domain.events.decisions import (
    EscalationForwarded,
    EscalationRequested,
    EscalationStep,
)
from domain.serialization import decode, encode

if TYPE_CHECKING:
    from ledger.store.event_id_index import Change, EventIdIndex

_SCHEMA = """
CREATE TABLE IF NOT EXISTS escalations (id TEXT PRIMARY KEY, open INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS escalations_open ON escalations (id) WHERE open = 1;
CREATE TABLE IF NOT EXISTS dues (position INTEGER PRIMARY KEY, what TEXT NOT NULL, action TEXT NOT NULL, holder TEXT);
"""


class DuePosting(NamedTuple):
    """A fact whose money has to be posted: where it stands, and whose budget it concerns."""

    position: int
    what: Literal["charge", "settle"]
    action_id: str
    holder: str


class _Kept(msgspec.Struct):
    asked: EscalationRequested
    at: datetime
    to: tuple[str, ...]
    due: datetime


class PendingWork:
    """Answers from memory; only what is open is there."""

    def __init__(self, index: EventIdIndex) -> None:
        index.table(_SCHEMA)
        self._index = index
        self.open: dict[str, Open] = {}
        self.dues: dict[int, DuePosting] = {}
        self._changes: list[Change] = []
        self._writing: list[Change] = []
        self._closed: dict[str, str] = {}  # not written yet
        self._next_due: float | None = None
        for (value,) in index.rows("SELECT value FROM escalations WHERE open = 1"):
            kept = decode(_Kept, value)
            self.open[kept.asked.escalation_id] = Open(kept.asked, kept.at, kept.to, kept.due)
        for row in index.rows("SELECT position, what, action, holder FROM dues ORDER BY position"):
            self.dues[row[0]] = DuePosting(*row)

    def verdict_on(self, escalation_id: str) -> str | None:
        """What became of an escalation that is not open any more; nothing where it is not known."""
        if escalation_id in self._closed:
            return self._closed[escalation_id]
        rows = self._index.rows("SELECT value FROM escalations WHERE id = ? AND open = 0", (escalation_id,))
        return bytes(rows[0][0]).decode() if rows else None

    def due_by(self, moment: float) -> list[Open]:
        """Escalations whose time is up."""
        if self._next_due is None:
            self._next_due = min((waiting.due.timestamp() for waiting in self.open.values()), default=inf)
        if self._next_due > moment:
            return []
        return [waiting for waiting in self.open.values() if waiting.due.timestamp() <= moment]

    def asked(self, record: EscalationRequested, at: datetime) -> None:
        """An escalation was filed."""
        self._keep(Open(record, at, record.to, record.due))

    def stepped(self, record: EscalationStep) -> None:
        """Something happened to an escalation."""
        waiting = self.open.get(record.escalation_id)
        if isinstance(record, EscalationForwarded):
            if waiting is not None:
                self._keep(waiting._replace(to=record.to, due=record.due))
            return
        self.open.pop(record.escalation_id, None)
        self._next_due = None
        verdict = type(record).__name__.removeprefix("Escalation").lower()
        self._closed[record.escalation_id] = verdict
        self._changes.append((_PUT, [(record.escalation_id, 0, verdict.encode())]))

    def owe(self, due: DuePosting) -> None:
        """A fact has to be posted."""
        self.dues[due.position] = due
        self._changes.append(("INSERT OR REPLACE INTO dues VALUES (?, ?, ?, ?)", [tuple(due)]))

    def paid(self, position: int) -> None:
        """It was."""
        if self.dues.pop(position, None) is not None:
            self._changes.append(("DELETE FROM dues WHERE position = ?", [(position,)]))

    def changes(self) -> list[Change]:
        """What to write; it counts as being written until ``written``."""
        self._writing, self._changes = self._changes, []
        return self._writing

    def written(self) -> None:
        """What ``changes`` gave is written."""
        self._writing = []
        if not self._changes:
            self._closed.clear()

    def _keep(self, waiting: Open) -> None:
        self.open[waiting.asked.escalation_id] = waiting
        self._next_due = None
        value = encode(_Kept(*waiting))
        self._changes.append((_PUT, [(waiting.asked.escalation_id, 1, value)]))


_PUT = "INSERT OR REPLACE INTO escalations VALUES (?, ?, ?)"
