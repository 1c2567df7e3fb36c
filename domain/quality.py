"""Service quality: solved on the first contact, transfers, repeated stories, waiting, satisfaction, and how even it is.

Long is not bad by itself, and satisfaction is never read as loyalty.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import chi2_contingency, t

from domain.gap import share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

DAY = 86_400.0
REPEAT_DAYS = 7
"""A customer who is back within so many days was not helped on the first contact."""
FEW = 30
NOT_SAID = "not said"


class Journey(NamedTuple):
    """One interaction; times in seconds of the epoch, ``resolved`` none while it is open."""

    customer: str | None
    channel: str
    team: str
    reason: str
    opened: float
    resolved: float | None
    first_action: float | None
    highest_line: int | None
    moved_up: bool
    transfers: int
    came_back: bool
    repeated_stories: int | None
    reopened: int


class Answer(NamedTuple):
    """What a customer said, between 0 (worst) and 1 (best)."""

    instrument: str
    score: float
    channel: str
    team: str


class Judged(NamedTuple):
    """An interaction, and whether its customer came back soon: none where that is not known yet, or never."""

    journey: Journey
    back: bool | None

    @property
    def first_contact(self) -> bool | None:
        """Resolved by who was first, not reopened, and the customer did not come back; none where not known yet."""
        one = self.journey
        if one.resolved is None or one.transfers or one.reopened or self.back:
            return False if one.resolved is not None or one.transfers or one.reopened else None
        return None if one.customer is not None and self.back is None else True


def judged(journeys: Sequence[Journey], now: float) -> list[Judged]:
    """Each interaction with whether its customer opened another within seven days of its being resolved.

    Where it was resolved less than seven days ago that is not known yet; without a customer nobody can know.
    """
    opened = defaultdict[str, list[float]](list)
    for one in journeys:
        if one.customer is not None:
            opened[one.customer].append(one.opened)
    for times in opened.values():
        times.sort()
    found = []
    for one in journeys:
        back: bool | None = None
        if one.customer is not None and one.resolved is not None:
            times, end = opened[one.customer], max(one.resolved, one.opened)
            after = bisect_right(times, one.opened)
            if after < len(times) and times[after] <= end + REPEAT_DAYS * DAY:
                back = True
            elif end + REPEAT_DAYS * DAY <= now:
                back = False
        found.append(Judged(one, back))
    return found


def line(some: Sequence[Judged]) -> dict[str, Any]:
    """What there is to say of some interactions."""
    all_of = [one.journey for one in some]
    known = [one.first_contact for one in some if one.first_contact is not None]
    back = [one.back for one in some if one.back is not None]
    stories = [one.repeated_stories for one in all_of if one.repeated_stories is not None]
    lined = [one.highest_line for one in all_of if one.highest_line is not None]
    return {
        "interactions": len(all_of),
        "resolved": share(sum(one.resolved is not None for one in all_of), len(all_of)),
        "first_contact": share(sum(known), len(known)),
        "transferred": share(sum(one.transfers > 0 for one in all_of), len(all_of)),
        "mean_transfers": fmean(one.transfers for one in all_of) if all_of else None,
        "came_back_to_a_team": share(sum(one.came_back for one in all_of), len(all_of)),
        "stories_repeated": share(sum(told > 0 for told in stories), len(stories)),
        "first_line_only": share(sum(one == 1 for one in lined), len(lined)),
        "moved_up": share(sum(one.moved_up for one in all_of if one.highest_line is not None), len(lined)),
        "reopened": share(sum(one.reopened > 0 for one in all_of), len(all_of)),
        "repeat_contact": share(sum(back), len(back)),
        "hours_to_first_action": _hours(
            one.first_action - one.opened for one in all_of if one.first_action is not None
        ),
        "hours_to_resolution": _hours(one.resolved - one.opened for one in all_of if one.resolved is not None),
    }


def _hours(seconds: Iterable[float]) -> dict[str, Any]:
    hours = [max(0.0, one) / 3600 for one in seconds]
    return {"n": len(hours), "median": median(hours) if hours else None,
            "p90": float(np.quantile(hours, 0.9)) if hours else None}  # fmt: skip


_GROUPS: dict[str, Callable[[Judged], str]] = {
    "channel": lambda one: one.journey.channel, "team": lambda one: one.journey.team,
    "line": lambda one: str(one.journey.highest_line or NOT_SAID), "reason": lambda one: one.journey.reason,
}  # fmt: skip


def groups(some: Sequence[Judged]) -> dict[str, list[dict[str, Any]]]:
    """The same by channel, first team, highest line and reason, the largest first."""
    found = {}
    for name, of in _GROUPS.items():
        parts = defaultdict[str, list[Judged]](list)
        for one in some:
            parts[of(one)].append(one)
        ordered = sorted(parts.items(), key=lambda item: (-len(item[1]), item[0]))
        found[name] = [{name: key, **line(mine)} for key, mine in ordered]
    return found


def evenness(parts: Sequence[dict[str, Any]], by: str, what: str) -> dict[str, Any] | None:
    """How a share differs across groups of thirty or more: lowest, highest, and the chance of as much by luck.

    Pearson's chi-squared test of one rate for all; none where fewer than two groups are large enough.
    """
    told = [(part[by], part[what]) for part in parts if part[what]["n"] >= FEW and part[by] != NOT_SAID]
    table = np.array([[one["k"], one["n"] - one["k"]] for _, one in told])
    if len(told) < 2 or 0 in table.sum(axis=0):  # noqa: PLR2004 - two to compare
        return None
    ordered = sorted(told, key=lambda one: one[1]["share"])
    return {"what": what, "by": by, "groups": len(told), "lowest": [ordered[0][0], ordered[0][1]],
            "highest": [ordered[-1][0], ordered[-1][1]], "p": float(chi2_contingency(table).pvalue)}  # fmt: skip


def satisfaction(answers: Sequence[Answer], interactions: int) -> list[dict[str, Any]]:
    """By instrument: mean between 0 and 1 with its 95 % interval (Student's t), n, and how many answered."""
    by = defaultdict[str, list[float]](list)
    for one in answers:
        by[one.instrument].append(one.score)
    found = []
    for name, scores in sorted(by.items()):
        n, mean = len(scores), fmean(scores)
        half = float(t.ppf(0.975, n - 1)) * stdev(scores) / n**0.5 if n > 1 else None
        found.append({"instrument": name, "n": n, "mean": mean,
                      "interval": [mean - half, mean + half] if half is not None else None,
                      "response": share(min(n, interactions), interactions)})  # fmt: skip
    return found
