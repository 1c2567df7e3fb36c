"""How what comes later is ruled: decisions on escalations, holds, reversals, reported facts, the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from consumers.decisions.handlers.requests import (
    CommandResult,
    NeedsCatchUpError,
    NeedsIdlePipelineError,
    RequestHandlers,
)
from consumers.decisions.responses import answer_of
from consumers.decisions.state.pending import DuePosting
from domain.budgets import postings
from domain.commands import EscalationAsk, EscalationDecision, HoldRequest, RequestError, ReversalRequest
from domain.decisions import authority, escalations
from domain.decisions.escalations import Approver, Open
from domain.events.decisions import AuthorityFellShort, Reason

if TYPE_CHECKING:
    from datetime import datetime

    from consumers.decisions.budget_repository import UnitOfWork
    from consumers.decisions.state.actions import ActionRow
    from domain.budgets.budget import Budget
    from domain.budgets.postings import RequestContext
    from domain.decisions.authority import Agent
    from domain.money import Money
    from domain.policy.model import Policy, Rules


class TimerCommand(NamedTuple):
    """What only the clock asks for: an escalation nobody answered, or a hold nobody settled."""

    holder: str
    escalation_id: str | None = None
    action_id: str | None = None
    due: float = 0


class PostingCommand(NamedTuple):
    """What only a fact asks for: its money, posted."""

    due: DuePosting
    fact: Any
    """``ActionReported`` or ``RefundSettled``."""


class FollowupHandlers:
    """Rules on what follows upon an action; knows what ``RequestHandlers`` knows."""

    def __init__(self, rulings: RequestHandlers) -> None:
        self._rulings = rulings
        self._directory = rulings.directory

    # ------------------------------------------------------------------ escalations

    def ask(self, request: EscalationAsk, cause: RequestContext, now: datetime, *, fresh: bool) -> CommandResult:
        """File an escalation."""
        rules = self._rules(now, fresh=fresh)
        agent = self._rulings.agent(request.agent_id, rules, "agent_id", fresh=fresh)
        unit = self._rulings.unit(cause, now)
        asking = self._rulings.asking(request, unit, agent, rules, cause)
        verdict = authority.judge(asking, request.amount)
        if verdict.outcome != "refused":
            filed, to, pool = self._rulings.filing(asking, verdict, unit)
            if filed.outcome != "refused":
                record = self._rulings.file(asking, verdict, cause, unit, to, pool, answers=True)
                return CommandResult(unit, answer_of(record, None), record)
            verdict = filed
        short = authority.fell_short(request, request.amount, verdict, cause, asking=asking)
        unit.write(asking.budget, short)
        return CommandResult(unit, answer_of(short, asking.budget), short)

    def decide(
        self, request: EscalationDecision, cause: RequestContext, now: datetime, *, fresh: bool
    ) -> CommandResult:
        """Approve, deny, withdraw or forward."""
        rules = self._rules(now, fresh=fresh)
        unit = self._rulings.unit(cause, now)
        waiting, budget = self._waiting(request.escalation_id, unit, rules, fresh=fresh)
        amount = self._amount(request, waiting)
        person = self._rulings.agent(request.decided_by, rules, "decided_by", fresh=fresh)
        approver, reasons = self._approver(request.operation, waiting, person, amount, rules, cause, now)
        payer = self._payer(request, waiting, approver, unit, rules) if not reasons else None
        if payer is not None and waiting.asked.basis == "goodwill":
            short = escalations.payer_short(payer, amount, waiting.asked.action_id)
            reasons = (short,) if short else ()
        if reasons:
            refused = _attempt(waiting, request, person, amount, reasons, rules, budget, cause)
            unit.write(budget, refused)
            return CommandResult(unit, answer_of(refused, budget), refused)
        if payer is not None:
            step, action = escalations.approved(waiting, request, approver, rules, amount, budget, payer, now, cause)
            unit.write(budget, step)
            unit.write(payer, action)
            return CommandResult(unit, answer_of(step, None), step)
        if request.operation == "forward":
            to = self._forward_to(request, waiting, rules, fresh=fresh)
            sent = escalations.forwarded(waiting, to, budget, now, rules, cause, request=request, approver=approver)
            unit.write(budget, sent)
            return CommandResult(unit, answer_of(sent, None), sent)
        pool = self._reserving(waiting, unit, rules)
        no = escalations.denied(waiting, request, approver, budget, now, cause)
        unit.write(budget, no)
        _free(waiting, unit, pool, request.operation, cause)
        return CommandResult(unit, answer_of(no, None), no)

    def escalation_overdue(self, what: TimerCommand, cause: RequestContext, now: datetime) -> CommandResult:
        """Nobody answered in time: a level up, or the end."""
        rules = self._rules(now, fresh=True)
        unit = self._rulings.unit(cause, now)
        assert what.escalation_id is not None
        waiting = self._directory.matters.open.get(what.escalation_id)
        if waiting is None or waiting.due.timestamp() > what.due:
            return NOTHING  # somebody answered in the meantime
        budget = unit.budget(f"agent:{waiting.asked.agent_id}", rules, waiting.asked.currency, late=True)
        self._caught_up(unit, budget)
        if what.escalation_id not in budget.escalations:
            return NOTHING
        policy = rules.policy
        to: tuple[str, ...] = ()
        if policy.escalation.then == "next_level":
            to = self._next_level(waiting, policy)
        if to:
            unit.write(budget, escalations.forwarded(waiting, to, budget, now, rules, cause))
        else:
            pool = self._reserving(waiting, unit, rules)
            unit.write(budget, escalations.expired(waiting, budget, now, cause))
            _free(waiting, unit, pool, "expired", cause)
        return CommandResult(unit, {})

    def _next_level(self, waiting: Open, policy: Policy) -> tuple[str, ...]:
        return escalations.next_level(
            waiting, policy, lambda name: self._directory.staff.agent(name, policy.default_role)
        )

    def _waiting(self, escalation_id: str, unit: UnitOfWork, rules: Rules, *, fresh: bool) -> tuple[Open, Budget]:
        waiting = self._directory.matters.open.get(escalation_id)
        if waiting is not None:
            budget = unit.budget(f"agent:{waiting.asked.agent_id}", rules, waiting.asked.currency)
            if escalation_id in budget.escalations:
                return waiting, budget
        if not fresh:
            raise NeedsCatchUpError
        verdict = self._directory.matters.verdict_on(escalation_id)
        if verdict is None and waiting is None:
            message = f"there is no escalation {escalation_id!r}; see resolution.notify.escalation"
            raise RequestError("unknown_escalation", message, "escalation_id")
        message = f"this escalation is {verdict or 'decided'} already; a new matter needs a new request"
        raise RequestError("already_decided", message, "escalation_id")

    def _approver(
        self,
        operation: str,
        waiting: Open,
        person: Agent,
        amount: Money,
        rules: Rules,
        cause: RequestContext,
        now: datetime,
    ) -> tuple[Approver, tuple[Reason, ...]]:
        """Whose authority serves: the person's own, or that of somebody they stand in for."""
        asked_for = waiting.asked
        group: frozenset[str] = frozenset()
        if asked_for.customer_id is not None:
            group = self._directory.given.group_of(asked_for.customer_id)
        own = Approver(person, person)
        reasons = escalations.refusals(operation, waiting, own, amount, rules.policy, cause.source, group)
        for away in self._directory.staff.stood_in_for(person.agent_id, now) if reasons else ():
            other = self._directory.staff.agent(away, rules.policy.default_role)
            if other is None:
                continue
            stand_in = Approver(person, other)
            if not escalations.refusals(operation, waiting, stand_in, amount, rules.policy, cause.source, group):
                return stand_in, ()
        return own, reasons

    @staticmethod
    def _amount(request: EscalationDecision, waiting: Open) -> Money:
        asked_for = waiting.asked.amount
        if request.amount is None or request.operation != "approve":
            return asked_for
        if request.amount.currency != asked_for.currency:
            raise RequestError("currency", f"it was asked in {asked_for.currency}", "amount.currency")
        if request.amount.minor > asked_for.minor:
            raise RequestError("invalid", f"approve at most what was asked, {asked_for.text}", "amount.amount")
        return request.amount

    @staticmethod
    def _payer(
        request: EscalationDecision, waiting: Open, approver: Approver, unit: UnitOfWork, rules: Rules
    ) -> Budget | None:
        if request.operation != "approve":
            return None
        holder = waiting.asked.holder or f"agent:{approver.authority.agent_id}"
        return unit.budget(holder, rules, waiting.asked.currency)

    def _forward_to(self, request: EscalationDecision, waiting: Open, rules: Rules, *, fresh: bool) -> tuple[str, ...]:
        if request.to is None:
            policy = rules.policy
            to = self._next_level(waiting, policy)
            if not to:
                raise RequestError("nobody_above", "nobody above may approve this; name somebody in `to`", "to")
            return to
        person = self._rulings.agent(request.to, rules, "to", fresh=fresh)
        if person.agent_id == waiting.asked.agent_id or person.left:
            raise RequestError("invalid", "forward it to somebody who works here and did not ask for it", "to")
        return (person.agent_id,)

    def _reserving(self, waiting: Open, unit: UnitOfWork, rules: Rules) -> Budget | None:
        """The pool in which an escalation's amount is reserved."""
        asked_for = waiting.asked
        if asked_for.holder is None:
            return None
        return unit.budget(asked_for.holder, rules, asked_for.currency, late=True)

    # ------------------------------------------------------------------ holds and reversals

    def hold(self, request: HoldRequest, cause: RequestContext, now: datetime, *, fresh: bool) -> CommandResult:
        """Settle or void what is held."""
        rules = self._rules(now, fresh=fresh)
        row = self._row(request.action_id, fresh=fresh)
        unit = self._rulings.unit(cause, now)
        budget = unit.budget(row.holder, rules, row.book)
        held = budget.holds.get(request.action_id)
        if held is None:
            if not fresh and row.state == "held":
                raise NeedsCatchUpError
            message = f"nothing is held for this action: it is {row.state if row.state != 'held' else 'over'}"
            raise RequestError("not_held", message, "action_id")
        if request.operation == "settle":
            record: Any = postings.settled(row, held.minor, request, budget, cause)
        else:
            record = postings.voided(row, held.minor, request.reason or "voided", budget, cause, answers=True)
        unit.write(budget, record)
        return CommandResult(unit, answer_of(record, budget), record)

    def hold_overdue(self, what: TimerCommand, cause: RequestContext, now: datetime) -> CommandResult:
        """A hold that nobody settled is free again."""
        rules = self._rules(now, fresh=True)
        row = self._directory.given.action(what.action_id or "")
        unit = self._rulings.unit(cause, now)
        if row is None or row.expires_at is None or row.expires_at > what.due:
            return NOTHING
        budget = unit.budget(row.holder, rules, row.book, late=True)
        hold = budget.holds.get(row.action_id)
        if hold is None:
            return NOTHING
        unit.write(budget, postings.voided(row, hold.minor, "expired", budget, cause))
        return CommandResult(unit, {})

    def reversal(self, request: ReversalRequest, cause: RequestContext, now: datetime, *, fresh: bool) -> CommandResult:
        """Undo an action, or a part of it."""
        rules = self._rules(now, fresh=fresh)
        row = self._row(request.action_id, fresh=fresh)
        if row.state == "reported" and row.goodwill:
            raise (
                NeedsIdlePipelineError
                if not fresh
                else RequestError(
                    "not_posted", "this reported action is not posted to its budget yet; ask again", "action_id"
                )
            )
        if row.state in ("held", "voided"):
            message = f"this action is {row.state}: void a hold instead of reversing it"
            raise RequestError("not_taken", message, "action_id")
        unit = self._rulings.unit(cause, now)
        budget = unit.budget(row.holder, rules, row.book)
        self._caught_up(unit, budget)
        row = self._row(request.action_id, fresh=fresh)
        late = budget.period != row.period
        record = postings.reversed_by(request, row, row.left, row.position, budget, cause, late=late)
        unit.write(budget, record)
        return CommandResult(unit, answer_of(record, budget), record)

    # ------------------------------------------------------------------ facts

    def post(self, posting: PostingCommand, cause: RequestContext, now: datetime) -> CommandResult:
        """Post a fact's money to its budget, once."""
        due, fact = posting.due, posting.fact
        if due.position not in self._directory.matters.dues:
            return NOTHING
        rules = self._rules(now, fresh=True)
        unit = self._rulings.unit(cause, now)
        row = self._directory.given.action(due.action_id)
        book = row.book if row is not None else fact.amount.currency
        budget = unit.budget(due.holder, rules, book, late=True)
        self._caught_up(unit, budget)
        if due.position not in self._directory.matters.dues:
            return NOTHING
        if due.what == "charge":
            unit.write(budget, postings.charged(fact, due.action_id, due.position, budget, cause))
            return CommandResult(unit, {})
        hold = budget.holds.get(due.action_id)
        if hold is None or row is None or fact.total.currency != row.currency:
            return NOTHING
        unit.write(budget, postings.settled_by_fact(row, hold.minor, fact.total, due.position, budget, cause))
        return CommandResult(unit, {})

    # ------------------------------------------------------------------ what they share

    def _rules(self, now: datetime, *, fresh: bool) -> Rules:
        rules = self._rulings.rules_at(now, fresh=fresh)
        if rules is None:
            raise RequestError("no_policy", "no policy is in force, so nothing can be decided; publish one")
        return rules

    def _row(self, action_id: str, *, fresh: bool) -> ActionRow:
        row = self._directory.given.action(action_id)
        if row is None:
            if not fresh:
                raise NeedsCatchUpError
            raise RequestError("unknown_action", f"there is no action {action_id!r}", "action_id")
        return row

    def _caught_up(self, unit: UnitOfWork, budget: Budget) -> None:
        """What was read has to reach as far as the book: then it says all that was done on it."""
        book = unit.book_of(budget)
        if book.unstored or book.last > self._directory.position:
            raise NeedsIdlePipelineError


NOTHING = CommandResult(None, {})


def _free(waiting: Open, unit: UnitOfWork, pool: Budget | None, reason: str, cause: RequestContext) -> None:
    """Free what an escalation that came to nothing had reserved."""
    asked_for = waiting.asked
    hold = pool.holds.get(asked_for.action_id) if pool is not None else None
    if pool is not None and hold is not None:
        escalation_id = asked_for.escalation_id
        unit.write(pool, postings.voided(asked_for, hold.minor, reason, pool, cause, escalation_id=escalation_id))


def _attempt(
    waiting: Open,
    request: EscalationDecision,
    person: Agent,
    amount: Money,
    reasons: tuple[Reason, ...],
    rules: Rules,
    budget: Budget,
    cause: RequestContext,
) -> AuthorityFellShort:
    """The record of a decision that was not this person's to make."""
    asked_for = waiting.asked
    return AuthorityFellShort(
        agent_id=person.agent_id,
        role=person.role,
        kind=asked_for.kind,
        basis=asked_for.basis,
        amount=amount,
        reason=request.reason or f"{request.operation} an escalation",
        outcome="refused",
        reasons=reasons,
        preview=False,
        team_id=asked_for.team_id,
        customer_id=asked_for.customer_id,
        interaction_id=asked_for.interaction_id,
        order_id=asked_for.order_id,
        holder=budget.holder,
        period=budget.period,
        policy_version=rules.version,
        escalation_id=asked_for.escalation_id,
        **cause.answer(),
    )
