"""Unused authority: the share of closed budgets that was spent. Little use may be fear or missing training."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from domain.analytics.empowerment_gap import Share, share
from domain.statistics import student_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTACTS = 10
"""The fewest contacts of a holder whose budgets count: fewer gave no occasion to use authority."""
HARDLY = 0.1
"""The part of a budget below which it was hardly used."""


class BudgetUse(NamedTuple):
    """The budget of a period: its holder, and the amounts spent and granted over the period's life, in minor units."""

    holder: str
    spent: int
    granted: int

    @property
    def share(self) -> float:
        """The part of the budget that was spent."""
        return self.spent / self.granted

    @property
    def is_hardly_touched(self) -> bool:
        """True if less than a tenth of the budget was spent."""
        return self.share < HARDLY


class UnusedAuthority(TypedDict):
    """Agents' budgets of closed periods, and how much of them was used; ``interval`` is that of ``mean_use``."""

    budgets: int
    hardly_touched: Share
    agents: int
    mean_use: float | None
    interval: list[float] | None


def unused(budgets: Sequence[BudgetUse]) -> UnusedAuthority:
    """Return how much of the granted budgets was used: the share hardly used, and the mean with its 95 % interval."""
    used = [one for one in budgets if one.granted > 0]
    parts = [one.share for one in used]
    hardly = [one.holder for one in used if one.is_hardly_touched]
    mean = fmean(parts) if parts else None
    squares = sum((part - mean) ** 2 for part in parts) if mean is not None else 0.0
    most = max(1.0, *parts) if parts else 1.0  # reported actions may overdraw a budget
    return {
        "budgets": len(used),
        "hardly_touched": share(len(hardly), len(used)),
        "agents": len(set(hardly)),
        "mean_use": mean,
        "interval": None if mean is None else student_interval(mean, squares, len(parts), 0.0, most),
    }
