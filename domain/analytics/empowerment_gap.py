"""The empowerment gap: what goes up to be approved anyway, what asking costs, which limit would be worth more.

Pure: takes what was asked, gives the figures of `report gap`. Approval is no proof of being right.
"""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from domain.statistics import never_rising, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

BANDS = (0, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Lower edges of amount bands, in whole units of the currency."""
A_BAND = 30
"""The fewest decided requests from which a probability of approval is read."""
STAMP_SECONDS, STAMP_TIMES = 30.0, 20
MINUTES_AT_MOST = 60.0
"""Nobody sits idle while a request waits for days: so much of its waiting is counted as work, for each of the two."""


class AuthorityRequest(NamedTuple):
    """One request for authority. Amounts in minor units; ``waited`` in seconds; ``outcome`` none while it waits."""

    position: int
    kind: str
    reason: str
    role: str
    team: str
    currency: str
    minor: int
    digits: int
    outcome: str | None
    approved: int
    waited: float | None
    decided_by: str | None
    month: str

    @property
    def anyway(self) -> bool:
        """Approved for the full amount asked."""
        return self.outcome == "approved" and self.approved >= self.minor

    @property
    def decided(self) -> bool:
        """Whether somebody said yes or no: an outcome that came, and not by giving up."""
        return self.outcome in ("approved", "denied")

    @property
    def band(self) -> str:
        """The band of its amount, such as ``20-50``."""
        return band_of(self.minor, self.digits)


def band_of(minor: int, digits: int) -> str:
    """The band of an amount with so many digits behind the point."""
    units = minor / 10**digits
    place = max(at for at, edge in enumerate(BANDS) if units >= edge)
    return f"{BANDS[place]}-{BANDS[place + 1]}" if place + 1 < len(BANDS) else f"{BANDS[-1]}+"


class Costs(NamedTuple):
    """What an hour costs, in minor units of one currency; ``none`` where the policy does not say."""

    agent_hour: int | None = None
    manager_hour: int | None = None
    customer_hour: int | None = None


def share(hits: int, of: int) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson 1927); none of it where nothing was counted."""
    if of == 0:
        return {"k": 0, "n": 0, "share": None, "interval": None}
    return {"k": hits, "n": of, "share": hits / of, "interval": list(wilson_interval(hits, of))}


def waiting(asked: Sequence[AuthorityRequest]) -> dict[str, Any]:
    """Hours waited: median and 90th percentile of what was decided, the sum, and how many were given up."""
    waits = [one.waited / 3600 for one in asked if one.waited is not None and one.decided]
    yes = [one.waited / 3600 for one in asked if one.waited is not None and one.outcome == "approved"]
    return {
        "median_hours_to_approval": median(yes) if yes else None,
        "p90_hours_to_approval": float(np.quantile(yes, 0.9)) if yes else None,
        "n": len(waits),
        "median_hours": median(waits) if waits else None,
        "p90_hours": float(np.quantile(waits, 0.9)) if waits else None,
        "hours": sum(waits),
        "abandoned": sum(one.outcome in ("withdrawn", "expired") for one in asked),
        "undecided": sum(one.outcome is None for one in asked),
    }


def line(asked: Sequence[AuthorityRequest]) -> dict[str, Any]:
    """What there is to say of some requests: approved anyway, of those decided and of all that were made; waiting."""
    anyway = sum(one.anyway for one in asked)
    return {
        "asked": len(asked),
        "approved_anyway": share(anyway, sum(one.decided for one in asked)),
        "of_all_asked": share(anyway, len(asked)),
        "waiting": waiting(asked),
    }


_GROUPS: dict[str, Callable[[AuthorityRequest], str]] = {
    "kind": lambda one: one.kind,
    "band": lambda one: f"{one.band} {one.currency}",
    "role": lambda one: one.role,
    "team": lambda one: one.team,
    "reason": lambda one: one.reason,
}


def groups(asked: Sequence[AuthorityRequest]) -> dict[str, list[dict[str, Any]]]:
    """The same by kind, amount band, role, team and reason, the most asked first."""
    found = {}
    for name, of in _GROUPS.items():
        some = defaultdict[str, list[AuthorityRequest]](list)
        for one in asked:
            some[of(one)].append(one)
        ordered = sorted(some.items(), key=lambda item: (-len(item[1]), item[0]))
        if name == "band":
            ordered.sort(key=lambda item: (item[1][0].currency, int(item[0].split("-")[0].split("+")[0])))
        found[name] = [{name: key, **line(mine)} for key, mine in ordered]
    return found


def cost_of_asking(waited: float, costs: Costs) -> float | None:
    """Minor units: waiting minutes of agent and approver at their rates, at most an hour of each."""
    if costs.agent_hour is None or costs.manager_hour is None:
        return None
    minutes = min(waited / 60, MINUTES_AT_MOST)
    return minutes / 60 * (costs.agent_hour + costs.manager_hour)


def curve(asked: Iterable[AuthorityRequest]) -> list[dict[str, Any]]:
    """The probability of approval by amount: bands of thirty or more, never rising (isotonic), with its lower bound.

    The lower 95 % bound is Wilson's, of the bands that isotonic regression puts together.
    """
    ordered = sorted((one for one in asked if one.decided), key=lambda one: one.minor)
    bands: list[list[AuthorityRequest]] = []
    for one in ordered:
        if bands and (len(bands[-1]) < max(A_BAND, len(ordered) // 50) or bands[-1][-1].minor == one.minor):
            bands[-1].append(one)
        else:
            bands.append([one])
    if len(bands) > 1 and len(bands[-1]) < A_BAND:
        last = bands.pop()
        bands[-1] += last
    if not bands or len(bands[0]) < A_BAND:
        return []
    yes = [sum(one.anyway for one in band) for band in bands]
    weights = [len(band) for band in bands]
    fitted = never_rising([k / n for k, n in zip(yes, weights, strict=True)], weights)
    found = []
    for place, band in enumerate(bands):
        same = [at for at in range(len(bands)) if abs(fitted[at] - fitted[place]) < 1e-12]  # noqa: PLR2004
        pooled = share(sum(yes[at] for at in same), sum(weights[at] for at in same))
        found.append(
            {
                "up_to": band[-1].minor,
                "n": len(band),
                "approved": yes[place],
                "smoothed": fitted[place],
                "lower": pooled["interval"][0],
            }
        )
    return found


def recommended(asked: Sequence[AuthorityRequest], costs: Costs, today: int | None) -> dict[str, Any]:
    """The largest amount observed at which asking costs more than (1 - a(x)) x; at most twice today's limit at a step.

    a(x) is the lower bound of the probability of approval (see `curve`). ``asked`` are of one kind and currency.
    """
    points, waits = curve(asked), [one.waited for one in asked if one.waited is not None and one.decided]
    cost = cost_of_asking(median(waits), costs) if waits else None
    if not points or cost is None:
        why = "the policy in force names no agent_hour and manager_hour in this currency (`costs`)"
        if not points:
            why = f"fewer than {A_BAND} requests were decided"
        return {"limit": None, "why": why, "curve": points, "cost_of_asking": cost}
    worth = [
        {
            **point,
            "risk": (1 - point["lower"]) * point["up_to"],
            "asking_costs_more": cost > (1 - point["lower"]) * point["up_to"],
        }
        for point in points
    ]
    reached = [point["up_to"] for point in worth if point["asking_costs_more"]]
    limit = max(reached, default=None)
    step = limit if limit is None or today is None else min(limit, 2 * today)
    month = max((one.month for one in asked if one.decided), default="")
    within = [one for one in asked if step is not None and one.minor <= step and one.month == month and one.decided]
    return {
        "limit": step,
        "without_step": limit,
        "today": today,
        "cost_of_asking": cost,
        "curve": worth,
        "last_period": {
            "period": month,
            "requests": len(within),
            "saved": cost * len(within),
            "hours_not_waited": sum((one.waited or 0.0) for one in within) / 3600,
            "risked": sum(one.minor for one in within if not one.anyway),
        },
        "why": "the largest amount observed at which asking costs more than what it might prevent"
        if reached
        else "at no amount observed does asking cost more than what it might prevent",
    }


def rubber_stamps(asked: Sequence[AuthorityRequest]) -> list[dict[str, Any]]:
    """Kinds and roles decided in under 30 s, twenty times or more: a limit too low, not a sin."""
    some = defaultdict[tuple[str, str], list[float]](list)
    for one in asked:
        if one.decided and one.waited is not None:
            some[one.kind, one.role].append(one.waited)
    return [
        {"kind": kind, "role": role, "n": len(waits), "median_seconds": median(waits)}
        for (kind, role), waits in sorted(some.items())
        if len(waits) >= STAMP_TIMES and median(waits) < STAMP_SECONDS
    ]


def cannot_do(asked: Sequence[AuthorityRequest], silent: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    """What the front line cannot do, in plain words, what happens most first. ``silent`` by kind and reason."""
    some = defaultdict[tuple[str, str], list[AuthorityRequest]](list)
    for one in asked:
        some[one.kind, one.reason].append(one)
    found = []
    for (kind, reason), mine in some.items():
        decided, given_up = [one for one in mine if one.decided], silent.get((kind, reason), 0)
        yes = sum(one.anyway for one in decided)
        hours = sum(one.waited or 0.0 for one in decided) / 3600
        text = f"{kind} for {reason}: asked {len(mine)} times, approved as asked {yes}, customers waited {hours:,.1f} h"
        if given_up:
            text += f"; {given_up} times more they gave up without asking"
        found.append(
            {
                "kind": kind,
                "reason": reason,
                "asked": len(mine),
                "approved_anyway": yes,
                "hours": hours,
                "silent": given_up,
                "text": text,
            }
        )
    for (kind, reason), given_up in silent.items():
        if (kind, reason) not in some:
            text = f"{kind} for {reason}: {given_up} times they could not and did not ask"
            found.append(
                {
                    "kind": kind,
                    "reason": reason,
                    "asked": 0,
                    "approved_anyway": 0,
                    "hours": 0.0,
                    "silent": given_up,
                    "text": text,
                }
            )
    return sorted(found, key=lambda one: (-(one["asked"] + one["silent"]), one["kind"], one["reason"]))
