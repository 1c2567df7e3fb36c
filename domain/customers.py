"""Connected customers: the ids that facts link as one person or one household, directly or through others."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from domain.events.facts import CustomerLinked, CustomerUnlinked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    """The links between customers, in memory. A household link and a link as one person count alike."""

    def __init__(self) -> None:
        self._links: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._groups: dict[str, frozenset[str]] = {}

    def apply(self, fact: CustomerLink, *, undo: bool = False) -> None:
        """Apply a fact, or take it back."""
        for one, other in ((fact.a, fact.b), (fact.b, fact.a)):
            if is_linked_after(fact, undo=undo):
                self._links[one].add((other, fact.relation))
            else:
                self._links[one].discard((other, fact.relation))
        self._groups.clear()

    def group_of(self, customer_id: str) -> frozenset[str]:
        """Return the customer and all connected customers."""
        if customer_id not in self._links:
            return frozenset((customer_id,))
        group = self._groups.get(customer_id)
        if group is None:
            group = connected(customer_id, lambda one: [other for other, _ in self._links.get(one, ())])
            self._groups.update(dict.fromkeys(group, group))
        return group

    def name_of(self, customer_id: str) -> str:
        """Return the name of the customer's group: its first member, or the customer alone."""
        return customer_id if customer_id not in self._links else min(self.group_of(customer_id))
