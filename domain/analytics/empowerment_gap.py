"""The empowerment gap: requests that are approved anyway, the cost of asking, and limits worth raising.

Pure: takes requests for authority, and returns the figures of `report gap`. Approval does not prove that a request was
right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict

import numpy as np

from domain.analytics.averages import quantile_interval
from domain.matters import SECONDS
from domain.statistics import never_rising, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

BANDS = (0, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Lower edges of amount bands, in whole units of the currency."""
A_BAND = 30
"""The fewest decided requests for which a probability of approval is estimated."""
STAMP_SECONDS, STAMP_TIMES = 30.0, 20
THIS_LIMIT = ("per_action",)
"""The limits that a request met which a higher limit of one action would have spared."""
CASES = ((0.5, 0.0), (2.0, 0.0), (1.0, 0.1), (1.0, 0.25))
"""Other assumptions of a recommended limit: the factor of the cost of asking, and the share by which asks drift up."""


class AuthorityRequest(NamedTuple):
    """One request for authority: minor units, ``waited`` in seconds, ``outcome`` ``None`` while it is open."""

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
    rules: tuple[str, ...] | None
    """The limits that it met; ``None`` where another system does not tell."""
    matter: str | None
    seconds: float
    """When it was requested, in seconds since 1970."""
    agent_kind: str = "human"

    @property
    def anyway(self) -> bool:
        """True if the request was approved for the full amount."""
        return self.outcome == "approved" and self.approved >= self.minor

    @property
    def decided(self) -> bool:
        """True if an approver said yes or no; withdrawn and expired requests are not decided."""
        return self.outcome in ("approved", "denied")

    @property
    def band(self) -> str:
        """The band of the amount, such as ``20-50``."""
        return band_of(self.minor, self.digits)


@lru_cache(maxsize=1 << 14)
def band_of(minor: int, digits: int) -> str:
    """Return the band of an amount in a currency with so many ``digits`` after the point, e.g. ``20-50``."""
    units = minor / 10**digits
    place = max(at for at, edge in enumerate(BANDS) if units >= edge)
    return f"{BANDS[place]}-{BANDS[place + 1]}" if place + 1 < len(BANDS) else f"{BANDS[-1]}+"


class Share(TypedDict):
    """A share: ``k`` of ``n``, with its 95 % interval."""

    k: int
    n: int
    share: float | None
    interval: list[float] | None


class Waiting(TypedDict):
    """The hours that requests waited: of the ``n_to_approval`` approved ones, of the ``n`` decided ones, their sum."""

    n_to_approval: int
    median_hours_to_approval: float | None
    median_hours_to_approval_interval: list[float] | None
    p90_hours_to_approval: float | None
    p90_hours_to_approval_interval: list[float] | None
    n: int
    median_hours: float | None
    median_hours_interval: list[float] | None
    p90_hours: float | None
    p90_hours_interval: list[float] | None
    hours: float
    abandoned: int
    undecided: int


class Figures(TypedDict):
    """The figures of a group of requests, after the group's label if it is one of several."""

    kind: NotRequired[str]
    band: NotRequired[str]
    role: NotRequired[str]
    agent_kind: NotRequired[str]
    team: NotRequired[str]
    reason: NotRequired[str]
    asked: int
    approved_anyway: Share
    of_all_asked: Share
    waiting: Waiting


class Point[Amount](TypedDict):
    """The probability of approval of amounts in one band; ``risk`` is the loss that asking prevents."""

    up_to: Amount
    n: int
    approved: int
    smoothed: float
    lower: float
    risk: NotRequired[Amount | None]
    asking_costs_more: NotRequired[bool]


class Case[Amount](TypedDict):
    """The limit that would be recommended under another assumption."""

    cost_factor: float
    drift: float
    limit: Amount | None


class Advice(TypedDict):
    """A recommended limit in minor units, or ``None`` with the reason."""

    limit: float | None
    without_step: float | None
    cost_of_asking: float | None
    curve: list[Point[float]]
    approved: Share
    """The share of the requests within the limit that were approved anyway."""
    cases: list[Case[float]]
    why: str


class Shortfall(NamedTuple):
    """A request that the ledger told to escalate: its matter, kind and reason, and when, in seconds since 1970."""

    matter: str
    kind: str
    reason: str
    seconds: float


class Matter(NamedTuple):
    """A matter that was told to escalate, first at ``seconds`` since 1970.

    ``followed`` is ``None`` while an escalation may still follow.
    """

    kind: str
    reason: str
    followed: bool | None
    seconds: float


class RubberStamp(TypedDict):
    """Requests of one kind and role that are decided within seconds."""

    kind: str
    role: str
    n: int
    median_seconds: float
    median_seconds_interval: list[float] | None


class BlockedRemedy(TypedDict):
    """An action that the front line cannot do itself."""

    kind: str
    reason: str
    asked: int
    approved_anyway: int
    hours: float
    silent: int
    text: str


def share(hits: int, of: int) -> Share:
    """Return a share with its 95 % interval (Wilson 1927); both are ``None`` where nothing was counted."""
    if of == 0:
        return {"k": 0, "n": 0, "share": None, "interval": None}
    return {"k": hits, "n": of, "share": hits / of, "interval": list(wilson_interval(hits, of))}


def waiting(asked: Sequence[AuthorityRequest]) -> Waiting:
    """Return the hours waited: median and 90th percentile of decided requests, their sum, and the number given up."""
    hours = [one.waited / 3600 for one in asked if one.waited is not None and one.decided]
    waits = np.array(hours)
    yes = np.array([one.waited / 3600 for one in asked if one.waited is not None and one.outcome == "approved"])
    return {
        "n_to_approval": len(yes),
        "median_hours_to_approval": float(np.median(yes)) if len(yes) else None,
        "median_hours_to_approval_interval": quantile_interval(yes),
        "p90_hours_to_approval": float(np.quantile(yes, 0.9)) if len(yes) else None,
        "p90_hours_to_approval_interval": quantile_interval(yes, 0.9),
        "n": len(waits),
        "median_hours": float(np.median(waits)) if hours else None,
        "median_hours_interval": quantile_interval(waits),
        "p90_hours": float(np.quantile(waits, 0.9)) if hours else None,
        "p90_hours_interval": quantile_interval(waits, 0.9),
        "hours": sum(hours),
        "abandoned": sum(one.outcome in ("withdrawn", "expired") for one in asked),
        "undecided": sum(one.outcome is None for one in asked),
    }


def line(asked: Sequence[AuthorityRequest]) -> Figures:
    """Return the figures of a group of requests: the share approved anyway, of decided and of all, and the waiting."""
    anyway = sum(one.anyway for one in asked)
    return {
        "asked": len(asked),
        "approved_anyway": share(anyway, sum(one.decided for one in asked)),
        "of_all_asked": share(anyway, len(asked)),
        "waiting": waiting(asked),
    }


def grouped(asked: Sequence[AuthorityRequest], of: Callable[[AuthorityRequest], str]) -> list[tuple[str, Figures]]:
    """Return the figures of requests by a label; the group with the most requests comes first."""
    some = defaultdict[str, list[AuthorityRequest]](list)
    for one in asked:
        some[of(one)].append(one)
    ordered = sorted(some.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(label, line(mine)) for label, mine in ordered]


def by_band(asked: Sequence[AuthorityRequest]) -> list[tuple[str, Figures]]:
    """Return the figures by currency and amount band, such as ``20-50 GBP``; the lowest band comes first."""
    found = grouped(asked, lambda one: f"{one.band} {one.currency}")
    return sorted(found, key=lambda item: (item[0].split()[1], int(re.split("[-+]", item[0])[0])))


def matters(told: Sequence[Shortfall], filings: Iterable[tuple[str, float]], now: float) -> list[Matter]:
    """Return each matter that was told to escalate, and whether an escalation of it was filed within seven days.

    ``told`` is in the order of the log, ``filings`` are the matters and times of escalations. The seven days begin with
    each time that the matter was told. While they are not over at ``now``, it is not known.
    """
    filed = defaultdict[str, list[float]](list)
    for matter, seconds in filings:
        filed[matter].append(seconds)
    some = defaultdict[str, list[Shortfall]](list)
    for short in told:
        some[short.matter].append(short)
    found: list[Matter] = []
    for matter, times in some.items():
        followed = any(
            short.seconds <= at <= short.seconds + SECONDS for short in times for at in filed.get(matter, ())
        )
        over = max(short.seconds for short in times) + SECONDS <= now
        found.append(Matter(times[0].kind, times[0].reason, followed if over else None, times[0].seconds))
    return found


def curve(asked: Iterable[AuthorityRequest]) -> list[Point[float]]:
    """Return the probability of approval by amount, in bands of at least ``A_BAND`` requests.

    Isotonic regression makes the probability never rise with the amount. ``lower`` is Wilson's lower 95 % bound of the
    bands that the regression pools.
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
    found: list[Point[float]] = []
    for place, band in enumerate(bands):
        same = [at for at in range(len(bands)) if abs(fitted[at] - fitted[place]) < 1e-12]  # noqa: PLR2004
        lower, _ = wilson_interval(sum(yes[at] for at in same), sum(weights[at] for at in same))
        found.append(
            {
                "up_to": band[-1].minor,
                "n": len(band),
                "approved": yes[place],
                "smoothed": fitted[place],
                "lower": lower,
            }
        )
    return found


def recommended(asked: Sequence[AuthorityRequest], cost: float | None, today: int | None) -> Advice:
    """Return the recommended limit: the largest observed amount x at which asking costs more than (1 - a(x)) x.

    a(x) is the lower bound of the probability of approval (see `curve`). A step is at most twice today's limit.
    ``asked`` are requests of one kind and currency that met this limit alone; ``cost`` is that of a request in minor
    units.
    """
    points = curve(asked)
    if not points or cost is None:
        why = "the policy in force names no agent_hour and manager_hour in this currency (`costs`)"
        if not points:
            why = f"fewer than {A_BAND} requests that met this limit alone were decided"
        return Advice(
            limit=None, without_step=None, cost_of_asking=cost, curve=points, approved=share(0, 0), cases=[], why=why
        )
    worth: list[Point[float]] = [
        {**point, "risk": _risk(point), "asking_costs_more": cost > _risk(point)} for point in points
    ]
    limit = _highest(points, cost)
    step = _step(limit, today)
    within = [one for one in asked if step is not None and one.minor <= step and one.decided]
    return {
        "limit": step,
        "without_step": limit,
        "cost_of_asking": cost,
        "curve": worth,
        "approved": share(sum(one.anyway for one in within), len(within)),
        "cases": [
            {
                "cost_factor": factor,
                "drift": drift,
                "limit": _step(_highest(points, cost * factor, drift), today),
            }
            for factor, drift in CASES
        ],
        "why": "the largest amount observed at which asking costs more than the loss it may prevent"
        if limit is not None
        else "at no amount observed does asking cost more than the loss it may prevent",
    }


def _risk(point: Point[float], drift: float = 0.0) -> float:
    """Return the loss that asking prevents at an amount.

    It is the amount of the requests that are not approved, and the part by which the amount of the others drifted up.
    """
    amount = point["up_to"] * (1 + drift)
    return (1 - point["lower"]) * amount + point["lower"] * (amount - point["up_to"])


def _highest(points: Sequence[Point[float]], cost: float, drift: float = 0.0) -> float | None:
    """Return the highest amount at which asking costs more than the loss that it prevents."""
    return max((point["up_to"] * (1 + drift) for point in points if cost > _risk(point, drift)), default=None)


def _step(limit: float | None, today: int | None) -> float | None:
    """Return the limit, at most twice today's."""
    return limit if limit is None or today is None else min(limit, 2 * today)


def rubber_stamps(asked: Sequence[AuthorityRequest]) -> list[RubberStamp]:
    """Return kinds and roles decided in under 30 s, at least twenty times: a sign that the limit is too low."""
    some = defaultdict[tuple[str, str], list[float]](list)
    for one in asked:
        if one.decided and one.waited is not None:
            some[one.kind, one.role].append(one.waited)
    return [
        {
            "kind": kind,
            "role": role,
            "n": len(waits),
            "median_seconds": median(waits),
            "median_seconds_interval": quantile_interval(np.array(waits)),
        }
        for (kind, role), waits in sorted(some.items())
        if len(waits) >= STAMP_TIMES and median(waits) < STAMP_SECONDS
    ]


def cannot_do(asked: Sequence[AuthorityRequest], silent: Mapping[tuple[str, str], int]) -> list[BlockedRemedy]:
    """Return the actions that the front line cannot do itself, the most frequent first.

    ``silent`` counts, by kind and reason, attempts that were blocked and not escalated. Each item's ``text`` reads e.g.
    ``Keep item, broken: 91 blocked, 4 escalated; 3 approved in full, 12.5 hours waited``.
    """
    some = defaultdict[tuple[str, str], list[AuthorityRequest]](list)
    for one in asked:
        some[one.kind, one.reason].append(one)
    found: list[BlockedRemedy] = []
    for kind, reason in dict.fromkeys((*some, *silent)):
        mine, blocked = some.get((kind, reason), []), silent.get((kind, reason), 0)
        decided = [one for one in mine if one.decided]
        yes, hours = sum(one.anyway for one in decided), sum(one.waited or 0.0 for one in decided) / 3600
        text = f"{kind.replace('_', ' ').capitalize()}, {reason}: {blocked} blocked, {len(mine)} escalated"
        found.append(
            {
                "kind": kind,
                "reason": reason,
                "asked": len(mine),
                "approved_anyway": yes,
                "hours": hours,
                "silent": blocked,
                "text": f"{text}; {yes} approved in full, {hours:,.1f} hours waited" if mine else text,
            }
        )
    return sorted(found, key=lambda one: (-(one["asked"] + one["silent"]), one["kind"], one["reason"]))
