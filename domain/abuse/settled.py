"""The guard's second memory: facts in the order of event time, once late ones have had their time to arrive.

An event waits until fifteen minutes of recorded time have passed since it happened, and is then taken in the order of
event times. So a rule that reads this memory gives the same findings for every order of arrival within those minutes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

from domain.abuse.history import DAY, REMEMBERED_SECONDS
from domain.customers import CustomerLinks
from domain.events import decisions, facts
from domain.statistics import binomial_tail, varied_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import ClassVar, Protocol

    from domain.abuse.findings import RuleFinding
    from domain.abuse.history import GuardEvent, GuardHistory, ObservedAction

    class WaitingRule(Protocol):
        """A rule that looks at events after their waiting time, in the order of event times."""

        takes: ClassVar[tuple[type, ...]]
        """The classes of the events that the rule looks at."""

        def on(
            self, settled: SettledHistory, event: GuardEvent, action: ObservedAction | None, /
        ) -> Iterable[RuleFinding]:
            """Return the findings of an event; ``settled`` already holds the event."""


ACTIONS = (decisions.ActionTaken, decisions.ActionHeld, facts.ActionReported)
LINKS = (facts.CustomerLinked, facts.CustomerUnlinked, facts.RelationshipDeclared, facts.FactCorrected)
PEOPLE = (facts.EmployeeJoined, facts.EmployeeChanged)
SETTLED = (*ACTIONS, *LINKS, *PEOPLE, facts.PurchaseCompleted)
"""The classes of the events from which ``SettledHistory`` learns."""
_CUSTOM = 10
_UNSEEN = 100
"""Entries of others without a mark, of which one has it, that a young history is taken to have."""
VARIATION = 0.5
"""The coefficient of variation of honest people's shares: they differ by about half."""
_MATES_PRIOR = 60.0
"""The weight of all others beside the mates of an agent, in entries."""
_CHANCE = 1e-4


class Change(NamedTuple):
    """A change of the accounts that are an employee's own: the employee's id, the household or a declared relation."""

    employee: str
    customer: str
    at: float
    position: int
    how: str
    """`linked` or `declared`."""


class Cut(NamedTuple):
    """A link that was taken back: the accounts on the other side, and the event."""

    others: frozenset[str]
    at: float
    position: int
    how: str
    """`unlinked` or `retracted`."""


class SettledHistory:
    """Customers' links, employees' own accounts, payments by order, and gifts by customer."""

    def __init__(self, history: GuardHistory) -> None:
        self._history = history
        self.mates = history.mates
        self.links = CustomerLinks()
        self.people: set[str] = set()
        self.related: dict[str, dict[str, int]] = defaultdict(dict)
        self._relatives: dict[str, set[str]] = defaultdict(set)
        self._facts: dict[int, facts.RelationshipDeclared | facts.CustomerLinked] = {}
        self.changes: list[Change] = []
        """The accounts that the present event made an employee's own."""
        self.cuts: dict[str, Cut] = {}
        """The last link of a customer that was taken back."""
        self.gifts: dict[str, list[ObservedAction]] = {}
        self._all_gifts: deque[tuple[float, str]] = deque()
        self._paid: dict[tuple[str, str], int] = {}
        self._given: dict[tuple[str, str], int] = {}
        self.first_purchase: float | None = None

    # ------------------------------------------------------------------ learning

    def learn(self, event: GuardEvent, action: ObservedAction | None) -> None:
        """Apply an event."""
        self.changes = []
        match event.body:
            case facts.CustomerLinked() as link:
                self._facts[event.position] = link
                self._join(event, "linked", {link.a, link.b}, lambda: self.links.apply(link))
            case facts.CustomerUnlinked() as link:
                self.links.apply(link)
                self._cut(event, link.a, link.b, "unlinked")
            case facts.RelationshipDeclared() as relation:
                self._facts[event.position] = relation
                self._join(event, "declared", {relation.customer_id}, lambda: self._relate(relation, event.position))
            case facts.FactCorrected() if event.corrects in self._facts:
                self._retract(event, self._facts.pop(event.corrects))
            case facts.EmployeeJoined() | facts.EmployeeChanged() as employee:
                self.people.add(employee.employee_id)
            case facts.PurchaseCompleted() as purchase:
                key = purchase.order_id, purchase.total.currency
                self._paid[key] = self._paid.get(key, 0) + purchase.total.minor
                self.first_purchase = event.at if self.first_purchase is None else min(self.first_purchase, event.at)
            case _:
                pass
        if action is not None:
            self.people.add(action.agent)
            if action.customer is not None and action.minor:
                self.gifts.setdefault(action.customer, []).append(action)
                self._all_gifts.append((event.recorded, action.customer))
            self._forget_gifts(event.recorded - REMEMBERED_SECONDS)

    def settle(self, action: ObservedAction) -> None:
        """Count an action towards its order, once all rules have seen it."""
        if action.order is not None:
            key = action.order, action.currency
            self._given[key] = self._given.get(key, 0) + action.minor

    def _relate(self, relation: facts.RelationshipDeclared, position: int) -> None:
        self.related[relation.employee_id][relation.customer_id] = position
        self._relatives[relation.customer_id].add(relation.employee_id)
        self.people.add(relation.employee_id)

    def _retract(self, event: GuardEvent, told: facts.RelationshipDeclared | facts.CustomerLinked) -> None:
        if isinstance(told, facts.CustomerLinked):
            self.links.apply(told, undo=True)
            self._cut(event, told.a, told.b, "retracted")
            return
        self.related[told.employee_id].pop(told.customer_id, None)
        self._relatives[told.customer_id].discard(told.employee_id)
        self._cut(event, told.employee_id, told.customer_id, "retracted")

    def _cut(self, event: GuardEvent, a: str, b: str, how: str) -> None:
        one, other = self.accounts(a), self.accounts(b)
        if one.isdisjoint(other):
            for mine, theirs in ((one, other), (other, one)):
                self.cuts |= dict.fromkeys(mine, Cut(theirs, event.at, event.position, how))

    def _join(self, event: GuardEvent, how: str, customers: set[str], apply: Callable[[], None]) -> None:
        """Apply a new link, and note the accounts that employees gained by it."""
        people = {who for customer in customers for who in self.employees_behind(customer)}
        before = {who: self.accounts(who) for who in people}
        apply()
        people |= {who for customer in customers for who in self.employees_behind(customer)}
        for who in sorted(people):
            gained = self.accounts(who) - before.get(who, frozenset((who,)))
            self.changes += [Change(who, customer, event.at, event.position, how) for customer in sorted(gained)]

    def _forget_gifts(self, moment: float) -> None:
        while self._all_gifts and self._all_gifts[0][0] < moment:
            customer = self._all_gifts.popleft()[1]
            gifts = self.gifts[customer]
            del gifts[0]
            if not gifts:
                del self.gifts[customer]

    # ------------------------------------------------------------------ queries

    def accounts(self, employee: str) -> frozenset[str]:
        """Return the customers that are an employee's own: under the same id, the household and declared relations."""
        found = set(self.links.group_of(employee))
        for customer in self.related.get(employee, ()):
            found |= self.links.group_of(customer)
        return frozenset(found)

    def employees_behind(self, customer: str) -> set[str]:
        """Return the employees with an account in the customer's group."""
        found = set[str]()
        for member in self.links.group_of(customer):
            if member in self.people:
                found.add(member)
            found |= self._relatives.get(member, set())
        return found

    def own_cut(self, agent: str, customer: str, since: float) -> Cut | None:
        """Return the event since a moment by which a customer stopped being an agent's own account, if they did."""
        cut, own = self.cuts.get(customer), self.accounts(agent)
        if cut is None or cut.at <= since or customer in own or cut.others.isdisjoint(own):
            return None
        return cut

    def given_by(self, agent: str, customers: Iterable[str], since: float) -> Iterator[ObservedAction]:
        """Yield an agent's gifts to some customers since a moment, by customer and time."""
        for customer in sorted(customers):
            yield from (gift for gift in self.gifts.get(customer, ()) if gift.agent == agent and gift.at > since)

    def contacts(self, agent: str, customer: str, since: float, until: float) -> int:
        """Return how many interactions an agent had with a customer's group in a time."""
        met = self._history.group_contacts.get(self._history.group(customer), ())
        return sum(contact.agent == agent and since < contact.at <= until for contact in met)

    def owed(self, order: str | None, currency: str) -> int | None:
        """Return the amount paid for an order less the amount given back before; ``None`` for an unknown order."""
        if order is None or (paid := self._paid.get((order, currency))) is None:
            return None
        return max(paid - self._given.get((order, currency), 0), 0)


def stands_out(mine: int, of: int, others: int, of_others: int, times: float) -> bool:
    """Return whether one share is far above the others' share, (others + 1) / (of others + 2).

    It is at least ``times`` the others' share, and the binomial tail of so many at that share is below 1e-4. The others
    need ten entries, because fewer are no custom that one person could depart from.
    """
    share = (others + 1) / (of_others + 2)
    enough = of > 0 and of_others >= _CUSTOM and mine / of >= times * share
    return enough and binomial_tail(mine, of, share) < _CHANCE


class Tally:
    """A count by agent over a sliding window: how many of an agent's entries are marked, beside all others'."""

    def __init__(self, days: float, variation: float = VARIATION) -> None:
        """Create a tally of so many days; ``variation`` is how honest people's shares differ."""
        self._seconds, self._variation = days * DAY, variation
        self._entries: set[tuple[str, str]] = set()
        self._order: deque[tuple[float, tuple[str, str]]] = deque()
        self._of: dict[str, int] = defaultdict(int)
        self._marked: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
        self._all = self._all_marked = 0

    def note(self, at: float, agent: str, key: str, proof: tuple[int, ...] = ()) -> None:
        """Count an entry once; with a ``proof`` (positions) it is marked."""
        while self._order and self._order[0][0] <= at - self._seconds:
            self._drop(self._order.popleft()[1])
        name = agent, key
        if name not in self._entries:
            self._entries.add(name)
            self._order.append((at, name))
            self._of[agent] += 1
            self._all += 1
        if proof:
            self._all_marked += key not in self._marked[agent]
            self._marked[agent][key] = proof

    def unmark(self, agent: str, key: str) -> None:
        """Take a mark back."""
        self._all_marked -= self._marked[agent].pop(key, None) is not None

    def _drop(self, name: tuple[str, str]) -> None:
        agent, key = name
        self._entries.discard(name)
        self.unmark(agent, key)
        self._of[agent] -= 1
        self._all -= 1

    def marked(self, agent: str) -> dict[str, tuple[int, ...]]:
        """Return the agent's marked entries in the window, each with its proof."""
        return self._marked[agent]

    def of(self, agent: str) -> int:
        """Return the number of the agent's entries in the window."""
        return self._of[agent]

    def chance(self, agent: str, mates: Iterable[str]) -> float:
        """Return the chance of as many marked entries of an honest agent: a beta-binomial tail at the usual share."""
        share = min(self.usual(agent, mates), 0.95)
        return varied_tail(len(self._marked[agent]), self._of[agent], share, self._variation)

    def usual(self, agent: str, mates: Iterable[str]) -> float:
        """Return the mates' share of marked entries, drawn towards all others' share."""
        marked, of = self.others(agent)
        share = (marked + 1) / (of + _UNSEEN)
        marked = sum(len(self._marked[mate]) for mate in mates if mate != agent)
        of = sum(self._of[mate] for mate in mates if mate != agent)
        return (marked + _MATES_PRIOR * share) / (of + _MATES_PRIOR)

    def others(self, agent: str) -> tuple[int, int]:
        """Return how many of all others' entries are marked, and how many there are."""
        return self._all_marked - len(self._marked[agent]), self._all - self._of[agent]

    def stands_out(self, agent: str, times: float, *, alone: bool = False) -> bool:
        """Return whether the agent's share of marked entries is far above the others' (see ``stands_out``).

        ``alone`` is the answer where the others have too few entries for a custom.
        """
        if alone and self._all - self._of[agent] < _CUSTOM:
            return True
        return stands_out(len(self._marked[agent]), self._of[agent], *self.others(agent), times)
