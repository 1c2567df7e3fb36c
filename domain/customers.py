"""Connected customers: the ids that facts link as one person or one household, directly or through others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.events.facts import CustomerLinked, CustomerUnlinked
from domain.keyed_state import MemoryState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from domain.keyed_state import State

_CACHED_GROUPS = 10_000

type CustomerLink = CustomerLinked | CustomerUnlinked


def unnamed_customer(agent_id: str) -> str:
    """Return the name that stands for all customers whom an agent does not name; no customer id equals it."""
    return f"\x1fof {agent_id}"  # ids have no control characters


def is_linked_after(fact: CustomerLink, *, undo: bool = False) -> bool:
    """Return whether the two customers of a fact are linked after it; ``undo`` takes back a fact that was wrong."""
    return isinstance(fact, CustomerLinked) is not undo


def connected(customer_id: str, linked_to: Callable[[str], Iterable[str]]) -> frozenset[str]:
    """Return the customer and all customers that are linked with them, directly or through others.

    ``linked_to`` returns the customers with a direct link.
    """
    found, todo = {customer_id}, [customer_id]
    while todo:
        new = set(linked_to(todo.pop())) - found
        found |= new
        todo += new
    return frozenset(found)


class CustomerLinks:
    """The links between customers. A household link and a link as one person count alike."""

    def __init__(self, state: State | None = None, name: str = "links") -> None:
        """``name``: the table of this state that holds the links; without a state they are in memory."""
        self._links = (state or MemoryState()).table(name, set[tuple[str, str]])
        self._groups: dict[str, frozenset[str]] = {}

    def apply(self, fact: CustomerLink, *, undo: bool = False) -> None:
        """Apply a fact, or take it back."""
        for one, other in ((fact.a, fact.b), (fact.b, fact.a)):
            links = self._links.get(one) or set()
            if is_linked_after(fact, undo=undo):
                links.add((other, fact.relation))
            else:
                links.discard((other, fact.relation))
            self._links.put(one, links)
        self._groups.clear()

    def group_of(self, customer_id: str) -> frozenset[str]:
        """Return the customer and all connected customers."""
        if not self._links.get(customer_id):
            return frozenset((customer_id,))
        group = self._groups.get(customer_id)
        if group is None:
            group = connected(customer_id, lambda one: [other for other, _ in self._links.get(one) or ()])
            if len(self._groups) > _CACHED_GROUPS:
                self._groups.clear()
            self._groups.update(dict.fromkeys(group, group))
        return group

    def name_of(self, customer_id: str) -> str:
        """Return the name of the customer's group: its first member, or the customer alone."""
        return customer_id if not self._links.get(customer_id) else min(self.group_of(customer_id))
