"""The publication of policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config import topology
from consumers.decisions.unit_of_work import CommandResult, NeedsCatchUpError
from domain.commands import RequestError
from domain.currencies import currency_fault
from domain.events.decisions import PolicyPublished
from domain.policy.model import drawn_teams
from domain.policy.parsing import PolicyError, parse_policy
from domain.serialization import encode
from ledger.store.cloudevents import body_hash

if TYPE_CHECKING:
    from consumers.decisions.unit_of_work import UnitOfWork
    from domain.commands import PolicyRequest


async def publish_policy(command: PolicyRequest, unit: UnitOfWork) -> CommandResult:
    """Publish a policy if it is valid and does not begin before the one in force."""
    try:
        policy = parse_policy(command.policy)
    except PolicyError as error:
        problem = min(error.problems, key=lambda one: one.code != "unknown_field")  # it explains the missing field
        raise RequestError(problem.code, problem.message, f"policy.{problem.field}".rstrip(".")) from None
    newest = await unit.log.last(topology.POLICY_SUBJECT)
    if newest is not None and unit.state.position < newest.position:
        raise NeedsCatchUpError
    policies = unit.state.policies
    if fault := currency_fault(policy.currency, max(unit.now, policy.effective_from)):
        raise RequestError("invalid", fault, "policy.currency")
    if refusal := policies.refusal_of(policy, unit.now):
        raise RequestError("invalid", refusal, "policy.effective_from")
    teams = {*policy.teams, *unit.state.staff.teams()}
    record = PolicyPublished(
        policy=command.policy,
        version=policies.newest_version + 1,
        published_by=command.published_by,
        sha256=body_hash(encode(command.policy)).hex(),
        trial_teams=drawn_teams(policy.trial, teams) if policy.trial is not None else (),
        **unit.cause.answer(),
    )
    unit.write_after(topology.POLICY_SUBJECT, newest.position if newest else 0, record)
    return CommandResult.of(unit, record)
