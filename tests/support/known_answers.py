"""Figures of the real data sets, computed from `audit replay` alone."""

from __future__ import annotations

import itertools
from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING

from tests.support.documents import Document

if TYPE_CHECKING:
    from collections.abc import Iterable


def totals(events: Iterable[Document], name: str) -> tuple[int, Decimal]:
    """Return the number of events of a type and the sum of their totals."""
    amounts = [Decimal(event["data"]["total"]["amount"]) for event in events if event["type"] == name]
    return len(amounts), sum(amounts, Decimal(0))


def interactions(events: Iterable[Document]) -> dict[str, float]:
    """Return percentages of all interactions: on the first line alone, moved up, returned to a team, reopened."""
    lines: dict[str, list[int]] = defaultdict(list)
    teams: dict[str, list[str]] = defaultdict(list)
    reopened: set[str] = set()
    for event in events:
        data = event["data"]
        match event["type"]:
            case "resolution.interaction.opened.v1":
                lines[data["interaction_id"]].append(data["line"])
                teams[data["interaction_id"]].append(data["team_id"])
            case "resolution.interaction.transferred.v1":
                lines[data["interaction_id"]].append(data["line"])
                teams[data["interaction_id"]].append(data["to_team_id"])
            case "resolution.interaction.reopened.v1":
                reopened.add(data["interaction_id"])
            case _:
                pass
    n = len(lines)
    moved_up = sum(any(b > a for a, b in itertools.pairwise(way)) for way in lines.values())
    return {
        "opened": n,
        "first_line_only": round(100 * sum(set(way) == {1} for way in lines.values()) / n, 2),
        "moved_up": round(100 * moved_up / n, 2),
        "came_back": round(100 * sum(_came_back(way) for way in teams.values()) / n, 2),
        "reopened": round(100 * len(reopened) / n, 1),
    }


def _came_back(teams: list[str]) -> bool:
    left: set[str] = set()
    for before, now in itertools.pairwise(teams):
        if now != before:
            left.add(before)
            if now in left:
                return True
    return False


def escalations(events: Iterable[Document]) -> dict[str, float]:
    """Return the numbers of reported and approved escalations, and the median hours between report and approval."""
    reported: dict[str, datetime] = {}
    approved: dict[str, datetime] = {}
    for event in events:
        at = datetime.fromisoformat(event["time"])
        name = event["data"].get("escalation_id")
        if event["type"] == "resolution.escalation.reported.v1":
            reported.setdefault(name, at)
        elif event["type"] == "resolution.escalation.outcome_reported.v1" and event["data"]["verdict"] == "approved":
            approved.setdefault(name, at)
    hours = [(approved[name] - reported[name]).total_seconds() / 3600 for name in approved]
    return {"reported": len(reported), "approved": len(approved), "median_hours": round(median(hours), 1)}
