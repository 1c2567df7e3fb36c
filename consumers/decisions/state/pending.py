"""Pending work: open escalations, and facts that must still be posted to a budget."""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import TYPE_CHECKING

import msgspec

from domain.decisions.approvals import Open
from domain.decisions.fact_postings import DuePosting
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
_PUT_ESCALATION = "INSERT OR REPLACE INTO escalations VALUES (?, ?, ?)"


class _StoredEscalation(msgspec.Struct):
    asked: EscalationRequested
    at: datetime
    to: tuple[str, ...]
    due: datetime


class PendingWork:
    """The open escalations and due postings in memory, with the changes to be written to the index."""

    def __init__(self, index: EventIdIndex) -> None:
        index.table(_SCHEMA)
        self._index = index
        self.open: dict[str, Open] = {}
        self.dues: dict[int, DuePosting] = {}
        self._changes: list[Change] = []
        self._closed: dict[str, str] = {}  # not written yet
        self._next_due: float | None = None
        for (value,) in index.rows("SELECT value FROM escalations WHERE open = 1"):
            stored = decode(_StoredEscalation, value)
            self.open[stored.asked.escalation_id] = Open(stored.asked, stored.at, stored.to, stored.due)
        for row in index.rows("SELECT position, what, action, holder FROM dues ORDER BY position"):
            self.dues[row[0]] = DuePosting(*row)

    def verdict_on(self, escalation_id: str) -> str | None:
        """Return the last step of a closed escalation, e.g. ``approved``; ``None`` where the escalation is unknown."""
        if escalation_id in self._closed:
            return self._closed[escalation_id]
        rows = self._index.rows("SELECT value FROM escalations WHERE id = ? AND open = 0", (escalation_id,))
        return bytes(rows[0][0]).decode() if rows else None

    def due_by(self, moment: float) -> list[Open]:
        """Return the escalations past their deadline."""
        if self._next_due is None:
            self._next_due = min((escalation.due.timestamp() for escalation in self.open.values()), default=inf)
        if self._next_due > moment:
            return []
        return [escalation for escalation in self.open.values() if escalation.due.timestamp() <= moment]

    def add_escalation(self, record: EscalationRequested, at: datetime) -> None:
        """Add an open escalation."""
        self._put(Open(record, at, record.to, record.due))

    def make_due(self, agent_id: str, at: datetime) -> None:
        """Let the open escalations of an agent be due at a moment, unless they are due before."""
        for escalation in list(self.open.values()):
            due = max(at, escalation.at)
            if escalation.asked.agent_id == agent_id and due < escalation.due:
                self._put(escalation._replace(due=due))

    def apply_step(self, record: EscalationStep) -> None:
        """Forward an escalation, or close it."""
        escalation = self.open.get(record.escalation_id)
        if isinstance(record, EscalationForwarded):
            if escalation is not None:
                self._put(escalation._replace(to=record.to, due=record.due))
            return
        self.open.pop(record.escalation_id, None)
        self._next_due = None
        self._closed[record.escalation_id] = record.status
        self._changes.append((_PUT_ESCALATION, [(record.escalation_id, 0, record.status.encode())]))

    def add_due(self, due: DuePosting) -> None:
        """Add a posting that is due."""
        self.dues[due.position] = due
        self._changes.append(("INSERT OR REPLACE INTO dues VALUES (?, ?, ?, ?)", [tuple(due)]))

    def remove_due(self, position: int) -> None:
        """Remove the posting of a fact, which was made or is no longer due."""
        if self.dues.pop(position, None) is not None:
            self._changes.append(("DELETE FROM dues WHERE position = ?", [(position,)]))

    def take_changes(self) -> list[Change]:
        """Return the changes to write; call ``on_written`` after they were written."""
        changes, self._changes = self._changes, []
        return changes

    def on_written(self) -> None:
        """Forget closed escalations that the index has now."""
        if not self._changes:
            self._closed.clear()

    def _put(self, escalation: Open) -> None:
        self.open[escalation.asked.escalation_id] = escalation
        self._next_due = None
        value = encode(_StoredEscalation(*escalation))
        self._changes.append((_PUT_ESCALATION, [(escalation.asked.escalation_id, 1, value)]))
