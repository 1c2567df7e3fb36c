"""The registry of projections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections.views.audit_trail import Trail
from projections.views.authority import Authority
from projections.views.balances import Balances
from projections.views.casework import Casework
from projections.views.decisions import Decisions
from projections.views.flags import Flags
from projections.views.journeys import Journeys
from projections.views.loyalty import Loyalty
from projections.views.people import People

if TYPE_CHECKING:
    from collections.abc import Callable

    from projections.engine.projection import Projection

MODELS: dict[str, Callable[[], Projection]] = {
    Authority.name: Authority,
    Balances.name: Balances,
    Casework.name: Casework,
    Decisions.name: Decisions,
    Flags.name: Flags,
    Journeys.name: Journeys,
    Loyalty.name: Loyalty,
    People.name: People,
    Trail.name: Trail,
}
"""Factory by name; each runner creates its own projection."""
