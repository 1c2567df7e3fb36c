"""Who works here: roles, teams, managers, training, relations, and who stands in for whom."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from domain.decisions.authority import Agent
from domain.events.facts import (
    DelegationDeclared,
    EmployeeChanged,
    EmployeeJoined,
    EmployeeLeft,
    Fact,
    RelationshipDeclared,
    TrainingCompleted,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_AGENTS_REMEMBERED = 100_000


class _Employee(msgspec.Struct):
    role: str | None = None
    team_ids: tuple[str, ...] = ()
    left: bool = False
    training: dict[str, datetime | None] = {}
    related: tuple[str, ...] = ()
    manager_id: str | None = None
    delegations: tuple[tuple[str, datetime, datetime], ...] = ()
    """Whom this one stands in for: (who is away, from, until)."""


class Staff:
    """Answers from memory; the directory keeps its notes."""

    def __init__(self) -> None:
        self._employees: dict[str, _Employee] = {}
        self._agents: dict[tuple[str, str | None], Agent] = {}

    def agent(self, agent_id: str, default_role: str | None) -> Agent | None:
        """What is known of an agent; nobody, where neither a fact nor the policy gives a role."""
        if agent := self._agents.get((agent_id, default_role)):
            return agent
        known = self._employees.get(agent_id) or _Employee()
        role = known.role or default_role
        if role is None:
            return None
        agent = Agent(
            agent_id=agent_id,
            role=role,
            team_ids=known.team_ids,
            left=known.left,
            training=known.training,
            related=frozenset(known.related),
            manager_id=known.manager_id,
        )
        if len(self._agents) > _AGENTS_REMEMBERED:
            self._agents.clear()
        self._agents[agent_id, default_role] = agent
        return agent

    def everybody(self, default_role: str | None) -> list[Agent]:
        """All who were announced, in the order of their ids."""
        found = (self.agent(agent_id, default_role) for agent_id in sorted(self._employees))
        return [agent for agent in found if agent is not None]

    def teams(self) -> set[str]:
        """The teams that somebody works in."""
        return {team for known in self._employees.values() for team in known.team_ids}

    def stood_in_for(self, agent_id: str, now: datetime) -> list[str]:
        """Those who are away and have this one decide for them."""
        known = self._employees.get(agent_id)
        return [away for away, start, end in known.delegations if start <= now < end] if known else []

    def learn(self, fact: Fact) -> str | None:
        """Learn from a fact; whose note it changes, where it is about somebody."""
        self._agents.clear()
        match fact:
            case EmployeeJoined() | EmployeeChanged():
                known = self._known(fact.employee_id)
                known.role, known.team_ids, known.left = fact.role, fact.team_ids, False
                known.manager_id = fact.manager_id
            case EmployeeLeft():
                self._known(fact.employee_id).left = True
            case TrainingCompleted():
                known = self._known(fact.employee_id)
                known.training = {**known.training, fact.course_id: fact.valid_until}
            case RelationshipDeclared():
                known = self._known(fact.employee_id)
                known.related = (*known.related, fact.customer_id)
            case DelegationDeclared():
                known = self._known(fact.to_employee_id)
                known.delegations = (*known.delegations, (fact.from_employee_id, fact.from_time, fact.until_time))
                return fact.to_employee_id
            case _:
                return None
        return fact.employee_id

    def unlearn(self, fact: Fact) -> str | None:
        """Forget a fact that never happened; whose note it changes. What came after it stays."""
        self._agents.clear()
        match fact:
            case EmployeeJoined():
                self._employees[fact.employee_id] = _Employee()
            case EmployeeLeft():
                self._known(fact.employee_id).left = False
            case TrainingCompleted():
                known = self._known(fact.employee_id)
                known.training = {course: until for course, until in known.training.items() if course != fact.course_id}
            case RelationshipDeclared():
                known = self._known(fact.employee_id)
                known.related = tuple(one for one in known.related if one != fact.customer_id)
            case DelegationDeclared():
                known = self._known(fact.to_employee_id)
                gone = (fact.from_employee_id, fact.from_time, fact.until_time)
                known.delegations = tuple(one for one in known.delegations if one != gone)
                return fact.to_employee_id
            case _:
                return None
        return fact.employee_id

    def _known(self, employee_id: str) -> _Employee:
        return self._employees.setdefault(employee_id, _Employee())

    def note(self, employee_id: str) -> bytes:
        """What is known of somebody, to be restored."""
        return msgspec.json.encode(self._employees[employee_id])

    def restore(self, employee_id: str, note: bytes) -> None:
        """Know again what a note says."""
        self._employees[employee_id] = msgspec.json.decode(note, type=_Employee)


def manager_rings(manager_of: Mapping[str, str | None]) -> list[tuple[str, ...]]:
    """Return the rings in which people are each other's managers, e.g. ``("A", "B")`` where A and B manage each other.

    Each ring stands once, from its least name on; a person who is their own manager is a ring of one.
    """
    rings: set[tuple[str, ...]] = set()
    seen: set[str] = set()
    for start in manager_of:
        chain: dict[str, int] = {}
        name: str | None = start
        while name is not None and name not in seen:
            if name in chain:
                ring = list(chain)[chain[name] :]
                least = ring.index(min(ring))
                rings.add((*ring[least:], *ring[:least]))
                break
            chain[name] = len(chain)
            name = manager_of.get(name)
        seen.update(chain)
    return sorted(rings)
