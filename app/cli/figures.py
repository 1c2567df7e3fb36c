"""Figures of reports as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.analytics.empowerment_gap import Share
    from domain.analytics.satisfaction import Satisfaction


def share_text(share: Share) -> str:
    """Return a share with its interval, e.g. ``93.3% (92.6% to 93.8%, n = 1,204)``; ``none`` if it is unknown."""
    if share["interval"] is None:
        return "none"
    low, high = share["interval"]
    return f"{share['share']:.1%} ({low:.1%} to {high:.1%}, n = {share['n']:,})"


def caveats_text(rung: int, caveats: Sequence[str]) -> str:
    """Return the evidence level of all figures of a report, and its caveats."""
    return f"Evidence level {rung}: descriptions. Caveats: {'; '.join(caveats)}."


def quantile_text(hours: float | None, interval: Sequence[float] | None, n: int) -> str:
    """Return a quantile of ``n`` durations with its interval, if any, e.g. ``48.6 h (40.2 h to 52.0 h, n = 12)``."""
    if hours is None:
        return ""
    ends = "" if interval is None else f"{' to '.join(map(hours_text, interval))}, "
    return f"{hours_text(hours)} ({ends}n = {n:,})"


def hours_text(hours: float | None) -> str:
    """Return a duration, e.g. ``48.6 h`` or ``12 min``."""
    return "" if hours is None else f"{hours:,.1f} h" if hours >= 2 else f"{hours * 60:.0f} min"  # noqa: PLR2004


def satisfaction_text(one: Satisfaction) -> str:
    """Return the figures of an instrument, e.g. ``81.0% (78.1% to 83.6%, n = 800) at 4 or better; mean 4.10``."""
    low, high = one["interval"] or (one["mean"], one["mean"])
    parts = [f"mean {one['mean']:.2f} ({low:.2f} to {high:.2f}, n = {one['n']:,})"]
    if one["satisfied"] is not None:
        parts.insert(0, f"{share_text(one['satisfied'])} at {one['threshold']:g} or better")
    if one["points"] is not None and one["points_interval"] is not None:
        low, high = one["points_interval"]
        parts.insert(0, f"{one['points']:+.0f} points ({low:+.0f} to {high:+.0f})")
    if one["response"]["n"]:
        parts.append(f"{share_text(one['response'])} of the interactions answered")
    return "; ".join(parts)
