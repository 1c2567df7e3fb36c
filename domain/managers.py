"""The tree of managers: the people above and below a person, and rings, which the facts of a company may contain."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from domain.decisions.authority import Agent

_LEVELS_AT_MOST = 20


def managers_above(agent: Agent, agent_of: Callable[[str], Agent | None]) -> list[Agent]:
    """Return the managers above an agent, the nearest first. A ring of managers ends where it began."""
    found: list[Agent] = []
    seen = {agent.agent_id}
    while agent.manager_id is not None and agent.manager_id not in seen and len(found) < _LEVELS_AT_MOST:
        above = agent_of(agent.manager_id)
        if above is None:
            break
        seen.add(above.agent_id)
        found.append(above)
        agent = above
    return found


def managed_by(manager_id: str, manager_of: Mapping[str, str | None]) -> frozenset[str]:
    """Return a manager and all people below them, at any level."""
    reports = defaultdict[str | None, list[str]](list)
    for name, manager in manager_of.items():
        reports[manager].append(name)
    found, todo = {manager_id}, [manager_id]
    while todo:
        new = set(reports[todo.pop()]) - found
        found |= new
        todo += new
    return frozenset(found)


def manager_rings(manager_of: Mapping[str, str | None]) -> list[tuple[str, ...]]:
    """Return the rings of people that are each other's managers, e.g. ``("A", "B")`` if A and B manage each other.

    Each ring occurs once and starts with its least name. A person who is their own manager is a ring of one.
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
