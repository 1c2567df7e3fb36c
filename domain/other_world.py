"""A world in which another policy ruled: who works there, what was given to whom, and its budgets.

Beside it what was given in history; so that only the difference between the two counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from domain import facts
from domain.bookkeeping import Cause, grant_of, opening
from domain.budget import Budget
from domain.deciding import Gift
from domain.periods import Calendar
from domain.policy_document import parse_policy
from domain.staff import Staff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from domain.judged import Decided
    from domain.policy import Rules
    from domain.records import BudgetOpened, PolicyPublished

type Key = tuple[str, str]
"""Whose budget: (holder, currency)."""
_CAUSE = Cause(source="", request_id="", seen_position=0)


class Act:
    """An action in history, in the other world, or both: where it was given, and what it counts for there."""

    __slots__ = ("did", "gifts", "key", "would")

    def __init__(self, key: Key, *, did: bool, would: bool) -> None:
        self.key, self.did, self.would = key, did, would
        self.gifts: list[Gift] = []


class Given(Gift):
    """Given in history, in the other world, or in both."""

    did: bool
    would: bool


class OtherWorld:
    """What decisions depend on. What comes from facts is known from the position at which a decider had read it."""

    def __init__(self, rules: Rules, published: Sequence[PolicyPublished] = ()) -> None:
        self.rules = rules
        self._then = {one.version: parse_policy(one.policy) for one in published}
        self.parted = False
        self.staff = Staff()
        self.to_customers: dict[str, list[Given]] = {}
        self.on_interactions: dict[str, list[Given]] = {}
        self.spent: tuple[Counter[Key], Counter[Key]] = (Counter(), Counter())
        """Goodwill by (period, currency) since the worlds parted, minor units: in history, and here."""
        self.acts: dict[str, Act] = {}
        self.budgets: dict[Key, Budget] = {}
        self._links: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self._later: deque[tuple[int, Callable[[], object]]] = deque()
        self._opened_by: dict[Key, int] = {}
        self._at: datetime | None = None
        self._of_at = (0.0, "")
        self._calendar = Calendar(rules.policy.period, ZoneInfo(rules.policy.time_zone))

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

    # ------------------------------------------------------------------ the moment, asked for many times an event

    def _seconds(self, at: datetime) -> float:
        if at is not self._at:
            self._at, self._of_at = at, (at.timestamp(), self._calendar.at(at))
        return self._of_at[0]

    def _period(self, at: datetime) -> str:
        self._seconds(at)
        return self._of_at[1]

    # ------------------------------------------------------------------ what was given

    def act(self, action_id: str, key: Key, at: datetime, record: Any, amount: tuple[int, str], *, did: bool,
            would: bool) -> Act:  # fmt: skip
        """An action was given in one world or both."""
        act = self.acts.get(action_id)
        if act is None:
            act = self.acts[action_id] = Act(key, did=did, would=would)
        act.did |= did
        minor = amount[0] if record.basis == "goodwill" else 0
        gift = Given(record.agent_id, self._seconds(at), minor, amount[1], did, would)
        act.gifts.append(gift)
        if record.customer_id is not None:
            self.to_customers.setdefault(record.customer_id, []).append(gift)
        if record.interaction_id is not None:
            self.on_interactions.setdefault(record.interaction_id, []).append(gift)
        return act

    def to_group(self, one: Decided, group: frozenset[str], at: datetime) -> Sequence[Gift]:
        """What a group was given here, and what the decider saw beside the log's order."""
        if len(group) == 1:
            given: Sequence[Given] = self.to_customers.get(next(iter(group)), ())
        else:
            given = [gift for each in group for gift in self.to_customers.get(each, ())]
        here = [gift for gift in given if gift.would]
        if one.to_customer is None:
            return here
        policy = self._then.get(one.policy_version or 0)
        role = policy.roles.get(one.role or "") if policy is not None else None
        if role is None or role.per_customer is None:
            return here
        since = self._seconds(at) - role.per_customer.days * 86_400
        return _as_seen(here, one.to_customer, [gift for gift in given if gift.did and gift.at > since], one,
                        self._seconds(at))  # fmt: skip

    def on_interaction(self, one: Decided, at: datetime) -> Sequence[Gift]:
        """The same for an interaction."""
        given = self.on_interactions.get(one.interaction_id or "", ())
        here = [gift for gift in given if gift.would]
        if one.on_interaction is None:
            return here
        return _as_seen(here, one.on_interaction, [gift for gift in given if gift.did], one, self._seconds(at))

    def count(self, at: datetime, currency: str, basis: str, minor: int, *, did: bool, would: bool) -> None:
        """Goodwill that was spent since the worlds parted."""
        if not self.parted or basis != "goodwill":
            return
        key = (self._period(at), currency)
        if did:
            self.spent[0][key] += minor
        if would:
            self.spent[1][key] += minor

    # ------------------------------------------------------------------ budgets

    def opened(self, record: BudgetOpened, at: datetime) -> None:
        """A period began, before the worlds parted."""
        key = record.holder, record.currency
        self.budgets[key], self._opened_by[key] = Budget.open(record, at), record.policy_version

    def part(self) -> None:
        """From now on this world has rules of its own; what it grants differs in the open periods already."""
        self.parted = True
        for key, budget in self.budgets.items():
            policy = self._then.get(self._opened_by[key])
            if policy is not None:
                role = self._role_of(budget.holder)
                before, now = (grant_of(one, key[0], role, key[1])[0] for one in (policy, self.rules.policy))
                budget.granted_minor += now.minor - before.minor

    def _role_of(self, holder: str) -> str | None:
        kind, _, name = holder.partition(":")
        agent = self.staff.agent(name, self.rules.policy.default_role) if kind == "agent" else None
        return agent.role if agent else None

    def budget(self, holder: str, currency: str, at: datetime) -> Budget:
        """The budget of this moment; opened by this world's rules, once the worlds have parted."""
        key = (holder, currency)
        before = self.budgets.get(key)
        if before is not None and (not self.parted or before.period == self._period(at)):
            return before
        try:
            period = self.rules.period_at(at, before.period if before else None)
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
            budget.count(record.interaction_id, minor)


def _as_seen(here: list[Given], used: int, did: list[Given], one: Decided, seconds: float) -> Sequence[Gift]:
    """With what the decider had not read yet, or had read from another process: as the event says."""
    off = used - sum([gift.minor for gift in did if gift.currency == one.currency])
    return [*here, Gift("", seconds, off, one.currency)] if off else here
