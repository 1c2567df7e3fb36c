"""Service quality: first-contact resolution, transfers, repeated stories, waiting, and their evenness.

A long interaction is not bad by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, NotRequired, TypedDict

import numpy as np

from domain.analytics.averages import count_interval, quantile_interval
from domain.analytics.empowerment_gap import Share, share
from domain.analytics.labels import Labels, distinct
from domain.statistics import one_rate_p

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    type Ints = NDArray[np.int64]
    type Floats = NDArray[np.float64]
    type Flags = NDArray[np.bool_]

DAY = 86_400.0
REPEAT_DAYS = 7
"""If a customer returns in the same matter within this many days, the first contact did not resolve the problem."""
FEW = 30
NOT_SAID = "not said"


type ShareName = Literal[
    "resolved",
    "first_contact",
    "one_touch",
    "transferred",
    "came_back_to_a_team",
    "stories_repeated",
    "first_line_only",
    "moved_up",
    "reopened",
    "repeat_contact",
]
"""A share in ``QualityFigures``."""


class Hours(TypedDict):
    """Hours of ``n`` interactions: their median and 90th percentile, with their 95 % intervals."""

    n: int
    median: float | None
    median_interval: list[float] | None
    p90: float | None
    p90_interval: list[float] | None


class QualityFigures(TypedDict):
    """The figures of a group of interactions, after the group's label if it is one of several."""

    channel: NotRequired[str]
    team: NotRequired[str]
    line: NotRequired[str]
    reason: NotRequired[str]
    interactions: int
    resolved: Share
    first_contact: Share
    one_touch: Share
    transferred: Share
    mean_transfers: float | None
    mean_transfers_interval: list[float] | None
    came_back_to_a_team: Share
    stories_repeated: Share
    first_line_only: Share
    moved_up: Share
    reopened: Share
    repeat_contact: Share
    hours_to_first_action: Hours
    hours_to_resolution: Hours


class Evenness(TypedDict):
    """The difference of a share across groups: the lowest and highest group, and the p-value of no difference."""

    what: ShareName
    by: str
    groups: int
    lowest: tuple[str, Share]
    highest: tuple[str, Share]
    p: float


class InteractionColumns(NamedTuple):
    """Interactions as columns; times are in seconds since 1970, and unknown times and numbers are nan.

    Customers, orders and reasons (``matter``) are whole numbers from 0, and -1 where the interaction names none.
    """

    customer: Ints
    channel: Labels
    team: Labels
    reason: Labels
    order: Ints
    matter: Ints
    opened: Floats
    first_resolved: Floats
    resolved: Floats
    first_action: Floats
    highest_line: Floats
    moved_up: Flags
    transfers: Ints
    came_back: Flags
    repeated_stories: Floats
    reopened: Ints

    def some(self, which: Flags | Ints) -> InteractionColumns:
        """Return the interactions of a mask or of indices."""
        return InteractionColumns._make(column[which] for column in self)


class Judged(NamedTuple):
    """Interactions, and whether their customers contacted again, for any reason (``back``) or in the same matter.

    Both are 1 or 0, nan where that is not known.
    """

    journeys: InteractionColumns
    back: Floats
    same_matter: Floats

    @property
    def first_contact(self) -> Floats:
        """First-contact resolution: 1, 0, or nan where unknown.

        It is 1 for an interaction that was resolved without transfer or reopening, and after which the customer did not
        come back in the same matter.
        """
        return np.where(np.isnan(self.same_matter), np.nan, (self.one_touch == 1) & (self.same_matter == 0))

    @property
    def one_touch(self) -> Floats:
        """1 for an interaction that was resolved without transfer or reopening, else 0; nan without a resolution."""
        one = self.journeys
        return np.where(np.isnan(one.first_resolved), np.nan, (one.transfers == 0) & (one.reopened == 0))

    def some(self, which: Flags | Ints) -> Judged:
        """Return the interactions of a mask or of indices."""
        return Judged(self.journeys.some(which), self.back[which], self.same_matter[which])


def judged(journeys: InteractionColumns, now: float) -> Judged:
    """Return each interaction with whether its customer contacted again until seven days after the first resolution.

    A contact is of the same matter if both name the same order. Where one names none, both have to name the same
    reason. The result is unknown (nan) without a customer or a resolution, and while the seven days are not over at
    ``now``.
    """
    one = journeys
    end = one.first_resolved + REPEAT_DAYS * DAY
    known = (one.customer >= 0) & (end <= now)
    ordered = one.order >= 0
    of_order = _follows(one, end, one.order, ordered)
    of_reason = _follows(one, end, one.matter, one.matter >= 0)
    of_reason_alone = _follows(one, end, one.matter, (one.matter >= 0) & ~ordered)
    back = _follows(one, end, np.zeros_like(one.customer), one.customer >= 0)
    same = np.where(ordered, of_order | of_reason_alone, of_reason)
    return Judged(journeys, np.where(known, back, np.nan), np.where(known, same, np.nan))


def _follows(of: InteractionColumns, end: Floats, label: Ints, pool: Flags) -> Flags:
    """Return whether a later contact of the pool, of the same customer and label, began by the end of each window."""
    begins = distinct(of.opened)
    width = begins.size + 1
    group = (of.customer * (int(label.max(initial=0)) + 1) + label) * width
    places = np.searchsorted(begins, of.opened)
    keys = np.sort((group + places)[pool & (of.customer >= 0)])
    last = np.searchsorted(begins, np.nan_to_num(end), side="right")
    count = np.searchsorted(keys, group + last) - np.searchsorted(keys, group + places + 1)
    return (count > 0) & (label >= 0) & (of.customer >= 0)


def line(some: Judged) -> QualityFigures:
    """Return the figures of a group of interactions."""
    of, n = some.journeys, some.back.size
    lined = ~np.isnan(of.highest_line)
    return {
        "interactions": n,
        "resolved": share(int((~np.isnan(of.resolved)).sum()), n),
        "first_contact": _share(some.first_contact),
        "one_touch": _share(some.one_touch),
        "transferred": share(int((of.transfers > 0).sum()), n),
        "mean_transfers": float(of.transfers.mean()) if n else None,
        "mean_transfers_interval": count_interval(int(of.transfers.sum()), int((of.transfers**2).sum()), n),
        "came_back_to_a_team": share(int(of.came_back.sum()), n),
        "stories_repeated": _share(np.where(np.isnan(of.repeated_stories), np.nan, of.repeated_stories > 0)),
        "first_line_only": share(int((of.highest_line == 1).sum()), int(lined.sum())),
        "moved_up": share(int(of.moved_up[lined].sum()), int(lined.sum())),
        "reopened": share(int((of.reopened > 0).sum()), n),
        "repeat_contact": _share(some.back),
        "hours_to_first_action": _hours(of.first_action - of.opened),
        "hours_to_resolution": _hours(of.resolved - of.opened),
    }


def _share(told: Floats) -> Share:
    """Return the share of 1 among 1 and 0; nan does not count."""
    return share(int((told == 1).sum()), int((~np.isnan(told)).sum()))


def _hours(seconds: Floats) -> Hours:
    hours = np.maximum(seconds[~np.isnan(seconds)], 0.0) / 3600
    middle, most = np.quantile(hours, (0.5, 0.9)) if hours.size else (None, None)
    return {
        "n": hours.size,
        "median": None if middle is None else float(middle),
        "median_interval": quantile_interval(hours),
        "p90": None if most is None else float(most),
        "p90_interval": quantile_interval(hours, 0.9),
    }


def groups(some: Judged) -> dict[str, list[tuple[str, QualityFigures]]]:
    """Return the figures by channel, first team, highest line and reason, the largest group first."""
    of = some.journeys
    levels, numbers = np.unique(of.highest_line, return_inverse=True)  # nan is one level
    lines = Labels(numbers, [NOT_SAID if np.isnan(level) else f"{level:.0f}" for level in levels])
    found = {}
    for name, labels in (("channel", of.channel), ("team", of.team), ("line", lines), ("reason", of.reason)):
        ends = np.cumsum(np.bincount(labels.numbers, minlength=len(labels.names)))
        places = np.split(np.argsort(labels.numbers, kind="stable"), ends)[:-1]
        of_label = [(label, mine) for label, mine in zip(labels.names, places, strict=True) if mine.size]
        ordered = sorted(of_label, key=lambda item: (-item[1].size, item[0]))
        found[name] = [(label, line(some.some(mine))) for label, mine in ordered]
    return found


def evenness(parts: Sequence[tuple[str, QualityFigures]], by: str, what: ShareName) -> Evenness | None:
    """Return how a share differs across groups of at least ``FEW``: lowest, highest, and the p-value of no difference.

    The test is Pearson's chi-squared. The result is ``None`` where fewer than two groups are large enough.
    """
    told = [(label, part[what]) for label, part in parts if part[what]["n"] >= FEW and label != NOT_SAID]
    table = [(one["k"], one["n"] - one["k"]) for _, one in told]
    if len(told) < 2 or 0 in map(sum, zip(*table, strict=True)):  # noqa: PLR2004 - two to compare
        return None
    ordered = sorted(told, key=lambda one: one[1]["share"] or 0.0)
    return {
        "what": what,
        "by": by,
        "groups": len(told),
        "lowest": ordered[0],
        "highest": ordered[-1],
        "p": one_rate_p(table),
    }
