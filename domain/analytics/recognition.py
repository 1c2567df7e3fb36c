"""Recognition, training, ideas, morale and retention, without any ranking of people.

Figures of fewer than five people are suppressed, and so are figures that would reveal them by subtraction.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from domain.abuse.history import DAY
from domain.analytics.averages import quantile_interval
from domain.statistics import survival

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FEW = 5
MONTH = 365.25 / 12 * DAY
MONTHS = (3, 6, 12, 24, 36)
FOLLOWED_DAYS = 90


class Survey(NamedTuple):
    """A team's answers in a period, counted; ``score`` is between 0 (worst) and 1 (best)."""

    team: str
    period: str
    invited: int
    respondents: int
    score: float


def place_on_scale(score: float, worst: float, best: float) -> float:
    """Return a score's place between 0 (worst) and 1 (best); a score beyond its scale counts as the end of it.

    Halves are subtracted, because the difference of two finite numbers may be infinite. A scale of one point gives 0.
    """
    span = best / 2 - worst / 2
    return min(max((score / 2 - worst / 2) / span, 0.0), 1.0) if span else 0.0


class TimeInRole(NamedTuple):
    """An employee's time in one role, in seconds: until they left, or until they changed the role (``moved``)."""

    employee: str
    role: str
    began: float
    left: float | None = None
    moved: float | None = None


class Voice(NamedTuple):
    """An idea or obstacle: when it was submitted, when answered (``None``: not yet), and the answer."""

    what: str
    said: float
    answered: float | None
    answer: str | None


class TeamMorale(TypedDict):
    """The morale of a team in a period, a description (evidence level 1).

    ``interval`` is the range of the whole team's score: from all silent members at the worst to all at the best.
    """

    period: str
    team: str
    rung: int
    suppressed: bool
    invited: int | None
    respondents: int | None
    score: float | None
    interval: list[float] | None


class VoiceFigures(TypedDict):
    """The figures of ideas or of obstacles."""

    what: str
    said: int
    answered: int
    median_days_to_answer: float | None
    median_days_to_answer_interval: list[float] | None
    fates: dict[str, int]


class RetentionPoint(TypedDict):
    """The share still employed after some months, with its interval."""

    months: int
    staying: float
    interval: list[float] | None


class Retention(TypedDict):
    """The retention of a role's employees; ``left`` is the number that left."""

    role: str
    suppressed: bool
    n: int | None
    left: int | None
    curve: list[RetentionPoint]


CareerStep = TypedDict(
    "CareerStep",
    {
        "from": str,
        "to": str,
        "people": int | None,
        "suppressed": bool,
        "used_before": int | None,
        "used_after": int | None,
    },
)
"""A step from one role to another, with the actions before and after it."""


class CourseFigures(TypedDict):
    """A course, and the use of the kinds that it opens before and after it."""

    course: str
    completions: int
    people: int
    opens: list[str]
    used_before: int
    used_after: int


def morale(surveys: Iterable[Survey]) -> list[TeamMorale]:
    """Return morale by period and team, suppressed where fewer than five answered.

    Where only one team of a period is suppressed, the next smallest is, too. Otherwise a reader could subtract the
    others from the whole.
    """
    periods = defaultdict[str, list[Survey]](list)
    for one in surveys:
        periods[one.period].append(one)
    found: list[TeamMorale] = []
    for period, teams in sorted(periods.items()):
        ordered = sorted(teams, key=lambda one: (one.respondents, one.team))
        hidden = sum(one.respondents < FEW for one in ordered)
        if hidden == 1:
            hidden = 2
        silent = {one.team for one in ordered[:hidden]}
        for one in sorted(teams):
            shown = one.team not in silent
            found.append(
                {
                    "period": period,
                    "team": one.team,
                    "rung": 1,
                    "suppressed": not shown,
                    "invited": one.invited if shown else None,
                    "respondents": one.respondents if shown else None,
                    "score": one.score if shown else None,
                    "interval": _of_all(one) if shown else None,
                }
            )
    return found


def _of_all(one: Survey) -> list[float]:
    """Return the lowest and highest score that the whole team may have, whatever its silent members think."""
    silent = max(0, one.invited - one.respondents)
    said, people = one.score * one.respondents, silent + one.respondents
    return [said / people, (said + silent) / people]


def answers(voices: Iterable[Voice]) -> list[VoiceFigures]:
    """Return figures of ideas and obstacles: their number, the number answered, the days it took, and ideas' fates."""
    by = defaultdict[str, list[Voice]](list)
    for one in voices:
        by[one.what].append(one)
    found: list[VoiceFigures] = []
    for what, some in sorted(by.items()):
        days = [(one.answered - one.said) / DAY for one in some if one.answered is not None]
        fates = (
            Counter(one.answer or "" for one in some if one.answered is not None) if what == "idea" else Counter[str]()
        )
        waited = median(days) if days else None
        found.append(
            {
                "what": what,
                "said": len(some),
                "answered": len(days),
                "median_days_to_answer": waited,
                "median_days_to_answer_interval": quantile_interval(np.array(days)),
                "fates": dict(sorted(fates.items())),
            }
        )
    return found


def staying(people: Sequence[TimeInRole], now: float) -> list[Retention]:
    """Return by role the share still employed after 3 to 36 months in it (Kaplan and Meier 1958, log-log interval).

    An employee that changes the role is observed in it until then. Months that no employee has reached yet are left
    out. Roles of fewer than five people are suppressed.
    """
    roles = defaultdict[str, list[TimeInRole]](list)
    for one in people:
        roles[one.role].append(one)
    found: list[Retention] = []
    for role, some in sorted(roles.items()):
        if len({one.employee for one in some}) < FEW:
            found.append({"role": role, "suppressed": True, "n": None, "left": None, "curve": []})
            continue
        times = [max(0.0, (_last(one, now) - one.began) / MONTH) for one in some]
        censored = [one.left is None for one in some]
        curve = _curve(times, censored)
        found.append({"role": role, "suppressed": False, "n": len(some), "left": censored.count(False), "curve": curve})
    return found


def _last(one: TimeInRole, now: float) -> float:
    """Return the last moment at which an employee is known to be in a role."""
    ends = [end for end in (one.left, one.moved) if end is not None]
    return min(ends, default=now)


def _curve(times: list[float], censored: list[bool]) -> list[RetentionPoint]:
    if all(censored):
        return [{"months": month, "staying": 1.0, "interval": None} for month in MONTHS if month <= max(times)]
    left = [time for time, still in zip(times, censored, strict=True) if not still]
    here = [time for time, still in zip(times, censored, strict=True) if still]
    return [
        {"months": month, "staying": share, "interval": list(interval) if interval and share < 1 else None}
        for month, (share, interval) in zip(MONTHS, survival(left, here, MONTHS), strict=True)
        if month <= max(times)
    ]


def careers(
    moves: Iterable[tuple[str, str, str, float]], acts: Mapping[str, Sequence[tuple[float, str]]]
) -> list[CareerStep]:
    """Return, by step from one role to another, its people and their actions 90 days before and after.

    ``moves`` are (employee, from, to, when). Fewer than five people are suppressed. The figures describe; they prove no
    effect.
    """
    by = defaultdict[tuple[str, str], list[tuple[str, float]]](list)
    for employee, before, after, at in moves:
        by[before, after].append((employee, at))
    found: list[CareerStep] = []
    span = FOLLOWED_DAYS * DAY
    for (before, after), some in sorted(by.items()):
        people = len({employee for employee, _ in some})
        shown = people >= FEW
        used = [
            sum(low <= time - at < high for employee, at in some for time, _ in acts.get(employee, ()))
            for low, high in ((-span, 0.0), (0.0, span))
        ]
        found.append(
            {
                "from": before,
                "to": after,
                "people": people if shown else None,
                "suppressed": not shown,
                "used_before": used[0] if shown else None,
                "used_after": used[1] if shown else None,
            }
        )
    return found


def followed(
    courses: Iterable[tuple[str, str, float]],
    acts: Mapping[str, Sequence[tuple[float, str]]],
    opens: Mapping[str, Sequence[str]],
) -> list[CourseFigures]:
    """Return, by course, its participants, the kinds that it opens, and the use of these 90 days before and after.

    ``courses`` are (employee, course, completed); ``acts`` maps an employee to (time, kind). The figures describe; they
    prove no effect.
    """
    by = defaultdict[str, list[tuple[str, float]]](list)
    for employee, course, completed in courses:
        by[course].append((employee, completed))
    found: list[CourseFigures] = []
    for course, some in sorted(by.items()):
        kinds, span = set(opens.get(course, ())), FOLLOWED_DAYS * DAY
        before = after = 0
        for employee, at in some:
            for time, kind in acts.get(employee, ()):
                if kind in kinds:
                    before += at - span <= time < at
                    after += at <= time < at + span
        people = {employee for employee, _ in some}
        found.append(
            {
                "course": course,
                "completions": len(some),
                "people": len(people),
                "opens": sorted(kinds),
                "used_before": before,
                "used_after": after,
            }
        )
    return found
