"""Replay history under another policy: each decision is judged again, with that policy's own budgets.

Pure: takes the log's events in order. Events hold the state that a decider had read (`seen_position`, a limit's
`used`), so a replay of the policy in force reproduces its decisions exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from domain.actions import action_fields, change_of, counted_minor
from domain.commands import RequestError, action_id_of
from domain.customers import unnamed_customer
from domain.decisions import approvals, authority
from domain.decisions.authority import DecisionContext, Gift, SoftState, Verdict
from domain.events import decisions, facts
from domain.money import Money
from domain.policy.history import rules_of
from domain.policy.model import Rules, drawn_teams
from domain.simulation.comparison import DECISIONS, Decision, DecisionSummary, OutcomeComparison, decided
from domain.simulation.counterfactual import CounterfactualState, GoodwillTotals, SimulatedAction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    import msgspec

    from domain.budgets.budget import Budget
    from domain.budgets.postings import AnswerFields
    from domain.events.decisions import Record
    from domain.policy.model import Policy

_FILED = frozenset(("approves", "payer"))
"""Rules that apply only where an escalation was to be requested."""


type Replayed = DecisionSummary | tuple[Budget, Verdict] | None
"""A decision under the other policy: unchanged, its budget and verdict there, or ``None`` where it does not occur."""


class PolicyReplay:
    """A replay that takes the log in order. History and counterfactual agree until ``begins`` accepts a decision.

    ``begins`` gets a decision and its time. ``published`` are all policies ever published; the policy that is replayed
    may be one of them.
    """

    def __init__(
        self,
        policy: Policy,
        published: Sequence[decisions.PolicyPublished],
        begins: Callable[[DecisionSummary, datetime], bool],
    ) -> None:
        same = next((one for one in reversed(published) if one.policy == policy.document), None)
        version = same.version if same is not None else 1 + max((one.version for one in published), default=0)
        self._draws = same is None and policy.trial is not None
        self.state = CounterfactualState(Rules(version, policy) if same is None else rules_of(same), published)
        self.diverged_at: int | None = None
        self.comparison = OutcomeComparison()
        self.unknown = 0
        """Decisions about people without a known role, which cannot be judged."""
        self._requested: set[str] = set()
        self._reported: dict[int, GoodwillTotals] = {}  # by the position of the report
        self._begins = begins
        self._takes: dict[type, Callable[[int, datetime, Any], Record | None]] = {
            decisions.ActionSettled: self._ended_hold,
            decisions.ActionVoided: self._ended_hold,
            decisions.ActionCharged: self._charged,
            decisions.ActionReversed: self._reversed,
            decisions.BudgetOpened: self._opened,
            decisions.BudgetClosed: self._own_books,
            decisions.BudgetDrawn: self._own_books,
            decisions.BudgetGranted: self._moved,
            decisions.BudgetTransferred: self._moved,
            decisions.EscalationRequested: self._asked,
            decisions.EscalationApproved: self._ended,
            decisions.EscalationDenied: self._ended,
            decisions.EscalationWithdrawn: self._ended,
            decisions.EscalationExpired: self._ended,
        }

    def take(self, position: int, at: datetime, body: msgspec.Struct, action_id: str = "") -> msgspec.Struct | None:
        """Apply an event; return the event under the other policy, or ``None`` where it does not happen there.

        ``action_id`` is that of an action that a fact reported.
        """
        taking = self._takes.get(type(body))
        if taking is not None:
            self.state.now(at)
            return taking(position, at, body)
        if isinstance(body, DECISIONS):
            one = decided(body)
            found = self.decide(position, at, one)
            if isinstance(found, tuple):
                return self._as_it_would_be(body, *found)
            return None if found is None else body
        if isinstance(body, facts.ActionReported):
            amount = (counted_minor(body.basis, body.amount, None), body.amount.currency)
            key, seconds = (f"agent:{body.agent_id}", body.amount.currency), at.timestamp()

            def report() -> None:
                given = self.state.act(action_id, key, body, amount, did=True, would=True, seconds=seconds)
                self._reported[position] = given

            self.state.later(position, report)
        elif isinstance(body, facts.Fact):
            self.state.later(position, lambda: self.state.learn(body))
        return body

    def correct(self, position: int, before: msgspec.Struct | None, after: msgspec.Struct | None) -> None:
        """Replace a wrong fact by ``after``, which is ``None`` where the fact never happened."""
        self.state.later(position, lambda: self.state.correct(before, after))

    # ------------------------------------------------------------------ decisions

    def decide(self, position: int, at: datetime, one: DecisionSummary) -> Replayed:
        """Apply a decision; return it if unchanged, ``None`` if it does not occur, else the budget and the verdict."""
        self.state.now(at)
        done = one.done
        if done:
            if one.approved:
                return self._approved(at, one)
            if one.escalation_id is not None and one.outcome == "held":
                return self._reserved(at, one)
        elif one.preview or one.escalation_id in self._requested:
            return one  # no decision by policy: an escalation was asked for, or its approver had no right to approve
        return self._judged(position, at, one, done=done)

    def _approved(self, at: datetime, one: DecisionSummary) -> DecisionSummary | None:
        """Apply an action that an approver allowed."""
        known = self.state.acts.get(one.action_id)
        # The agent has already taken it on their own authority: this action, or another for the same matter.
        instead = (known is not None and known.would) or one.escalation_id in self.comparison.saved
        self.state.count(one.currency, one.counted_minor, did=True, would=not instead)
        self.state.give_back(one.order_id, one.minor, one.currency, did=True, would=not instead)
        key = (one.holder, one.currency)
        self.state.act(
            one.action_id,
            key,
            one,
            (one.counted_minor, one.currency),
            did=True,
            would=not instead,
            seconds=self.state.seconds,
        )
        if instead:
            return None
        budget = self.state.budget(*key, at)
        budget.free(one.action_id)
        self.state.spend(budget, one, one.counted_minor)
        return one

    def _reserved(self, at: datetime, one: DecisionSummary) -> DecisionSummary | None:
        """Apply a reservation for an open escalation."""
        if one.escalation_id in self.comparison.saved:
            return None
        self.state.budget(one.holder, one.currency, at).hold(one.action_id, one.counted_minor, one.interaction_id)
        return one

    def _judged(self, position: int, at: datetime, one: DecisionSummary, *, done: bool) -> Replayed:
        state = self.state
        state.know(one.seen_position)
        if not state.diverged and self._begins(one, at):
            self.diverged_at = position
            state.diverge()
            if self._draws and (policy := state.rules.policy).trial is not None:
                teams = {*policy.teams, *state.staff.teams()}
                state.rules.trial_teams = frozenset(drawn_teams(policy.trial, teams))
        if not state.diverged:
            if done:
                self._apply(one, state.budget(one.holder, one.currency, at), done=True, would=True)
            return one
        policy = state.rules.policy
        agent = state.staff.agent(one.agent_id, policy.default_role)
        if agent is None:
            self.unknown += 1
            return one
        budget = state.budget(f"agent:{one.agent_id}", policy.currency, at)
        asking = self._asking(one, at, agent, budget)
        verdict = self._judge(asking, one, Money(one.minor, one.currency))
        if verdict.draw is not None and asking.pool is not None:
            asking.pool.granted_minor -= verdict.draw.minor
            budget.granted_minor += verdict.draw.minor
        would = verdict.outcome == "taken"
        self.comparison.tell(position, at, one, verdict.outcome, verdict.reasons)
        if done or would:
            counted = (
                verdict.counted(Money(one.minor, one.currency)).minor if verdict.owed is not None else one.counted_minor
            )
            if done and would and counted != one.counted_minor:  # both amounts count, each on its own side
                self._apply(one, budget, done=True, would=False)
                self._apply(one, budget, done=False, would=True, counted=counted)
            else:
                self._apply(one, budget, done=done, would=would, counted=counted if would else None)
        return one if done == would else (budget, verdict)

    def _apply(
        self, one: DecisionSummary, budget: Budget, *, done: bool, would: bool, counted: int | None = None
    ) -> None:
        """Apply the action in history, under the other policy, or both; ``counted`` is the part that is goodwill."""
        state, minor = self.state, one.counted_minor if counted is None else counted
        state.give_back(one.order_id, one.minor, one.currency, did=done, would=would)
        action_id = one.action_id if done else action_id_of(one.source, one.request_id)
        state.act(
            action_id,
            (budget.holder, budget.currency),
            one,
            (minor, one.currency),
            did=done,
            would=would,
            seconds=state.seconds,
        )
        if one.outcome != "held":
            state.count(one.currency, minor, did=done, would=would)
            if would:
                state.spend(budget, one, minor)
        elif would:
            budget.hold(action_id, minor, one.interaction_id)

    def _as_it_would_be(self, record: Decision, budget: Budget, verdict: Verdict) -> Decision:
        common = action_fields(record, record.amount)
        cause: AnswerFields = {
            "source": record.source,
            "request_id": record.request_id,
            "seen_position": record.seen_position,
            "decider_id": record.decider_id,
            "rules_version": record.rules_version,
            "request_sha256": record.request_sha256,
            "command": record.command,
            "via": record.via,
        }
        version = self.state.rules.version
        if verdict.outcome != "taken":
            return decisions.AuthorityFellShort(
                outcome=verdict.outcome,
                reasons=verdict.reasons,
                preview=False,
                role=record.role,
                holder=budget.holder,
                period=budget.period,
                policy_version=version,
                owed=verdict.owed,
                **common,
                **cause,
            )
        return decisions.ActionTaken(
            authority="own",
            action_id=action_id_of(record.source, record.request_id),
            role=record.role or "",
            holder=budget.holder,
            period=budget.period,
            policy_version=version,
            training=verdict.training,
            limits=verdict.limits,
            owed=verdict.owed,
            **common,
            **cause,
        )

    def _judge(self, asking: DecisionContext, one: DecisionSummary, amount: Money) -> Verdict:
        policy = asking.rules.policy
        try:
            verdict = authority.judge(asking, amount)
        except RequestError:
            reason = decisions.Reason(rule="currency", message=f"the policy gives in {policy.currency}")
            return Verdict(outcome="refused", reasons=(reason,))
        if verdict.outcome != "escalate" or one.done:
            return verdict
        filed = one.escalation_id is not None or any(rule in _FILED for rule in one.rules[-1:])
        if not filed:
            return verdict
        counted = verdict.counted(amount)
        if not any(approvals.approves(role, one.kind, counted, policy) for role in policy.roles):
            reason = decisions.Reason(rule="approves", message=f"no role approves {one.kind} of this amount")
            return Verdict(outcome="refused", reasons=(*verdict.reasons, reason))
        team = self.state.rules.pool_team(asking.agent.teams_for(one.team_id))
        draws = one.basis == "goodwill" or verdict.owed is not None
        if policy.escalation.payer == "team" and draws and team is not None:
            pool = self.state.budget(f"team:{team}", policy.currency, asking.now)
            if short := approvals.payer_short(pool, counted, ""):
                return Verdict(outcome="refused", reasons=(*verdict.reasons, short))
        return verdict

    def _asking(self, one: DecisionSummary, at: datetime, agent: authority.Agent, budget: Budget) -> DecisionContext:
        state, policy = self.state, self.state.rules.policy
        pool, order = None, state.order_account(one)
        counted = one.minor
        if one.basis != "goodwill":
            amount = Money(one.minor, one.currency)
            owed = authority.owed_part(policy, agent.role, one.kind, one.basis, amount, order).amount.minor
            counted = one.minor - owed if state.rules.is_strict else 0
        if counted > budget.remaining_minor:
            team = state.rules.pool_team(agent.teams_for(one.team_id))
            pool = state.budget(f"team:{team}", policy.currency, at) if team is not None else None
        role = policy.roles.get(agent.role)
        group: frozenset[str] = frozenset()
        customer: Sequence[Gift] = ()
        interaction: Sequence[Gift] = ()
        cap = None if role is None else role.per_customer
        if one.customer_id is not None:
            group = state.group_of(one.customer_id)
            if cap is not None:
                customer = state.to_group(one, group, cap.days)
        elif cap is not None and cap.unnamed is not None and state.rules.is_strict:
            customer = state.to_group(one, frozenset((unnamed_customer(one.agent_id),)), cap.days)
        if one.interaction_id is not None and role is not None and role.per_interaction is not None:
            interaction = state.on_interaction(one)
        request: Any = one  # the summary has all fields that the verdict reads
        return DecisionContext(
            request=request,
            agent=agent,
            rules=state.rules,
            source=one.source,
            now=at,
            budget=budget,
            pool=pool,
            seen=SoftState(group=group, interaction=interaction, customer=customer, order=order),
        )

    # ------------------------------------------------------------------ postings and budgets

    def _ended_hold(self, position: int, at: datetime, record: decisions.Posting) -> Record | None:
        act, state = self.state.acts.get(record.action_id), self.state
        change = change_of(record).amount_minor
        spent = 0 if not change else counted_minor(record.basis, record.amount, record.owed)
        if act is None or record.action_id in state.budget(record.holder, record.amount.currency, at).holds:
            budget = state.budget(record.holder, record.amount.currency, at)
            budget.free(record.action_id)
            state.spend(budget, record, spent)
        if act is not None:
            state.later(position, lambda: _set_gifts(act, spent))
        there = act is None or act.would
        state.count(record.amount.currency, spent, did=True, would=there)
        return record if there else None

    def _charged(self, position: int, at: datetime, record: decisions.ActionCharged) -> Record:
        spent = counted_minor(record.basis, record.amount, record.owed)
        self.state.spend(self.state.budget(record.holder, record.amount.currency, at), record, spent)
        self.state.count(record.amount.currency, spent, did=True, would=True)
        if record.decided is not None:
            self.state.later(position, lambda: self._merge_report(record, spent))
        return record

    def _merge_report(self, record: decisions.ActionCharged, added: int) -> None:
        """Let the decision of an action count, with the part that its report adds, and no longer the report."""
        act, told = self.state.acts.get(record.action_id), self._reported.pop(record.relates_to, None)
        if act is None or told is None:
            return
        told.minor, act.gifts = 0, [gift for gift in act.gifts if gift is not told]
        for gift in act.gifts:
            gift.minor += added

    def _reversed(self, position: int, at: datetime, record: decisions.ActionReversed) -> Record | None:
        act, state = self.state.acts.get(record.action_id), self.state
        minor = counted_minor(record.basis, record.amount, record.owed) if record.recovered else 0
        there = act is None or act.would
        state.count(record.amount.currency, -minor, did=True, would=there)
        if act is not None:
            state.later(position, lambda: _lower_gifts(act, minor))
        if not there:
            return None
        budget = state.budget(*(act.key if act is not None else (record.holder, record.amount.currency)), at)
        if record.late:
            budget.granted_minor += minor
        else:
            state.spend(budget, record, -minor)
        return record

    def _asked(self, _: int, at: datetime, record: decisions.EscalationRequested) -> Record | None:
        self._requested.add(record.escalation_id)
        return None if self.comparison.asked(record, at) else record

    def _ended(self, _: int, __: datetime, record: decisions.EscalationStep) -> Record | None:
        return None if self.comparison.ended(record) else record

    def _opened(self, _: int, at: datetime, record: decisions.BudgetOpened) -> Record:
        if not self.state.diverged:
            self.state.opened(record, at)
        return record

    def _own_books(self, _: int, at: datetime, record: decisions.BudgetClosed | decisions.BudgetDrawn) -> Record:
        """Apply closings and draws until the divergence; after it the counterfactual makes its own."""
        currency = record.spent.currency if isinstance(record, decisions.BudgetClosed) else record.amount.currency
        if not self.state.diverged:
            self.state.budget(record.holder, currency, at).record(record, at)
        return record

    def _moved(self, _: int, at: datetime, record: decisions.BudgetGranted | decisions.BudgetTransferred) -> Record:
        self.state.budget(record.holder, record.amount.currency, at).record(record, at)
        return record


class ShadowRecord:
    """The verdicts of a policy in shadow mode, as each decision recorded them."""

    def __init__(self, policy: Policy, version: int) -> None:
        self.comparison = OutcomeComparison()
        self.state = CounterfactualState(Rules(version, policy))
        self.state.diverged = True
        self.diverged_at: int | None = None
        self.unknown = 0

    def take(self, position: int, at: datetime, body: msgspec.Struct, _action_id: str = "") -> msgspec.Struct:
        """Count a decision that carries a shadow verdict."""
        if isinstance(body, decisions.EscalationRequested):
            self.comparison.asked(body, at)
        if isinstance(body, decisions.EscalationStep) and not isinstance(body, decisions.EscalationForwarded):
            self.comparison.ended(body)
        if not isinstance(body, DECISIONS) or body.shadow is None:
            return body
        one, shadow = decided(body), body.shadow
        if one.preview or shadow.policy_version != self.state.rules.version:
            return body
        self.diverged_at, would = self.diverged_at or position, shadow.outcome == "taken"
        self.state.now(at)
        self.comparison.tell(position, at, one, shadow.outcome, shadow.reasons)
        self.state.count(one.currency, one.counted_minor if one.done else one.minor, did=one.done, would=would)
        return body

    def correct(self, position: int, before: msgspec.Struct | None, after: msgspec.Struct | None) -> None:
        """Do nothing, because recorded verdicts do not change."""


def _set_gifts(act: SimulatedAction, minor: int) -> None:
    for gift in act.gifts:
        gift.minor = minor


def _lower_gifts(act: SimulatedAction, minor: int) -> None:
    for gift in act.gifts:
        gift.minor -= minor
