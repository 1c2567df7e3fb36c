"""The guard's second memory: facts in the order of event time, once late ones have had their time to arrive.

An event waits until fifteen minutes of recorded time have passed since it happened, and is then taken in the order of
event times. So a rule that reads this memory gives the same findings for every order of arrival within those minutes.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from domain.abuse.history import DAY, REMEMBERED_SECONDS, ObservedAction
from domain.abuse.stored_bodies import StoredBody
from domain.customers import CustomerLinks
from domain.events import decisions, facts
from domain.keyed_state import Queue, keyed
from domain.statistics import binomial_tail, varied_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import ClassVar, Protocol

    from domain.abuse.findings import RuleFinding
    from domain.abuse.history import GuardEvent, GuardHistory
    from domain.keyed_state import State, Table

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


class _Known(msgspec.Struct):
    """Everything that grows with people alone."""

    people: set[str] = set()
    related: dict[str, dict[str, int]] = {}
    relatives: dict[str, set[str]] = {}
    first_purchase: float | None = None


class SettledHistory:
    """Customers' links, employees' own accounts, payments by order, and gifts by customer."""

    def __init__(self, history: GuardHistory, state: State) -> None:
        self._history = history
        self.mates = history.mates
        self.links = CustomerLinks(state, "links as happened")
        self._known = state.record("settled", _Known)
        self.people, self.related, self._relatives = self._known.people, self._known.related, self._known.relatives
        self._facts = state.table("facts about links", StoredBody)
        self.changes: list[Change] = []
        """The accounts that the present event made an employee's own."""
        self.cuts = state.table("links cut", Cut)
        """The last link of a customer that was taken back."""
        self._gifts = state.table("gifts", list[ObservedAction])
        self._all_gifts = Queue(state, "gifts in order", list[tuple[float, str]])
        self._paid = state.table("paid as happened", int)
        self._given = state.table("given back", int)

    # ------------------------------------------------------------------ learning

    def learn(self, event: GuardEvent, action: ObservedAction | None) -> None:
        """Apply an event."""
        self.changes = []
        match event.body:
            case facts.CustomerLinked() as link:
                self._facts.put(str(event.position), StoredBody(link))
                self._join(event, "linked", {link.a, link.b}, lambda: self.links.apply(link))
            case facts.CustomerUnlinked() as link:
                self.links.apply(link)
                self._cut(event, link.a, link.b, "unlinked")
            case facts.RelationshipDeclared() as relation:
                self._facts.put(str(event.position), StoredBody(relation))
                self._join(event, "declared", {relation.customer_id}, lambda: self._relate(relation, event.position))
            case facts.FactCorrected():
                if (told := self._facts.get(str(event.corrects))) is not None:
                    self._facts.drop(str(event.corrects))
                    self._retract(event, told.body)
            case facts.EmployeeJoined() | facts.EmployeeChanged() as employee:
                self.people.add(employee.employee_id)
            case facts.PurchaseCompleted() as purchase:
                _add(self._paid, keyed(purchase.order_id, purchase.total.currency), purchase.total.minor)
                first = self._known.first_purchase
                self._known.first_purchase = event.at if first is None else min(first, event.at)
            case _:
                pass
        if action is not None:
            self.people.add(action.agent)
            if action.customer is not None and action.minor:
                gifts = self._gifts.get(action.customer) or []
                gifts.append(action)
                self._gifts.put(action.customer, gifts)
                self._all_gifts.append((event.recorded, action.customer))
            self._forget_gifts(event.recorded - REMEMBERED_SECONDS)

    def settle(self, action: ObservedAction) -> None:
        """Count an action towards its order, once all rules have seen it."""
        if action.order is not None:
            _add(self._given, keyed(action.order, action.currency), action.minor)

    def _relate(self, relation: facts.RelationshipDeclared, position: int) -> None:
        self.related.setdefault(relation.employee_id, {})[relation.customer_id] = position
        self._relatives.setdefault(relation.customer_id, set()).add(relation.employee_id)
        self.people.add(relation.employee_id)

    def _retract(self, event: GuardEvent, told: msgspec.Struct) -> None:
        if isinstance(told, facts.CustomerLinked):
            self.links.apply(told, undo=True)
            self._cut(event, told.a, told.b, "retracted")
            return
        assert isinstance(told, facts.RelationshipDeclared)
        self.related.get(told.employee_id, {}).pop(told.customer_id, None)
        self._relatives.get(told.customer_id, set()).discard(told.employee_id)
        self._cut(event, told.employee_id, told.customer_id, "retracted")

    def _cut(self, event: GuardEvent, a: str, b: str, how: str) -> None:
        one, other = self.accounts(a), self.accounts(b)
        if one.isdisjoint(other):
            for mine, theirs in ((one, other), (other, one)):
                for customer in mine:
                    self.cuts.put(customer, Cut(theirs, event.at, event.position, how))

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
        while (oldest := self._all_gifts.first()) is not None and oldest[0] < moment:
            customer = self._all_gifts.pop_first()[1]
            if gifts := (self._gifts.get(customer) or [])[1:]:
                self._gifts.put(customer, gifts)
            else:
                self._gifts.drop(customer)

    # ------------------------------------------------------------------ queries

    @property
    def first_purchase(self) -> float | None:
        """The time of the earliest purchase."""
        return self._known.first_purchase

    def gifts_to(self, customer: str) -> list[ObservedAction]:
        """Return the gifts of the last 90 days to one customer, in the order of event times."""
        return self._gifts.get(customer) or []

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
            yield from (gift for gift in self.gifts_to(customer) if gift.agent == agent and gift.at > since)

    def contacts(self, agent: str, customer: str, since: float, until: float) -> int:
        """Return how many interactions an agent had with a customer's group in a time."""
        met = self._history.contacts_of(self._history.group(customer))
        return sum(contact.agent == agent and since < contact.at <= until for contact in met)

    def regular_customers(self, agent: str, least: int) -> int:
        """Return how many groups of customers an agent had so many interactions with, as far as is remembered."""
        met = (self._history.contacts_of(group) for group in self._history.regulars)
        return sum(sum(contact.agent == agent for contact in some) >= least for some in met)

    def interactions(self, agents: Iterable[str], days: float) -> float:
        """Return how many contacts some agents had in so many days, as known last night; 0 before the first night."""
        rates = self._history.last_rates
        if rates is None:
            return 0.0
        until = int(rates.end // DAY) + 1
        return sum(rates.of(agent, until - int(days), until).contacts for agent in agents)

    def owed(self, order: str | None, currency: str, given: int | None = None) -> int | None:
        """Return the amount paid for an order less the amount given back before; ``None`` for an unknown order.

        ``given`` is the amount given back before an earlier moment.
        """
        if order is None or (paid := self._paid.get(keyed(order, currency))) is None:
            return None
        return max(paid - (self.given_back(order, currency) if given is None else given), 0)

    def given_back(self, order: str | None, currency: str) -> int:
        """Return the amount given back for an order so far."""
        return (self._given.get(keyed(order, currency)) or 0) if order is not None else 0


def _add(table: Table[int], key: str, minor: int) -> None:
    table.put(key, (table.get(key) or 0) + minor)


def stands_out(mine: int, of: int, others: int, of_others: int, times: float) -> bool:
    """Return whether one share is far above the others' share, (others + 1) / (of others + 2).

    It is at least ``times`` the others' share, and the binomial tail of so many at that share is below 1e-4. The others
    need ten entries, because fewer are no custom that one person could depart from.
    """
    share = (others + 1) / (of_others + 2)
    enough = of > 0 and of_others >= _CUSTOM and mine / of >= times * share
    return enough and binomial_tail(mine, of, share) < _CHANCE


class _Counts(msgspec.Struct):
    of: dict[str, int] = {}
    marked: dict[str, int] = {}
    all: int = 0
    all_marked: int = 0


class Tally:
    """A count by agent over a sliding window: how many of an agent's entries are marked, beside all others'."""

    def __init__(
        self,
        state: State,
        name: str,
        days: float,
        variation: float = VARIATION,
        least: float = 0.0,
        mates_prior: float = 60.0,
    ) -> None:
        """Create a tally of so many days; ``variation`` is how honest people's shares differ.

        ``name``: of the tally within this state. ``least``: the least usual share. One person's honest habit may have
        so much, though others have none. ``mates_prior``: the weight of all others beside the mates, in entries.
        """
        self._seconds, self._variation, self._least = days * DAY, variation, least
        self._mates_prior = mates_prior
        self._counts = state.record(name, _Counts)
        self._entries = state.table(f"{name} entries", bool)
        self._marks = state.table(f"{name} marks", dict[str, tuple[int, ...]], cached=2_000)
        self._order = Queue(state, f"{name} in order", list[tuple[float, str, str]])

    def note(self, at: float, agent: str, key: str, proof: tuple[int, ...] = ()) -> None:
        """Count an entry once; with a ``proof`` (positions) it is marked."""
        while (oldest := self._order.first()) is not None and oldest[0] <= at - self._seconds:
            self._drop(*self._order.pop_first()[1:])
        name, counts = keyed(agent, key), self._counts
        if self._entries.get(name) is None:
            self._entries.put(name, True)  # noqa: FBT003 - the value of a set's entry
            self._order.append((at, agent, key))
            counts.of[agent] = counts.of.get(agent, 0) + 1
            counts.all += 1
        if proof:
            marks = self.marked(agent)
            marks[key] = proof
            self._keep(agent, marks)

    def unmark(self, agent: str, key: str) -> None:
        """Take a mark back."""
        if self._counts.marked.get(agent):
            marks = self.marked(agent)
            if marks.pop(key, None) is not None:
                self._keep(agent, marks)

    def _keep(self, agent: str, marks: dict[str, tuple[int, ...]]) -> None:
        self._marks.put(agent, marks)
        self._counts.all_marked += len(marks) - self._counts.marked.get(agent, 0)
        self._counts.marked[agent] = len(marks)

    def _drop(self, agent: str, key: str) -> None:
        self._entries.drop(keyed(agent, key))
        self.unmark(agent, key)
        self._counts.of[agent] -= 1
        self._counts.all -= 1

    def marked(self, agent: str) -> dict[str, tuple[int, ...]]:
        """Return the agent's marked entries in the window, each with its proof."""
        return (self._marks.get(agent) or {}) if self._counts.marked.get(agent) else {}

    def of(self, agent: str) -> int:
        """Return the number of the agent's entries in the window."""
        return self._counts.of.get(agent, 0)

    def chance(self, agent: str, mates: Iterable[str]) -> float:
        """Return the chance of as many marked entries of an honest agent: a beta-binomial tail at the usual share.

        A share that few marks show is uncertain: that adds one over their number to the squared variation.
        """
        share, marks = self._known_share(agent, mates)
        variation = sqrt(self._variation**2 + 1 / marks)
        share = min(max(share, self._least), 0.95)
        return varied_tail(self._counts.marked.get(agent, 0), self.of(agent), share, variation)

    def usual(self, agent: str, mates: Iterable[str]) -> float:
        """Return the mates' share of marked entries, drawn towards all others' share."""
        return self._known_share(agent, mates)[0]

    def _known_share(self, agent: str, mates: Iterable[str]) -> tuple[float, float]:
        """Return the usual share, and how many marks it is known from.

        The weight of all others is one mark at least: teams without one may differ from them by chance.
        """
        marked, of = self.others(agent)
        share = (marked + 1) / (of + _UNSEEN)
        others = [mate for mate in mates if mate != agent]
        marked, of = sum(self._counts.marked.get(mate, 0) for mate in others), sum(self.of(mate) for mate in others)
        weight = max(self._mates_prior, 1 / share)
        return (marked + weight * share) / (of + weight), marked + weight * share

    def others(self, agent: str) -> tuple[int, int]:
        """Return how many of all others' entries are marked, and how many there are."""
        counts = self._counts
        return counts.all_marked - counts.marked.get(agent, 0), counts.all - self.of(agent)

    def stands_out(self, agent: str, times: float, *, alone: bool = False) -> bool:
        """Return whether the agent's share of marked entries is far above the others' (see ``stands_out``).

        ``alone`` is the answer where the others have too few entries for a custom.
        """
        others = self.others(agent)
        if alone and others[1] < _CUSTOM:
            return True
        return stands_out(self._counts.marked.get(agent, 0), self.of(agent), *others, times)
