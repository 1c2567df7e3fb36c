"""How each kind of request is ruled: what to read, what the rules say, what to write."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from config import topology
from consumers.answers import answer_of, preview_answer
from consumers.budgets import Account, Unit, stored_form
from domain import deciding
from domain.policy import PolicyError, parse_policy
from domain.records import PolicyPublished
from domain.requests import ActionRequest, GrantRequest, PolicyRequest, Preview, RequestError, action_id_of
from domain.wire import encode
from ledger.cloudevents import body_hash
from ledger.log import Draft, Log

if TYPE_CHECKING:
    from datetime import datetime

    from consumers.directory import Directory, InForce
    from domain.deciding import Agent, Cause

REQUESTS: dict[str, type[Any]] = {
    "action": ActionRequest, "preview": Preview, "budget": GrantRequest, "policy": PolicyRequest,
}  # fmt: skip


class StaleError(Exception):
    """What this request needs to know may be on its way: read up to the end of the log, ask again."""


class Ruling(NamedTuple):
    """What came of a request: drafts to append (none: nothing is recorded) and its answer.

    Where something is recorded, the position is added to the answer.
    """

    drafts: list[Draft]
    answer: dict[str, Any]
    account: Account


class Rulings:
    """Rules on requests one at a time. ``fresh`` says that the directory has read up to the end."""

    def __init__(self, log: Log, directory: Directory) -> None:
        self._log = log
        self._directory = directory

    async def rule(self, request: Any, cause: Cause, now: datetime, account: Account, *, fresh: bool) -> Ruling:
        """What to record and answer.

        Raises:
            RequestError: nothing is recorded; the error is the answer.
            StaleError: the directory may be behind what this request builds on.

        """
        rules = self._directory.in_force(now)
        if rules is None and not fresh and not isinstance(request, PolicyRequest):
            raise StaleError
        match request:
            case ActionRequest():
                return self._action(request, cause, now, account, rules, fresh=fresh)
            case Preview():
                return self._preview(request, cause, now, account, rules, fresh=fresh)
            case GrantRequest():
                return self._grant(request, cause, now, account, rules, fresh=fresh)
            case PolicyRequest():
                return await self._policy(request, cause, now)
        message = f"no rule for {type(request)}"
        raise TypeError(message)

    def _agent(self, agent_id: str, rules: InForce, field: str, *, fresh: bool) -> Agent:
        agent = self._directory.agent(agent_id, rules.policy.default_role)
        if agent is not None:
            return agent
        if not fresh:
            raise StaleError
        message = (
            f"nobody has announced {agent_id!r}: publish resolution.employee.joined.v1 first, "
            "or give the policy a default_role"
        )
        raise RequestError("unknown_agent", message, field)

    def _action(self, request: ActionRequest, cause: Cause, now: datetime, account: Account,
                rules: InForce | None, *, fresh: bool) -> Ruling:  # fmt: skip
        if rules is None:
            record: Any = deciding.fell_short(request, deciding.NO_POLICY, cause)
            # One subject a request: the second of two answers written at once conflicts.
            token = hashlib.sha256(f"{cause.source} {cause.request_id}".encode()).hexdigest()[:32]
            subject = f"{topology.REFUSED_SUBJECT}.{token}"
            return Ruling([Draft(subject, stored_form(record, cause, now), 0)], answer_of(record, None), account)
        agent = self._agent(request.agent_id, rules, "agent_id", fresh=fresh)
        unit = Unit(account, rules, f"agent:{agent.agent_id}", agent, cause, now)
        budget = unit.budget
        verdict = deciding.judge(request, request.amount, agent, rules.policy, cause.source, budget, now)
        if verdict.outcome == "taken":
            action_id = action_id_of(cause.source, request.request_id)
            record = deciding.taken(request, agent, rules.version, budget, verdict, cause, action_id)
        else:
            record = deciding.fell_short(request, verdict, cause, agent=agent, version=rules.version, budget=budget)
        unit.write(record)
        return Ruling(unit.drafts, answer_of(record, unit.budget), account)

    def _preview(self, request: Preview, cause: Cause, now: datetime, account: Account,
                 rules: InForce | None, *, fresh: bool) -> Ruling:  # fmt: skip
        if rules is None:
            return Ruling([], preview_answer(deciding.NO_POLICY, None, None), account)
        agent = self._agent(request.agent_id, rules, "agent_id", fresh=fresh)
        budget = Unit(account, rules, f"agent:{agent.agent_id}", agent, cause, now).budget
        if request.amount is not None:
            verdict = deciding.judge(request, request.amount, agent, rules.policy, cause.source, budget, now)
            return Ruling([], preview_answer(verdict, rules.version, budget), account)
        given, verdict = deciding.available(request, agent, rules.policy, cause.source, budget, now)
        answer = preview_answer(verdict, rules.version, budget) | {"available": given.wire()}
        return Ruling([], answer, account)

    def _grant(self, request: GrantRequest, cause: Cause, now: datetime, account: Account,
               rules: InForce | None, *, fresh: bool) -> Ruling:  # fmt: skip
        if rules is None:
            raise RequestError("no_policy", "no policy is in force, so there is no budget to grant to; publish one")
        kind, _, name = request.holder.partition(":")
        if kind not in ("agent", "team") or not name:
            raise RequestError("invalid", "a holder is agent:<id> or team:<id>", "holder")
        agent = self._agent(name, rules, "holder", fresh=fresh) if kind == "agent" else None
        unit = Unit(account, rules, request.holder, agent, cause, now)
        record = deciding.granted(request, unit.budget, cause)
        unit.write(record)
        return Ruling(unit.drafts, answer_of(record, unit.budget), account)

    async def _policy(self, request: PolicyRequest, cause: Cause, now: datetime) -> Ruling:
        try:
            policy = parse_policy(request.policy)
        except PolicyError as error:
            problem = error.problems[0]
            raise RequestError("invalid", problem.message, f"policy.{problem.field}".rstrip(".")) from None
        if policy.mode == "shadow":
            raise RequestError("not_yet", "shadow policies are not served by this version", "policy.mode")
        newest = await self._log.last(topology.POLICY_SUBJECT)
        if newest is not None and self._directory.position < newest.position:
            raise StaleError
        record = PolicyPublished(
            policy=request.policy,
            version=self._directory.newest_version + 1,
            published_by=request.published_by,
            sha256=body_hash(encode(request.policy)).hex(),
            source=cause.source,
            request_id=cause.request_id,
            request_sha256=cause.request_sha256,
            seen_position=cause.seen_position,
        )
        expect = newest.position if newest else 0
        draft = Draft(topology.POLICY_SUBJECT, stored_form(record, cause, now), expect)
        return Ruling([draft], answer_of(record, None), Account(None, 0))


def holder_of(request: Any) -> str | None:
    """The holder whose budget a request concerns."""
    match request:
        case Preview():
            return f"agent:{request.agent_id}"
        case GrantRequest():
            return request.holder
    return None
