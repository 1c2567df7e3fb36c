"""A counterfactual state: staff, goodwill and budgets as they would be under another policy.

It also keeps the goodwill given in history, so that only the difference between both counts.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext, grant_of, opening, period_to_book
from domain.customers import CustomerLinks, unnamed_customer
from domain.decisions.authority import Gift
from domain.decisions.owed import NOTHING_PAID, OrderAccount
from domain.events import facts
from domain.periods import Calendar, kind_of, zone_of
from domain.policy.history import PolicyHistory
from domain.staff import Staff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from domain.events.decisions import BudgetOpened, PolicyPublished, Posting
    from domain.policy.model import Rules
    from domain.simulation.comparison import DecisionSummary

type Key = tuple[str, str]
"""The key of a budget: (holder, currency)."""
_CAUSE = RequestContext(source="", request_id="", seen_position=0)


class GoodwillTotals(Gift):
    """Goodwill that was given in history (``did``), under the other policy (``would``), or both."""

    did: bool
    would: bool


class SimulatedAction(msgspec.Struct, gc=False):
    """An action in history, under the other policy, or both: the budget that paid it, and its goodwill."""

    key: Key
    would: bool
    gifts: list[GoodwillTotals]


class CounterfactualState:
    """The state that decisions under another policy depend on.

    Facts enter it at the position at which the original decider had read them.
    """

    def __init__(self, rules: Rules, published: Sequence[PolicyPublished] = ()) -> None:
        self.rules = rules
        self._then = PolicyHistory.of(published)
        self.diverged = False
        self.staff = Staff()
        self.to_customers: dict[str, list[GoodwillTotals]] = {}
        self.on_interactions: dict[str, list[GoodwillTotals]] = {}
        self.apart: set[str] = set()
        """Customers with goodwill in history only, or under the other policy only."""
        self.spent: dict[Key, list[int]] = {}
        """Goodwill by (period, currency) since the divergence, in minor units: in history, and here."""
        self.acts: dict[str, SimulatedAction] = {}
        self.budgets: dict[Key, Budget] = {}
        self._customers = CustomerLinks()
        self._back: dict[tuple[str, str], list[int]] = {}  # by order and currency: in history, and here
        self.group_of = self._customers.group_of
        self._later: deque[tuple[int, Callable[[], object]]] = deque()
        self.seconds, self.period = 0.0, ""
        """The moment, since 1970, and its period."""
        self._calendar = Calendar(rules.policy.period, zone_of(rules.policy.time_zone))

    # ------------------------------------------------------------------ facts, from the position where they were read

    def later(self, position: int, learn: Callable[[], object]) -> None:
        """Apply ``learn`` once a decision has seen ``position``."""
        self._later.append((position, learn))

    def know(self, seen_position: int) -> None:
        """Apply the facts that a decider with this ``seen_position`` had read."""
        while self._later and self._later[0][0] <= seen_position:
            self._later.popleft()[1]()

    def learn(self, body: facts.Fact) -> None:
        """Apply a fact about employees or customers."""
        if isinstance(body, (facts.CustomerLinked, facts.CustomerUnlinked)):
            self._customers.apply(body)
        else:
            self.staff.learn(body)

    def correct(self, before: msgspec.Struct | None, after: msgspec.Struct | None) -> None:
        """Replace a wrong fact by ``after``, which is ``None`` where the fact never happened."""
        for body, undo in ((before, True), (after, False)):
            match body:
                case facts.CustomerLinked() | facts.CustomerUnlinked():
                    self._customers.apply(body, undo=undo)
                case facts.EmployeeJoined() | facts.EmployeeChanged() if undo and after is not None:
                    continue
                case facts.Fact():
                    (self.staff.unlearn if undo else self.staff.learn)(body)

    def now(self, at: datetime) -> None:
        """Advance the clock of this state."""
        self.seconds = at.timestamp()
        self.period = self._calendar.at(self.seconds)

    # ------------------------------------------------------------------ goodwill

    def act(
        self,
        action_id: str,
        key: Key,
        record: DecisionSummary | facts.ActionReported,
        amount: tuple[int, str],
        *,
        did: bool,
        would: bool,
        seconds: float,
    ) -> GoodwillTotals:
        """Record an action given in history, under the other policy or both, at ``seconds`` since 1970."""
        customer, interaction = record.customer_id or unnamed_customer(record.agent_id), record.interaction_id
        minor = amount[0]
        gift = GoodwillTotals(record.agent_id, seconds, minor, amount[1], did, would)
        act = self.acts.get(action_id)
        if act is None:
            self.acts[action_id] = SimulatedAction(key, would, [gift])
        else:
            act.gifts.append(gift)
        self.to_customers.setdefault(customer, []).append(gift)
        if did is not would:
            self.apart.add(customer)
        if interaction is not None:
            self.on_interactions.setdefault(interaction, []).append(gift)
        return gift

    def give_back(self, order_id: str | None, minor: int, currency: str, *, did: bool, would: bool) -> None:
        """Count an amount that was given back for an order in history, under the other policy, or both."""
        if order_id is not None:
            sums = self._back.setdefault((order_id, currency), [0, 0])
            sums[0] += minor if did else 0
            sums[1] += minor if would else 0

    def order_account(self, one: DecisionSummary) -> OrderAccount:
        """Return the account of a decision's order under the other policy, from the one that the decider saw."""
        if one.basis == "goodwill":
            return NOTHING_PAID
        did, would = self._back.get((one.order_id or "", one.currency), (0, 0))
        if one.order is None:  # no proof was asked for then, and none is asked for here
            return OrderAccount(one.minor)
        return OrderAccount(one.order.paid, one.order.back + would - did)

    def to_group(self, one: DecisionSummary, group: frozenset[str], days: int) -> Sequence[Gift]:
        """Return the goodwill given to a group in so many ``days`` under the other policy.

        It is adjusted by the amounts that the original decider had not read yet or had read from another process.
        """
        rules = self._then.get(one.policy_version or 0)
        role = rules.policy.roles.get(one.role or "") if rules is not None else None
        then = role.per_customer if role is not None and one.to_customer is not None else None
        used, seconds = one.to_customer or 0, self.seconds
        if then is not None and then.days == days and self.apart.isdisjoint(group):
            return (
                (Gift("", seconds, used, one.currency),) if used else ()
            )  # history and counterfactual agree with the amount that the decider saw
        given = [gift for each in group for gift in self.to_customers.get(each, ())]
        here = [gift for gift in given if gift.would]
        if then is None:
            return here
        since = seconds - then.days * 86_400
        return _as_seen(here, used, [gift for gift in given if gift.did and gift.at > since], one, seconds)

    def on_interaction(self, one: DecisionSummary) -> Sequence[Gift]:
        """Return the goodwill given on an interaction under the other policy, adjusted as in ``to_group``."""
        given, used = self.on_interactions.get(one.interaction_id or "", ()), one.on_interaction
        if not given and not used:
            return ()
        here = [gift for gift in given if gift.would]
        return here if used is None else _as_seen(here, used, [gift for gift in given if gift.did], one, self.seconds)

    def count(self, currency: str, minor: int, *, did: bool, would: bool) -> None:
        """Count goodwill that was spent after history and the counterfactual diverged."""
        if not self.diverged or not minor:
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
        """Open a budget as in history, before the divergence."""
        key = record.holder, record.currency
        self.budgets[key] = Budget.open(record, at)

    def diverge(self) -> None:
        """Diverge: from now on the other policy rules, and open periods are granted the difference.

        An open period of another length is used to its end unchanged.
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
        """Return the budget of this moment; after the divergence, the other policy opens it."""
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

    def spend(self, budget: Budget, record: DecisionSummary | Posting, minor: int) -> None:
        """Spend goodwill from the budget and count it on the interaction."""
        budget.spend(record.interaction_id, minor)


def _as_seen(
    here: list[GoodwillTotals], used: int, did: list[GoodwillTotals], one: DecisionSummary, seconds: float
) -> Sequence[Gift]:
    """Return the goodwill with a correction for amounts that the decider had seen differently from the log's order."""
    off = used - sum([gift.minor for gift in did if gift.currency == one.currency])
    return [*here, Gift("", seconds, off, one.currency)] if off else here
