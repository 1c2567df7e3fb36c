"""A world in which another policy ruled: who works there, what was given to whom, and its budgets.

Beside it what was given in history; so that only the difference between the two counts.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

import msgspec

from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext, grant_of, opening, period_to_book
from domain.decisions.authority import Gift
from domain.events import facts
from domain.periods import Calendar, kind_of, zone_of
from domain.policy.history import PolicyHistory
from domain.staff import Staff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from domain.events.decisions import BudgetOpened, PolicyPublished
    from domain.policy.model import Rules
    from domain.simulation.comparison import DecisionSummary

type Key = tuple[str, str]
"""Whose budget: (holder, currency)."""
_CAUSE = RequestContext(source="", request_id="", seen_position=0)


class GoodwillTotals(Gift):
    """Given in history, in the other world, or in both."""

    did: bool
    would: bool


class SimulatedAction(msgspec.Struct, gc=False):
    """An action in history, in the other world, or both: whose budget it was given out of, and what it counts for."""

    key: Key
    would: bool
    gifts: list[GoodwillTotals]


class CounterfactualState:
    """What decisions depend on. What comes from facts is known from the position at which a decider had read it."""

    def __init__(self, rules: Rules, published: Sequence[PolicyPublished] = ()) -> None:
        self.rules = rules
        self._then = PolicyHistory.of(published)
        self.diverged = False
        self.staff = Staff()
        self.to_customers: dict[str, list[GoodwillTotals]] = {}
        self.on_interactions: dict[str, list[GoodwillTotals]] = {}
        self.apart: set[str] = set()
        """Customers who were given something in one world alone."""
        self.spent: dict[Key, list[int]] = {}
        """Goodwill by (period, currency) since the worlds parted, minor units: in history, and here."""
        self.acts: dict[str, SimulatedAction] = {}
        self.budgets: dict[Key, Budget] = {}
        self._links: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._later: deque[tuple[int, Callable[[], object]]] = deque()
        self.seconds, self.period = 0.0, ""
        """The moment, since 1970, and its period."""
        self._calendar = Calendar(rules.policy.period, zone_of(rules.policy.time_zone))

    # ------------------------------------------------------------------ what is known, and when

    def later(self, position: int, learn: Callable[[], object]) -> None:
        """Learn this once a decider has read up to ``position``."""
        self._later.append((position, learn))

    def know(self, seen_position: int) -> None:
        """Learn what a decider had read by then."""
        while self._later and self._later[0][0] <= seen_position:
            self._later.popleft()[1]()

    def learn(self, body: Any) -> None:
        """A fact about people."""
        if isinstance(body, (facts.CustomerLinked, facts.CustomerUnlinked)):
            self._link(body, linked=isinstance(body, facts.CustomerLinked))
        else:
            self.staff.learn(body)

    def correct(self, before: Any, after: Any) -> None:
        """A fact was wrong; ``after`` is what is right, none where it never happened."""
        for body, undo in ((before, True), (after, False)):
            match body:
                case facts.CustomerLinked() | facts.CustomerUnlinked():
                    self._link(body, linked=isinstance(body, facts.CustomerLinked) is not undo)
                case facts.EmployeeJoined() | facts.EmployeeChanged() if undo and after is not None:
                    continue
                case facts.Fact():
                    (self.staff.unlearn if undo else self.staff.learn)(body)

    def _link(self, body: facts.CustomerLinked | facts.CustomerUnlinked, *, linked: bool) -> None:
        for one, other in ((body.a, body.b), (body.b, body.a)):
            (self._links[one].add if linked else self._links[one].discard)((other, body.relation))

    def group_of(self, customer_id: str) -> frozenset[str]:
        """The customer and everybody linked with them, at any remove."""
        if customer_id not in self._links:
            return frozenset((customer_id,))
        found, todo = {customer_id}, [customer_id]
        while todo:
            new = {other for other, _ in self._links.get(todo.pop(), ())} - found
            found |= new
            todo += new
        return frozenset(found)

    def now(self, at: datetime) -> None:
        """Go on to this moment."""
        self.seconds = at.timestamp()
        self.period = self._calendar.at(self.seconds)

    # ------------------------------------------------------------------ what was given

    def act(
        self, action_id: str, key: Key, record: Any, amount: tuple[int, str], *, did: bool, would: bool, seconds: float
    ) -> None:
        """An action was given in one world or both, at ``seconds`` since 1970."""
        minor, customer, interaction = (
            amount[0] if record.basis == "goodwill" else 0,
            record.customer_id,
            record.interaction_id,
        )
        gift = GoodwillTotals(record.agent_id, seconds, minor, amount[1], did, would)
        act = self.acts.get(action_id)
        if act is None:
            self.acts[action_id] = SimulatedAction(key, would, [gift])
        else:
            act.gifts.append(gift)
        if customer is not None:
            _put(self.to_customers, customer, gift)
            if did is not would:
                self.apart.add(customer)
        if interaction is not None:
            _put(self.on_interactions, interaction, gift)

    def to_group(self, one: DecisionSummary, group: frozenset[str], days: int) -> Sequence[Gift]:
        """What a group was given here in so many ``days``, and what the decider saw beside the log's order."""
        rules = self._then.get(one.policy_version or 0)
        role = rules.policy.roles.get(one.role or "") if rules is not None else None
        then = role.per_customer if role is not None and one.to_customer is not None else None
        used, seconds = one.to_customer or 0, self.seconds
        if then is not None and then.days == days and self.apart.isdisjoint(group):
            return (Gift("", seconds, used, one.currency),) if used else ()  # both worlds gave what the decider saw
        given = [gift for each in group for gift in self.to_customers.get(each, ())]
        here = [gift for gift in given if gift.would]
        if then is None:
            return here
        since = seconds - then.days * 86_400
        return _as_seen(here, used, [gift for gift in given if gift.did and gift.at > since], one, seconds)

    def on_interaction(self, one: DecisionSummary) -> Sequence[Gift]:
        """The same for an interaction."""
        given, used = self.on_interactions.get(one.interaction_id or "", ()), one.on_interaction
        if not given and not used:
            return ()
        here = [gift for gift in given if gift.would]
        return here if used is None else _as_seen(here, used, [gift for gift in given if gift.did], one, self.seconds)

    def count(self, currency: str, basis: str, minor: int, *, did: bool, would: bool) -> None:
        """Goodwill that was spent since the worlds parted."""
        if not self.diverged or basis != "goodwill":
            return
        spent = self.spent.get((self.period, currency))
        if spent is None:
            spent = self.spent[self.period, currency] = [0, 0]
        if did:
            spent[0] += minor
        if would:
            spent[1] += minor

    # ------------------------------------------------------------------ budgets

    def opened(self, record: BudgetOpened, at: datetime) -> None:
        """A period began, before the worlds parted."""
        key = record.holder, record.currency
        self.budgets[key] = Budget.open(record, at)

    def part(self) -> None:
        """From now on this world has rules of its own; what it grants differs in the open periods already.

        An open period of another length is used to its end as it is.
        """
        self.diverged = True
        for key, budget in self.budgets.items():
            then = self._then.get(budget.policy_version)
            if then is not None and kind_of(budget.period) == self.rules.policy.period:
                role = self._role_of(budget.holder)
                before, now = (grant_of(one.policy, key[0], role, key[1])[0] for one in (then, self.rules))
                budget.granted_minor += now.minor - before.minor

    def _role_of(self, holder: str) -> str | None:
        kind, _, name = holder.partition(":")
        agent = self.staff.agent(name, self.rules.policy.default_role) if kind == "agent" else None
        return agent.role if agent else None

    def budget(self, holder: str, currency: str, at: datetime) -> Budget:
        """The budget of this moment; opened by this world's rules, once the worlds have parted."""
        key = (holder, currency)
        before = self.budgets.get(key)
        if before is not None and (before.period == self.period or not self.diverged):
            return before
        try:
            period = period_to_book(self.rules, before, self._then, at)
        except ValueError:
            assert before is not None
            return before
        if before is not None and before.period == period:
            return before
        opened, _ = opening(self.rules, holder, period, before, _CAUSE, self._role_of(holder), currency)
        budget = self.budgets[key] = Budget.open(opened, at)
        return budget

    def spend(self, budget: Budget, record: Any, minor: int) -> None:
        """Goodwill draws on the budget; what was reserved for the action is free."""
        if record.basis == "goodwill":
            budget.spent_minor += minor
            if record.interaction_id is not None:
                budget.count(record.interaction_id, minor)


def _put(given: dict[str, list[GoodwillTotals]], name: str, gift: GoodwillTotals) -> None:
    before = given.get(name)
    if before is None:
        given[name] = [gift]
    else:
        before.append(gift)


def _as_seen(
    here: list[GoodwillTotals], used: int, did: list[GoodwillTotals], one: DecisionSummary, seconds: float
) -> Sequence[Gift]:
    """With what the decider had not read yet, or had read from another process: as the event says."""
    off = used - sum([gift.minor for gift in did if gift.currency == one.currency])
    return [*here, Gift("", seconds, off, one.currency)] if off else here
