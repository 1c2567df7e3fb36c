"""Figures of reports as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domain.analytics.empowerment_gap import Share


def share_text(share: Share) -> str:
    """Return a share with its interval, e.g. ``93.3% (92.6% to 93.8%, n = 1,204)``; ``none`` if it is unknown."""
    if share["interval"] is None:
        return "none"
    low, high = share["interval"]
    return f"{share['share']:.1%} ({low:.1%} to {high:.1%}, n = {share['n']:,})"


def hours_text(hours: float | None) -> str:
    """Return a duration, e.g. ``48.6 h`` or ``12 min``."""
    return "" if hours is None else f"{hours:,.1f} h" if hours >= 2 else f"{hours * 60:.0f} min"  # noqa: PLR2004
