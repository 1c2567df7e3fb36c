"""The answers of every view."""

from __future__ import annotations

from typing import Any

from app.runtime.session import Session
from app.runtime.views import read_view
from projections.engine import temporal_tables
from projections.engine.pages import PageRequest
from projections.views import casework
from projections.views.audit_trail import read_trail
from projections.views.balances import read_balances
from projections.views.loyalty import read_effects
from tests.support.documents import Document


async def all_views(session: Session, at: int | None = None) -> list[Any]:
    """Return the answer of every view, as of a position (the newest, unless named)."""
    actions, escalations = temporal_tables.as_of(casework.actions, at), temporal_tables.as_of(casework.escalations, at)
    readings: Document = {
        "budget_balances": lambda c: read_balances(c, position=at),
        "loyalty_effects": lambda c: read_effects(c, PageRequest(at=at)),
        "audit_trail": lambda c: read_trail(c, page=PageRequest(at=at)),
    }
    found = [(await read_view(session, name, reading)).result for name, reading in readings.items()]
    found.append((await read_view(session, "casework", lambda c: casework.read_actions(c, source=actions))).result)
    return [
        *found,
        (await read_view(session, "casework", lambda c: casework.read_escalations(c, source=escalations))).result,
    ]
