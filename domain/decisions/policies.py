"""The publication of policies."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from domain.commands import RequestError
from domain.currencies import currency_fault
from domain.decisions.decision import Retry, RetryError
from domain.decisions.streams import PolicyStream
from domain.events.decisions import PolicyPublished
from domain.policy.model import drawn_teams
from domain.policy.parsing import PolicyError, parse_policy
from domain.serialization import encode_sorted

if TYPE_CHECKING:
    from domain.commands import PolicyRequest
    from domain.decisions.decision import Decision


def publish_policy(command: PolicyRequest, decision: Decision) -> Decision:
    """Publish a policy if it is valid and does not begin before the one in force."""
    try:
        policy = parse_policy(command.policy)
    except PolicyError as error:
        problem = min(error.problems, key=lambda one: one.code != "unknown_field")  # it explains the missing field
        raise RequestError(problem.code, problem.message, f"policy.{problem.field}".rstrip(".")) from None
    if decision.streams.last_position(PolicyStream()) > decision.state.position:
        raise RetryError(Retry.AFTER_CATCH_UP)
    policies = decision.state.policies
    if fault := currency_fault(policy.currency, max(decision.now, policy.effective_from)):
        raise RequestError("invalid", fault, "policy.currency")
    if refusal := policies.refusal_of(policy, decision.now):
        raise RequestError("invalid", refusal, "policy.effective_from")
    teams = {*policy.teams, *decision.state.staff.teams()}
    record = PolicyPublished(
        policy=command.policy,
        version=policies.newest_version + 1,
        published_by=command.published_by,
        sha256=hashlib.sha256(encode_sorted(command.policy)).hexdigest(),
        trial_teams=drawn_teams(policy.trial, teams) if policy.trial is not None else (),
        **decision.cause.answer(),
    )
    decision.write_to(PolicyStream(), record)
    return decision.answer_with(record)
