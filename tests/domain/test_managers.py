"""The tree of managers: people above and below, also where facts name a ring or an unknown person."""

from domain.decisions.authority import Agent
from domain.managers import managed_by, managers_above

MANAGER_OF = {"A-1": "M-1", "A-2": "M-1", "M-1": "X-1", "M-2": "X-1", "X-1": None, "B-1": "B-2", "B-2": "B-1"}


def agent_of(name: str) -> Agent | None:
    return Agent(agent_id=name, role="agent", manager_id=MANAGER_OF[name]) if name in MANAGER_OF else None


def above(name: str) -> list[str]:
    agent = agent_of(name)
    assert agent is not None
    return [one.agent_id for one in managers_above(agent, agent_of)]


def test_managers_above_are_the_nearest_first() -> None:
    assert above("A-1") == ["M-1", "X-1"]
    assert above("X-1") == []


def test_a_ring_ends_where_it_began() -> None:
    assert above("B-1") == ["B-2"]
    assert managed_by("B-1", MANAGER_OF) == {"B-1", "B-2"}


def test_people_below_are_found_at_any_level() -> None:
    assert managed_by("X-1", MANAGER_OF) == {"X-1", "M-1", "M-2", "A-1", "A-2"}
    assert managed_by("A-1", MANAGER_OF) == {"A-1"}
    assert managed_by("nobody", MANAGER_OF) == {"nobody"}
