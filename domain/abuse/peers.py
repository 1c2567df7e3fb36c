"""Peers: the goodwill that a contact usually brings, for the same work on the same day, without the agent concerned.

The rate of an agent's contacts on a day is estimated from the others of the agent's team on that day. A small team says
little by itself, so each rate is drawn towards the next wider one, as if ``_PRIOR`` contacts of the wider group were
seen too (a beta prior; Gelman et al., Bayesian Data Analysis, 2.4 and 5.3): team and day, team, organisation. A day on
which the whole organisation gives more, such as a recall, raises the expectation of every team.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from domain.abuse.history import GuardHistory

DAY = 86_400.0
_PRIOR = 15.0
_OWN_PRIOR = 4.0
"""The gifts that an agent's own ratio is drawn towards 1 by: honest people differ by about half."""


class Work:
    """An agent's contacts and goodwill on one day; ``loose`` gifts belong to no interaction."""

    __slots__ = ("contacts", "gifts", "loose")

    def __init__(self) -> None:
        self.contacts = self.gifts = self.loose = 0


class _Sums:
    __slots__ = ("contacts", "gifts", "loose")

    def __init__(self) -> None:
        self.contacts = self.gifts = self.loose = 0

    def add(self, work: Work) -> None:
        self.contacts += work.contacts
        self.gifts += work.gifts
        self.loose += work.loose


_NOTHING, _NO_WORK = _Sums(), Work()


class WorkDays:
    """The work of all agents by day and unit (the first team, else the role), as far back as rules look."""

    def __init__(self) -> None:
        self.days: dict[int, dict[str, dict[str, Work]]] = defaultdict(lambda: defaultdict(dict))

    def of(self, unit: str, agent: str, at: float) -> Work:
        """Return the agent's work on the day of a moment, to be counted on."""
        agents = self.days[int(at // DAY)][unit]
        work = agents.get(agent)
        if work is None:
            work = agents[agent] = Work()
        return work

    def gifts(self, agent: str, day: int) -> int:
        """Return the goodwill that an agent gave on a day."""
        return sum(agents[agent].gifts for agents in self.days.get(day, {}).values() if agent in agents)

    def forget_before(self, moment: float) -> None:
        """Drop days that no window reaches any more."""
        first = int(moment // DAY)
        for day in [day for day in self.days if day < first]:
            del self.days[day]


class Expected(NamedTuple):
    """An agent's day, week or month: goodwill given, and the number that peers' rates expect for the same work."""

    gifts: int
    expected: float
    contacts: float

    def ratio(self) -> float:
        """Return gifts to expectation, drawn towards 1 where little is known."""
        return (self.gifts + _OWN_PRIOR) / (self.expected + _OWN_PRIOR)


class PeerRates:
    """Rates over a window of whole days, from the work days of a history."""

    def __init__(self, history: GuardHistory, start: float, end: float) -> None:
        self.end = end
        self._days = {day: units for day, units in history.work.days.items() if start // DAY <= day < end // DAY}
        self._unit: dict[str, _Sums] = defaultdict(_Sums)
        self._of_agent: dict[tuple[str, str], _Sums] = defaultdict(_Sums)
        self._unit_day: dict[tuple[str, int], _Sums] = {}
        self._works: dict[str, list[tuple[int, str, Work]]] = defaultdict(list)
        self._all = _Sums()
        for day, units in self._days.items():
            for unit, agents in units.items():
                sums = self._unit_day[unit, day] = _Sums()
                for agent, work in agents.items():
                    sums.add(work)
                    self._works[agent].append((day, unit, work))
                    self._unit[unit].add(work)
                    self._of_agent[unit, agent].add(work)
                    self._all.add(work)
        self._overall = (self._all.gifts + 1) / (self._all.contacts + self._all.loose + 5)
        self._usual: dict[tuple[str, str], float] = {}
        self._surge = {day: self._surge_of(day) for day in self._days}
        self._sums_of: dict[str, tuple[list[int], list[Expected]]] = {}

    def _surge_of(self, day: int) -> float:
        """Return the organisation's goodwill on a day, relative to that of the same teams on all days."""
        given, usual = 0, 0.0
        for unit, agents in self._days[day].items():
            for work in agents.values():
                given += work.gifts
                usual += (work.contacts + work.loose) * self._rate(self._unit[unit])
        return (given + _PRIOR) / (usual + _PRIOR)

    def _rate(self, sums: _Sums) -> float:
        return (sums.gifts + _PRIOR * self._overall) / (sums.contacts + sums.loose + _PRIOR)

    def rate(self, agent: str, unit: str, day: int) -> float:
        """Return goodwill a contact of the others in a unit on a day, below 1."""
        key = unit, agent
        usual = self._usual.get(key)
        if usual is None:
            everywhere, own = self._unit[unit], self._of_agent.get(key, _NOTHING)
            contacts = everywhere.contacts + everywhere.loose - own.contacts - own.loose
            usual = (max(everywhere.gifts - own.gifts, 0) + _PRIOR * self._overall) / (max(contacts, 0) + _PRIOR)
            self._usual[key] = usual
        usual *= self._surge.get(day, 1.0)
        today = self._unit_day.get((unit, day))
        if today is not None:
            work = self._days[day][unit].get(agent, _NO_WORK)
            # Facts that come late change an agent's day after the sums were taken.
            contacts = max(today.contacts + today.loose - work.contacts - work.loose, 0)
            usual = (max(today.gifts - work.gifts, 0) + _PRIOR * usual) / (contacts + _PRIOR)
        return 1e-4 if usual < 1e-4 else min(usual, 0.95)  # noqa: PLR2004

    def loose_share(self, unit: str) -> float:
        """Return the share of a unit's goodwill that belongs to no interaction."""
        sums = self._unit[unit]
        return sums.loose / max(sums.gifts, 1)

    def of(self, agent: str, first_day: int, last_day: int) -> Expected:
        """Return the agent's goodwill and its expectation on days in [first_day, last_day)."""
        days, sums = self._running(agent)
        low, high = sums[bisect_left(days, first_day)], sums[bisect_left(days, last_day)]
        return Expected(high.gifts - low.gifts, high.expected - low.expected, high.contacts - low.contacts)

    def whole(self, agent: str) -> Expected:
        """Return the agent's goodwill and its expectation over the whole window."""
        return self._running(agent)[1][-1]

    def _running(self, agent: str) -> tuple[list[int], list[Expected]]:
        """Return the agent's days, and the running sums before each of them and after the last."""
        found = self._sums_of.get(agent)
        if found is None:
            days, sums = list[int](), [Expected(0, 0.0, 0.0)]
            for day, unit, work in sorted(self._works.get(agent, ()), key=lambda one: one[0]):
                # A gift without a contact counts as a contact as far as that is usual in the unit.
                exposure = work.contacts + work.loose * self.loose_share(unit)
                gifts, expected, contacts = sums[-1]
                more = exposure * self.rate(agent, unit, day)
                days.append(day)
                sums.append(Expected(gifts + work.gifts, expected + more, contacts + exposure))
            found = self._sums_of[agent] = days, sums
        return found


class Regulars:
    """The number of contacts of each agent with each customer's group, and by unit how usual such numbers are."""

    def __init__(self) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._usual: dict[str, Counter[int]] = defaultdict(Counter)

    def count(self, unit: str, agent: str, group: str, step: int) -> None:
        """Add a contact of a pair, or take it back (``step`` -1)."""
        before = self._pairs[agent, group]
        usual = self._usual[unit]
        if before:
            usual[before] -= 1
        if before + step > 0:
            usual[before + step] += 1
            self._pairs[agent, group] = before + step
        else:
            del self._pairs[agent, group]

    def between(self, agent: str, group: str) -> int:
        """Return the number of contacts of a pair."""
        return self._pairs.get((agent, group), 0)

    def rare(self, unit: str, agent: str, group: str, contacts: int) -> float:
        """Return the share of a unit's customers that met one of its agents at least so often, without this pair."""
        own = self._pairs.get((agent, group), 0)
        as_often = sum(pairs for number, pairs in self._usual[unit].items() if number >= contacts)
        all_pairs = self._usual[unit].total()
        return (as_often - (own >= contacts) + 1) / (all_pairs - (own > 0) + 1)
