"""The staff: roles, teams, managers, training, declared relations and delegations."""

from __future__ import annotations

from datetime import datetime

import msgspec

from domain.decisions.authority import Agent
from domain.events.facts import (
    AgentKind,
    DelegationDeclared,
    EmployeeChanged,
    EmployeeJoined,
    EmployeeLeft,
    Fact,
    RelationshipDeclared,
    TrainingCompleted,
)

_AGENTS_REMEMBERED = 100_000
_LEAVERS_JOIN_AGAIN_SINCE = 3
"""Rules of version 2 took `employee.changed` after `employee.left` for the return of that employee."""


def brings_back(fact: Fact) -> bool:
    """Return whether a fact ends an employee's absence after leaving: only `employee.joined` does.

    A change may be told late, or for a whole team, so it says nothing about a leaver.
    """
    return isinstance(fact, EmployeeJoined)


class _Employee(msgspec.Struct):
    role: str | None = None
    team_ids: tuple[str, ...] = ()
    left: bool = False
    changed_since: bool = False
    """A change was told after the employee had left."""
    training: dict[str, datetime | None] = {}
    related: tuple[str, ...] = ()
    manager_id: str | None = None
    delegations: tuple[tuple[str, datetime, datetime], ...] = ()
    """The delegations to this employee: (absent employee, from, until)."""
    kind: AgentKind = "human"
    accountable_id: str | None = None


class Staff:
    """All employees in memory; the decision state stores and restores the notes of each."""

    def __init__(self) -> None:
        self._employees: dict[str, _Employee] = {}
        self._changes_bring_back = False
        self._agents: dict[tuple[str, str | None], Agent] = {}

    def judge_by(self, rules_version: int) -> None:
        """Apply this version of the rules to the question who has left. The default is the present version."""
        changes_bring_back = rules_version < _LEAVERS_JOIN_AGAIN_SINCE
        if changes_bring_back is not self._changes_bring_back:
            self._changes_bring_back = changes_bring_back
            self._agents.clear()

    def agent(self, agent_id: str, default_role: str | None) -> Agent | None:
        """Return an agent, or ``None`` where neither a fact nor the policy gives a role."""
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
            left=self._has_left(known),
            training=known.training,
            related=frozenset(known.related),
            manager_id=known.manager_id,
            announced=known.role is not None,
            kind=known.kind,
            accountable_id=known.accountable_id,
            answered_for=known.kind == "human" or self._is_at_work(known.accountable_id),
        )
        if len(self._agents) > _AGENTS_REMEMBERED:
            self._agents.clear()
        self._agents[agent_id, default_role] = agent
        return agent

    def _is_at_work(self, employee_id: str | None) -> bool:
        """Return whether a person was announced and has not left."""
        known = self._employees.get(employee_id) if employee_id is not None else None
        return known is not None and known.role is not None and known.kind == "human" and not self._has_left(known)

    def _has_left(self, known: _Employee) -> bool:
        return known.left and not (self._changes_bring_back and known.changed_since)

    def has_left(self, employee_id: str) -> bool:
        """Return whether an employee has left."""
        return employee_id in self._employees and self._has_left(self._employees[employee_id])

    def everybody(self, default_role: str | None) -> list[Agent]:
        """Return all known employees, in the order of their ids."""
        found = (self.agent(agent_id, default_role) for agent_id in sorted(self._employees))
        return [agent for agent in found if agent is not None]

    def teams(self) -> set[str]:
        """Return the teams that have an employee."""
        return {team for known in self._employees.values() for team in known.team_ids}

    def stood_in_for(self, agent_id: str, now: datetime) -> list[str]:
        """Return the absent employees that this one decides for at the moment."""
        known = self._employees.get(agent_id)
        return [away for away, start, end in known.delegations if start <= now < end] if known else []

    def learn(self, fact: Fact) -> str | None:
        """Apply a fact; return the id of the employee with a changed note, or ``None``."""
        self._agents.clear()
        match fact:
            case EmployeeJoined() | EmployeeChanged():
                known = self._known(fact.employee_id)
                known.role, known.team_ids = fact.role, fact.team_ids
                known.left = known.left and not brings_back(fact)
                known.changed_since = known.left
                known.manager_id = fact.manager_id
                known.kind = fact.kind or known.kind
                known.accountable_id = fact.accountable_id or known.accountable_id
            case EmployeeLeft():
                known = self._known(fact.employee_id)
                known.left, known.changed_since = True, False
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
        """Undo a fact that never happened; return the id of the employee with a changed note. Later facts stay."""
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
        """Return an employee's state as bytes, for ``restore``."""
        return msgspec.json.encode(self._employees[employee_id])

    def restore(self, employee_id: str, note: bytes) -> None:
        """Restore an employee's state from a note."""
        self._employees[employee_id] = msgspec.json.decode(note, type=_Employee)
