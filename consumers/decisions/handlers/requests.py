"""How requests for actions, grants and policies are ruled: what to read, what the rules say, what to write."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from config import topology
from consumers.decisions.budget_repository import BudgetRepository, UnitOfWork
from consumers.decisions.responses import answer_of, preview_answer
from consumers.decisions.state.actions import row_of
from domain.budgets import postings
from domain.commands import (
    ActionRequest,
    EscalationAsk,
    EscalationDecision,
    FlagRequest,
    GrantRequest,
    HoldRequest,
    PolicyRequest,
    Preview,
    RequestError,
    ReversalRequest,
    TransferRequest,
    action_id_of,
    escalation_id_of,
)
from domain.currencies import currency_fault
from domain.decisions import authority, escalations
from domain.decisions.authority import DecisionContext, SoftState
from domain.events.decisions import ActionHeld, ActionTaken, PolicyPublished, Reason
from domain.events.flags import FlagAnswered, FlagReviewed, FlagUnmasked
from domain.policy.model import drawn_teams
from domain.policy.parsing import PolicyError, parse_policy
from domain.serialization import encode
from ledger.store.cloudevents import body_hash
from ledger.store.subject_tokens import token_of_id

if TYPE_CHECKING:
    from datetime import datetime

    from consumers.decisions.state.actions import ActionRow
    from consumers.decisions.state.follower import DecisionState
    from domain.budgets.budget import Budget
    from domain.budgets.postings import RequestContext
    from domain.decisions.authority import Agent, Verdict
    from domain.events.decisions import EscalationRequested
    from domain.money import Money
    from domain.policy.model import Rules
    from ledger.store.log import Log

REQUESTS: dict[str, Any] = {
    "action": ActionRequest,
    "preview": Preview,
    "hold": HoldRequest,
    "reversal": ReversalRequest,
    "escalation": {
        "request": EscalationAsk,
        "approve": EscalationDecision,
        "deny": EscalationDecision,
        "withdraw": EscalationDecision,
        "forward": EscalationDecision,
    },
    "budget": {"grant": GrantRequest, "transfer": TransferRequest},
    "policy": PolicyRequest,
    "flag": FlagRequest,
}
"""Operation -> the class of its requests, or its classes by their field ``operation``."""


class NeedsCatchUpError(Exception):
    """What this request needs to know may be on its way: read up to the end of the log, ask again."""


class NeedsIdlePipelineError(Exception):
    """What this request builds on is being stored just now: rule on it after that."""


class CommandResult(NamedTuple):
    """What came of a request: what to write (nothing: nothing is recorded) and its answer.

    Where something is recorded, the position of ``answering`` is added to the answer.
    """

    unit: UnitOfWork | None
    answer: dict[str, Any]
    answering: Any = None


class RequestHandlers:
    """Rules on requests one at a time. ``state_is_current`` says that the directory has read up to the end."""

    def __init__(self, log: Log, directory: DecisionState, books: BudgetRepository, *, history: bool) -> None:
        self.log = log
        self.directory = directory
        self.books = books
        self._history = history

    def rules_at(self, now: datetime, *, fresh: bool) -> Rules | None:
        """The policy in force."""
        rules = self.directory.policies.in_force(now)
        if rules is None and not fresh:
            raise NeedsCatchUpError
        return rules

    def agent(self, agent_id: str, rules: Rules, field: str, *, fresh: bool) -> Agent:
        """What is known of somebody, who has to be known."""
        agent = self.directory.staff.agent(agent_id, rules.policy.default_role)
        if agent is not None:
            return agent
        if not fresh:
            raise NeedsCatchUpError
        message = (
            f"nobody has announced {agent_id!r}: publish resolution.employee.joined.v1 first, "
            "or give the policy a default_role"
        )
        raise RequestError("unknown_agent", message, field)

    def unit(self, cause: RequestContext, now: datetime) -> UnitOfWork:
        """A unit that knows the roles by which budgets are opened."""
        return UnitOfWork(self.books, cause, now, self._role_of, self.directory.policies, history=self._history)

    def _role_of(self, holder: str, rules: Rules) -> str | None:
        kind, _, name = holder.partition(":")
        agent = self.directory.staff.agent(name, rules.policy.default_role) if kind == "agent" else None
        return agent.role if agent else None

    # ------------------------------------------------------------------ actions

    def asking(
        self, request: Preview, unit: UnitOfWork, agent: Agent, rules: Rules, cause: RequestContext
    ) -> DecisionContext:
        """The request with all that is known about it."""
        budget = unit.budget(f"agent:{agent.agent_id}", rules)
        pool = None
        amount: Money | None = request.amount
        _check_currencies(unit, budget, amount)
        if request.basis == "goodwill" and (amount is None or amount.minor > budget.remaining_minor):
            team = rules.pool_team(agent.teams_for(request.team_id))
            pool = unit.budget(f"team:{team}", rules) if team is not None else None
        given, role = self.directory.given, rules.policy.roles.get(agent.role)
        group: frozenset[str] = frozenset()
        interaction: Any = ()
        customer: Any = ()
        if request.customer_id is not None:
            group = given.group_of(request.customer_id)
            if role is not None and role.per_customer is not None:
                customer = given.to_group(group)
        if request.interaction_id is not None and role is not None and role.per_interaction is not None:
            interaction = given.on_interaction(request.interaction_id)
        return DecisionContext(
            request=request,
            agent=agent,
            rules=rules,
            source=cause.source,
            now=unit.now,
            budget=budget,
            pool=pool,
            seen=SoftState(group=group, interaction=interaction, customer=customer),
        )

    def action(self, request: ActionRequest, cause: RequestContext, now: datetime, *, fresh: bool) -> CommandResult:
        """Take it, hold it, file an escalation, or say why not."""
        rules = self.rules_at(now, fresh=fresh)
        unit = self.unit(cause, now)
        if rules is None:
            record: Any = authority.fell_short(request, request.amount, authority.NO_POLICY, cause)
            # One subject a request: the second of two answers written at once conflicts.
            token = hashlib.sha256(f"{cause.source} {cause.request_id}".encode()).hexdigest()[:32]
            unit.alone(f"{topology.REFUSED_SUBJECT}.{token}", record)
            return CommandResult(unit, answer_of(record, None), record)
        agent = self.agent(request.agent_id, rules, "agent_id", fresh=fresh)
        asking = self.asking(request, unit, agent, rules, cause)
        verdict = authority.judge(asking, request.amount)
        shadow = authority.shadowed(asking, request.amount, self.directory.policies.in_shadow(now))
        if verdict.outcome == "taken":
            return self._take(asking, verdict, cause, unit, shadow)
        to: tuple[str, ...] = ()
        filed, escalation_id, pool = verdict, None, None
        if request.escalate and verdict.outcome == "escalate":
            filed, to, pool = self.filing(asking, verdict, unit)
            if filed.outcome == "escalate":
                escalation_id = escalation_id_of(cause.source, request.request_id)
        record = authority.fell_short(
            request, request.amount, filed, cause, asking=asking, shadow=shadow, escalation_id=escalation_id
        )
        unit.write(asking.budget, record)
        if escalation_id is not None:
            self.file(asking, verdict, cause, unit, to, pool, answers=False)
        return CommandResult(unit, answer_of(record, asking.budget), record)

    def _take(
        self, asking: DecisionContext, verdict: Verdict, cause: RequestContext, unit: UnitOfWork, shadow: Any
    ) -> CommandResult:
        request: ActionRequest = asking.request  # type: ignore[assignment]
        action_id = cause.action_id
        amount, guard, entry = request.amount, None, None
        if request.customer_id is not None and verdict.guarded is not None:
            customer = min(asking.seen.group)
            guard = self.books.get((f"customer:{customer}", ""))
            if not guard.own and guard.last > self.directory.position:
                raise NeedsCatchUpError  # somebody gave to this customer: know how much, before giving more
            entry = authority.guarding(verdict, customer, amount, cause, action_id)
        if verdict.draw is not None and asking.pool is not None:
            out, into = postings.drawn(asking.pool, asking.budget, verdict.draw, action_id, cause)
            unit.write(asking.pool, out)
            unit.write(asking.budget, into)
        make: Any = authority.held if request.hold else authority.taken
        record: ActionTaken | ActionHeld = make(asking, asking.rules.version, verdict, cause, action_id, shadow)
        unit.write(asking.budget, record)
        if guard is not None and entry is not None:
            unit.guard(guard, entry)
        return CommandResult(unit, answer_of(record, asking.budget), record)

    def preview(self, request: Preview, cause: RequestContext, now: datetime, *, fresh: bool) -> CommandResult:
        """The same, nothing taken; what falls short is noted once an agent, interaction and kind."""
        rules = self.rules_at(now, fresh=fresh)
        if rules is None:
            return CommandResult(None, preview_answer(authority.NO_POLICY, None, None))
        unit = self.unit(cause, now)
        agent = self.agent(request.agent_id, rules, "agent_id", fresh=fresh)
        asking = self.asking(request, unit, agent, rules, cause)
        if request.amount is None:
            given, verdict = authority.available(asking)
            return CommandResult(
                None, preview_answer(verdict, rules.version, asking.budget) | {"available": given.wire()}
            )
        verdict = authority.judge(asking, request.amount)
        if verdict.outcome == "escalate" and request.escalate:
            verdict, _, _ = self.filing(asking, verdict, unit)
        answer = preview_answer(verdict, rules.version, asking.budget, hold=request.hold)
        noted = (request.interaction_id, request.kind) in asking.budget.noted_previews
        if verdict.outcome == "taken" or request.interaction_id is None or noted:
            return CommandResult(None, answer)
        record = authority.fell_short(request, request.amount, verdict, cause, asking=asking, preview=True)
        unit.write(asking.budget, record)
        return CommandResult(unit, answer)

    # ------------------------------------------------------------------ filing escalations

    def filing(
        self, asking: DecisionContext, verdict: Verdict, unit: UnitOfWork
    ) -> tuple[Verdict, tuple[str, ...], Budget | None]:
        """Whom to ask and which pool would pay; a verdict that refuses where nobody could allow it."""
        request, agent, rules = asking.request, asking.agent, asking.rules
        assert request.amount is not None
        amount, policy = request.amount, rules.policy

        def refused(reason: Reason) -> tuple[Verdict, tuple[str, ...], Budget | None]:
            return authority.Verdict(outcome="refused", reasons=(*verdict.reasons, reason)), (), None

        if not any(escalations.approves(role, request.kind, amount, policy) for role in policy.roles):
            message = f"no role approves a {request.kind} of {amount.text}"
            return refused(Reason(rule="approves", message=message, asked=amount))
        pool = None
        if policy.escalation.payer == "team" and request.basis == "goodwill":
            team = rules.pool_team(agent.teams_for(request.team_id))
            pool = unit.budget(f"team:{team}", rules) if team is not None else None
        if pool is not None and (short := escalations.payer_short(pool, amount, "")):
            return refused(short)

        def agent_of(agent_id: str) -> Agent | None:
            return self.directory.staff.agent(agent_id, policy.default_role)

        def everybody() -> list[Agent]:
            return self.directory.staff.everybody(policy.default_role)

        to = escalations.whom_to_ask(agent, request.kind, amount, policy, agent_of, everybody)
        return verdict, to, pool

    def file(
        self,
        asking: DecisionContext,
        verdict: Verdict,
        cause: RequestContext,
        unit: UnitOfWork,
        to: tuple[str, ...],
        pool: Budget | None,
        *,
        answers: bool,
    ) -> EscalationRequested:
        """Write the escalation, and what it reserves."""
        ids = escalation_id_of(cause.source, cause.request_id), action_id_of(cause.source, cause.request_id)
        record = escalations.requested(asking, verdict, cause, ids, to, pool, answers=answers)
        unit.write(asking.budget, record)
        if pool is not None:
            unit.write(pool, escalations.reserved(asking, record, pool, cause))
        return record

    # ------------------------------------------------------------------ budgets and policies

    def grant(self, request: GrantRequest, cause: RequestContext, now: datetime, *, fresh: bool) -> CommandResult:
        """More for a holder."""
        rules = self._rules_for_budgets(now, fresh=fresh)
        self._check_holder(request.holder, "holder", rules, fresh=fresh)
        unit = self.unit(cause, now)
        budget = unit.budget(request.holder, rules)
        _check_currencies(unit, budget, request.amount)
        record = postings.granted(request, budget, cause)
        unit.write(budget, record)
        return CommandResult(unit, answer_of(record, budget), record)

    def transfer(self, request: TransferRequest, cause: RequestContext, now: datetime, *, fresh: bool) -> CommandResult:
        """From one holder to another."""
        rules = self._rules_for_budgets(now, fresh=fresh)
        self._check_holder(request.holder, "holder", rules, fresh=fresh)
        self._check_holder(request.to_holder, "to_holder", rules, fresh=fresh)
        unit = self.unit(cause, now)
        giver, taker = unit.budget(request.holder, rules), unit.budget(request.to_holder, rules)
        _check_currencies(unit, giver, request.amount)
        out, into = postings.transferred(request, giver, taker, cause)
        unit.write(giver, out)
        unit.write(taker, into)
        return CommandResult(unit, answer_of(out, giver), out)

    def _rules_for_budgets(self, now: datetime, *, fresh: bool) -> Rules:
        rules = self.rules_at(now, fresh=fresh)
        if rules is None:
            raise RequestError("no_policy", "no policy is in force, so there are no budgets; publish one")
        return rules

    def _check_holder(self, holder: str, field: str, rules: Rules, *, fresh: bool) -> None:
        kind, _, name = holder.partition(":")
        if kind not in ("agent", "team") or not name:
            raise RequestError("invalid", "a holder is agent:<id> or team:<id>", field)
        if kind == "agent":
            self.agent(name, rules, field, fresh=fresh)

    async def flag(self, request: FlagRequest, cause: RequestContext, now: datetime) -> CommandResult:
        """Say what a human has to say of a flag."""
        record = _flag_record(request, cause)
        subject = f"{topology.FLAG_SUBJECT}.{token_of_id(request.flag_id)}"
        newest = await self.log.last(subject)
        if newest is None:
            raise RequestError("unknown_flag", f"no flag {request.flag_id} was raised", "flag_id")
        unit = self.unit(cause, now)
        unit.follow(subject, newest.position, record)
        return CommandResult(unit, answer_of(record, None), record)

    async def policy(self, request: PolicyRequest, cause: RequestContext, now: datetime) -> CommandResult:
        """Publish a policy, if it is one."""
        try:
            policy = parse_policy(request.policy)
        except PolicyError as error:
            problem = min(error.problems, key=lambda one: one.code != "unknown_field")  # it explains what is missing
            raise RequestError(problem.code, problem.message, f"policy.{problem.field}".rstrip(".")) from None
        newest = await self.log.last(topology.POLICY_SUBJECT)
        if newest is not None and self.directory.position < newest.position:
            raise NeedsCatchUpError
        if fault := currency_fault(policy.currency, max(now, policy.effective_from)):
            raise RequestError("invalid", fault, "policy.currency")
        if refusal := self.directory.policies.refusal_of(policy, now):
            raise RequestError("invalid", refusal, "policy.effective_from")
        teams = {*policy.teams, *self.directory.staff.teams()}
        record = PolicyPublished(
            policy=request.policy,
            version=self.directory.policies.newest_version + 1,
            published_by=request.published_by,
            sha256=body_hash(encode(request.policy)).hex(),
            trial_teams=drawn_teams(policy.trial, teams) if policy.trial is not None else (),
            **cause.answer(),
        )
        unit = self.unit(cause, now)
        unit.follow(topology.POLICY_SUBJECT, newest.position if newest else 0, record)
        return CommandResult(unit, answer_of(record, None), record)


def _check_currencies(unit: UnitOfWork, budget: Budget, amount: Money | None) -> None:
    """Refuse what would go out of a budget, or be given, in a currency that is not valid now.

    A budget that was opened while its currency was valid is used to its end.
    """
    fault = currency_fault(budget.currency, unit.now)
    if fault and (unit.opens(budget) or currency_fault(budget.currency, budget.created_on)):
        message = f"{fault}; the policy in force gives in {budget.currency}, so publish another first"
        raise RequestError("invalid", message, "amount.currency")
    if amount is not None and amount.currency != budget.currency:
        fault = currency_fault(amount.currency, unit.now)
        if fault:
            raise RequestError("invalid", fault, "amount.currency")


def _flag_record(request: FlagRequest, cause: RequestContext) -> FlagReviewed | FlagAnswered | FlagUnmasked:
    common = {"flag_id": request.flag_id, **cause.answer()}
    if request.unmasked_by is not None and request.verdict is None and request.text is None:
        return FlagUnmasked(unmasked_by=request.unmasked_by, **common)
    if request.verdict is not None and request.reviewed_by is not None:
        return FlagReviewed(verdict=request.verdict, reviewed_by=request.reviewed_by, note=request.note, **common)
    if request.employee_id is not None and request.text is not None:
        return FlagAnswered(employee_id=request.employee_id, text=request.text, **common)
    field = "reviewed_by" if request.verdict is not None else "verdict"
    raise RequestError(
        "invalid", "a review needs verdict and reviewed_by; an answer employee_id and text; or unmasked_by", field
    )


def rows_of(unit: UnitOfWork) -> list[tuple[ActionRow, int]]:
    """What was given in a unit, each with its entry's number; positions come with storing."""
    found: list[tuple[ActionRow, int]] = []
    for number, entry in enumerate(unit.entries):
        if isinstance(entry.record, (ActionTaken, ActionHeld)):
            row = row_of(entry.record, unit.now, 0, entry.subject)
            if row is not None:
                found.append((row, number))
    return found
