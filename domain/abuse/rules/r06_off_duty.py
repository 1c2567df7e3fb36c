"""R6, off duty: actions outside every shift on more days than peers have, or after the agent had left."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from domain.abuse.findings import Parameters, Rule, RuleFinding, money
from domain.abuse.history import DAY, REMEMBERED_SECONDS
from domain.abuse.settled import VARIATION
from domain.events import facts
from domain.statistics import varied_tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction
    from domain.keyed_state import State, Table

RULE = Rule("R6", 5, "off duty", {"minutes": 15, "days": 35, "actions": 2, "times": 3.0, "p": 3e-4})
_HALF_A_DAY = 16 * 3600.0
_LATE_SECONDS = 2 * DAY
"""Rosters may be uploaded the next day; a missing one is judged after so long."""
_MANY_MINUTES = 75.0
"""Beyond overtime."""
_ON_DUTY = 3
"""The least number of days within a shift: shifts that fit no action are no record of an agent's duty."""
_HABIT = 0.01
"""The least usual share of days off duty. One honest person may have so many, though peers have none."""
_PRIOR = 100.0
"""The weight of all others beside those of the same unit, in days."""


class _Days(NamedTuple):
    """An agent's days with actions, and the evidence of those off duty, by how far: at all, or far beyond overtime."""

    all: set[int]
    off: dict[int, list[int]]
    far: dict[int, list[int]]


class OffDuty:
    """Shifts, and actions compared with them each night, when late facts are there."""

    def __init__(self, parameters: Parameters, state: State) -> None:
        self._parameters = parameters
        self._slack: float = parameters["minutes"] * 60.0
        self._starts = state.table("R6 shifts started", list[float])
        self._ends = state.table("R6 shifts ended", list[float])

    def on(self, _history: GuardHistory, event: GuardEvent, _action: ObservedAction | None) -> Iterator[RuleFinding]:
        """Learn shifts; findings come later, from ``due`` and ``over``."""
        body = event.body
        if isinstance(body, facts.ShiftStarted):
            _keep(self._starts, body.employee_id, event)
        elif isinstance(body, facts.ShiftEnded):
            _keep(self._ends, body.employee_id, event)
        yield from ()

    def due(self, history: GuardHistory, action: ObservedAction) -> Iterator[RuleFinding]:
        """Yield a finding for an action of an agent that had left; the start of reported actions is unknown."""
        left = history.left.get(action.agent)
        if not action.reported and left is not None and action.at > left + self._slack:
            text = f"{action.agent} gave {money(action.minor, action.currency)} after having left"
            yield RULE.finding((f"agent:{action.agent}",), "left", text, [action.position])

    def over(self, history: GuardHistory, end: float) -> tuple[list[RuleFinding], int]:
        """Return findings by a beta-binomial tail over days with actions: so many of them off duty, at peers' rate.

        The rate is that of the other members of the unit, drawn towards all others with shifts. A forgotten clock-in or
        overtime that the roster does not know concerns all members alike. Days are counted, not actions: one missing
        shift makes all actions of its day look off duty. Of two tests, off duty at all and far beyond overtime, the
        smaller chance counts twice (Bonferroni).
        """
        start, until = end - self._parameters["days"] * DAY, end - _LATE_SECONDS
        days = self._days(history, start, until)
        units = defaultdict[str, list[_Days]](list)
        for agent, one in days.items():
            units[history.unit(agent)].append(one)
        found: list[RuleFinding] = []
        tests = 0
        for agent, mine in days.items():
            if len(mine.off) < self._parameters["actions"] or len(mine.all) - len(mine.off) < _ON_DUTY:
                continue
            tests += 1
            chances = []
            for off, attribute in ((mine.off, "off"), (mine.far, "far")):
                everybody = _rate(days.values(), mine, attribute, 0.01, 50.0)
                share = _rate(units[history.unit(agent)], mine, attribute, everybody, _PRIOR)
                share = max(share, _HABIT)
                chances.append((varied_tail(len(off), len(mine.all), share, VARIATION), share, off))
            p, share, off = min(chances, key=lambda chance: chance[0])
            if 2 * p < self._parameters["p"] and len(off) >= self._parameters["times"] * share * len(mine.all):
                text = (
                    f"{agent} took actions outside any shift on {len(off)} of {len(mine.all)} days in "
                    f"{self._parameters['days']} days; {share:.1%} of them are usual (chance {2 * p:.1g})"
                )
                evidence = [position for positions in off.values() for position in positions]
                found.append(RULE.finding((f"agent:{agent}",), "shift", text, evidence, 2 * p))
        return found, tests

    def _days(self, history: GuardHistory, start: float, until: float) -> dict[str, _Days]:
        """Return the days of all agents whose shifts are known. An action begins when its interaction was opened."""
        found: dict[str, _Days] = {}
        for action in history.actions:
            starts = self._starts.get(action.agent)
            if action.reported or not start <= action.at < until or not starts or starts[0] > action.at:
                continue
            opened = history.begun(action.interaction)
            begun = action.at if opened is None else min(action.at, opened)
            days = found.setdefault(action.agent, _Days(set(), {}, {}))
            day = int(begun // DAY)
            days.all.add(day)
            beyond = self._beyond(action.agent, begun)
            if beyond > self._slack:
                days.off.setdefault(day, []).append(action.position)
            if beyond > _MANY_MINUTES * 60:
                days.far.setdefault(day, []).append(action.position)
        return found

    def _beyond(self, agent: str, moment: float) -> float:
        """Return the seconds from a moment to the nearest shift, 0 within one."""
        starts, ends = self._starts.get(agent) or [], self._ends.get(agent) or []
        place = bisect_right(starts, moment + self._slack)
        nearest = starts[place] - moment if place < len(starts) else _HALF_A_DAY
        if place:
            start = starts[place - 1]
            after = bisect_left(ends, start)
            end = min(ends[after] if after < len(ends) else start + _HALF_A_DAY, start + _HALF_A_DAY)
            nearest = min(nearest, max(moment - end, 0.0))
        return nearest


def _keep(table: Table[list[float]], employee: str, event: GuardEvent) -> None:
    """Note a start or an end; those of the last 90 days stay, and the first one, since when shifts are known."""
    times = table.get(employee) or []
    insort(times, event.at)
    del times[1 : bisect_left(times, event.recorded - REMEMBERED_SECONDS, 1)]
    table.put(employee, times)


def _rate(days: object, mine: _Days, attribute: str, prior: float, weight: float) -> float:
    """Return the share of the others' days that are off duty, drawn towards ``prior``."""
    others = [one for one in days if one is not mine]  # type: ignore[attr-defined]
    off = sum(len(getattr(one, attribute)) for one in others)
    return float((off + prior * weight) / (sum(len(one.all) for one in others) + weight))
