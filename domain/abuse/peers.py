"""Peers: the goodwill that a contact usually brings, for the same work on the same day, without the agent concerned.

The rate of an agent's contacts on a day is estimated from the others of the agent's team on that day. A small team says
little by itself, so each rate is drawn towards the next wider one, as if ``_PRIOR`` contacts of the wider group were
seen too (a beta prior; Gelman et al., Bayesian Data Analysis, 2.4 and 5.3): team and day, team, organisation. A day on
which the whole organisation gives more, such as a recall, raises the expectation of every team.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from domain.keyed_state import State

DAY = 86_400.0
_PRIOR = 15.0
_LEAST, _MOST = 1e-4, 0.95
_OWN_PRIOR = 4.0
"""The gifts that an agent's own ratio is drawn towards 1 by: honest people differ by about half."""


class Work(msgspec.Struct, array_like=True, gc=False):
    """Contacts and goodwill, of an agent on one day or of several; ``loose`` gifts belong to no interaction."""

    contacts: int = 0
    gifts: int = 0
    loose: int = 0

    def add(self, work: Work) -> None:
        """Add other work."""
        self.contacts += work.contacts
        self.gifts += work.gifts
        self.loose += work.loose


type Units = dict[str, dict[str, Work]]
"""The work of one day by unit (the first team, else the role) and agent."""


class _Span(msgspec.Struct):
    days: set[int] = set()


class WorkDays:
    """The work of all agents by day and unit, as far back as rules look."""

    def __init__(self, state: State) -> None:
        self._known = state.record("work days known", _Span).days
        self._days = state.table("work days", dict[str, dict[str, Work]])
        self._copies: dict[int, Units] = {}

    def add(self, unit: str, agent: str, at: float, *, contacts: int = 0, gifts: int = 0, loose: int = 0) -> None:
        """Add to an agent's work on the day of a moment."""
        day = int(at // DAY)
        units = self._days.get(str(day)) or {}
        work = units.setdefault(unit, {}).setdefault(agent, Work())
        work.contacts += contacts
        work.gifts += gifts
        work.loose += loose
        self._days.put(str(day), units)
        self._known.add(day)
        self._copies.pop(day, None)

    def gifts(self, agent: str, day: int) -> int:
        """Return the goodwill that an agent gave on a day."""
        units = self._days.get(str(day)) or {}
        return sum(agents[agent].gifts for agents in units.values() if agent in agents)

    def between(self, start: float, end: float) -> dict[int, Units]:
        """Return copies of the work on days in [start, end), so that facts that come late do not change them.

        A day without new facts is copied once; callers must not change a copy.
        """
        days = [day for day in sorted(self._known) if start // DAY <= day < end // DAY]
        for day in days:
            if day not in self._copies:
                self._copies[day] = {
                    unit: {agent: Work(work.contacts, work.gifts, work.loose) for agent, work in agents.items()}
                    for unit, agents in (self._days.get(str(day)) or {}).items()
                }
        return {day: self._copies[day] for day in days}

    def forget_before(self, moment: float) -> None:
        """Drop days that no window reaches any more."""
        first = int(moment // DAY)
        for day in [day for day in self._known if day < first]:
            self._known.discard(day)
            self._copies.pop(day, None)
            self._days.drop(str(day))


_NONE = Work()
type _Sums = tuple[int, float, float]
"""Goodwill given, the number that peers' rates expect, and contacts, added up over days."""


class Expected(NamedTuple):
    """An agent's day, week or month: goodwill given, and the number that peers' rates expect for the same work."""

    gifts: int
    expected: float
    contacts: float

    def ratio(self) -> float:
        """Return gifts to expectation, drawn towards 1 where little is known."""
        return (self.gifts + _OWN_PRIOR) / (self.expected + _OWN_PRIOR)


class PeerRates:
    """Rates over a window of whole days."""

    def __init__(self, end: float, days: dict[int, Units]) -> None:
        self.end = end
        self._days = days
        self._unit: dict[str, Work] = defaultdict(Work)
        self._unit_day: dict[tuple[str, int], Work] = {}
        self._works: dict[str, list[tuple[int, str, Work]]] = defaultdict(list)
        self._all = Work()
        for day, units in days.items():
            for unit, agents in units.items():
                sums = self._unit_day[unit, day] = Work()
                contacts, gifts, loose = 0, 0, 0
                for agent, work in agents.items():
                    contacts += work.contacts
                    gifts += work.gifts
                    loose += work.loose
                    self._works[agent].append((day, unit, work))
                sums.contacts, sums.gifts, sums.loose = contacts, gifts, loose
                self._unit[unit].add(sums)
                self._all.add(sums)
        self._overall = (self._all.gifts + 1) / (self._all.contacts + self._all.loose + 5)
        self._usual: dict[tuple[str, str], float] = {}
        self._surge = {day: self._surge_of(day) for day in self._days}
        self._sums_of: dict[str, tuple[list[int], list[_Sums]]] = {}

    def _surge_of(self, day: int) -> float:
        """Return the organisation's goodwill on a day, relative to that of the same teams on all days."""
        given, usual = 0, 0.0
        for unit, agents in self._days[day].items():
            given, rate = given + self._unit_day[unit, day].gifts, self._rate(self._unit[unit])
            for work in agents.values():
                usual += (work.contacts + work.loose) * rate
        return (given + _PRIOR) / (usual + _PRIOR)

    def _rate(self, sums: Work) -> float:
        return (sums.gifts + _PRIOR * self._overall) / (sums.contacts + sums.loose + _PRIOR)

    def rate(self, agent: str, unit: str, day: int) -> float:
        """Return goodwill a contact of the others in a unit on a day, below 1."""
        work = self._days.get(day, {}).get(unit, {}).get(agent, _NONE)
        return self._rate_beside(work, self._usual_beside(agent, unit), unit, day)

    def _usual_beside(self, agent: str, unit: str) -> float:
        """Return goodwill a contact of the others in a unit over the whole window."""
        key = unit, agent
        usual = self._usual.get(key)
        if usual is None:
            everywhere, own = self._unit.get(unit, _NONE), self._own_work(agent, unit)
            contacts = everywhere.contacts + everywhere.loose - own.contacts - own.loose
            usual = (max(everywhere.gifts - own.gifts, 0) + _PRIOR * self._overall) / (max(contacts, 0) + _PRIOR)
            self._usual[key] = usual
        return usual

    def _own_work(self, agent: str, unit: str) -> Work:
        """Return the agent's own work in a unit over the whole window."""
        own = Work()
        for _, there, work in self._works.get(agent, ()):
            if there == unit:
                own.add(work)
        return own

    def _rate_beside(self, work: Work, usual: float, unit: str, day: int) -> float:
        """Return the others' rate on a day; ``work`` is the agent's own, ``usual`` the others' over the window."""
        usual *= self._surge.get(day, 1.0)
        today = self._unit_day.get((unit, day))
        if today is not None:
            contacts = max(today.contacts + today.loose - work.contacts - work.loose, 0)
            usual = (max(today.gifts - work.gifts, 0) + _PRIOR * usual) / (contacts + _PRIOR)
        return _LEAST if usual < _LEAST else min(usual, _MOST)

    def loose_share(self, unit: str) -> float:
        """Return the share of a unit's goodwill that belongs to no interaction."""
        sums = self._unit.get(unit, _NONE)
        return sums.loose / max(sums.gifts, 1)

    def of(self, agent: str, first_day: int, last_day: int) -> Expected:
        """Return the agent's goodwill and its expectation on days in [first_day, last_day)."""
        days, sums = self._running(agent)
        low, high = sums[bisect_left(days, first_day)], sums[bisect_left(days, last_day)]
        return Expected(high[0] - low[0], high[1] - low[1], high[2] - low[2])

    def whole(self, agent: str) -> Expected:
        """Return the agent's goodwill and its expectation over the whole window."""
        return Expected(*self._running(agent)[1][-1])

    def _running(self, agent: str) -> tuple[list[int], list[_Sums]]:
        """Return the agent's days, and the running sums before each of them and after the last."""
        found = self._sums_of.get(agent)
        if found is None:
            gifts, expected, contacts = 0, 0.0, 0.0
            days, sums = list[int](), [(gifts, expected, contacts)]
            units: dict[str, tuple[float, float]] = {}
            unit_day, surge = self._unit_day, self._surge
            for day, unit, work in self._works.get(agent, ()):
                if unit not in units:
                    units[unit] = self.loose_share(unit), self._usual_beside(agent, unit)
                share, usual = units[unit]
                # As in _rate_beside, without its checks: a call for each agent and day would cost most of a night.
                today, own, given, loose = unit_day[unit, day], work.contacts, work.gifts, work.loose
                usual = (today.gifts - given + _PRIOR * (usual * surge[day])) / (
                    today.contacts + today.loose - own - loose + _PRIOR
                )
                # A gift without a contact counts as a contact as far as that is usual in the unit.
                exposure = own + loose * share
                gifts += given
                expected += exposure * (_LEAST if usual < _LEAST else min(_MOST, usual))
                contacts += exposure
                days.append(day)
                sums.append((gifts, expected, contacts))
            found = self._sums_of[agent] = days, sums
        return found
