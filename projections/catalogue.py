"""The projections there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projections.authority import Authority
from projections.balances import Balances
from projections.casework import Casework
from projections.decisions import Decisions
from projections.flags import Flags
from projections.journeys import Journeys
from projections.loyalty import Loyalty
from projections.people import People
from projections.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Callable

    from projections.model import Model

MODELS: dict[str, Callable[[], Model]] = {
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
"""Name -> how to make one; each runner makes its own."""
