"""The publication of policies: by an operator, or by a proposal that the governance in force lets through."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.commands import RequestError
from domain.currencies import currency_fault
from domain.decisions.decision import Retry, RetryError
from domain.decisions.governance import (
    CODE,
    SIGNED_IN,
    is_operator,
    refuse_own_benefit,
    require_named,
)
from domain.decisions.streams import PolicyStream
from domain.events.decisions import PolicyApproved, PolicyObjected, PolicyProposed, PolicyPublished
from domain.policy.model import drawn_teams
from domain.policy.parsing import PolicyError, parse_policy, read_policy
from domain.serialization import encode_sorted

if TYPE_CHECKING:
    from datetime import datetime

    from domain.budgets.postings import AnswerFields, CauseFields
    from domain.commands import PolicyApproval, PolicyCommand, PolicyObjection, PolicyProposal, PolicyRequest
    from domain.decisions.decision import Decision
    from domain.events.decisions import LimitEvidence
    from domain.policy.governance import Governance, PolicyChanges
    from domain.policy.model import Policy
    from domain.policy.proposals import Proposal


class OverdueProposal(NamedTuple):
    """The command of the timer for a proposal with a time for objections that ended at ``due`` (seconds since 1970)."""

    holder: str
    id: str
    """The SHA-256 of the policy."""
    due: float


def publish_policy(command: PolicyRequest, decision: Decision) -> Decision:
    """Publish a policy if it is valid and does not begin before the one in force.

    Where the policy in force has governance of policies, only ``break_glass`` passes it, for operators.
    """
    policy = _checked_policy(command.policy, decision)
    changes = _changes_in_force(decision)
    if command.replaces is not None:
        _require_newest(command.replaces, decision, "publish")
    if command.break_glass:
        _check_break_glass(command, policy, changes, decision)
    elif changes is not None:
        message = "the policy in force has a section governance: propose this one (operation `propose`)"
        raise RequestError(CODE, message, "published_by")
    record = _published(
        command.policy,
        policy,
        command.published_by,
        decision,
        decision.cause.answer(),
        break_glass=command.break_glass,
        reason=command.reason,
        evidence=command.evidence,
    )
    decision.write_to(PolicyStream(), record)
    return decision.answer_with(record)


def propose_policy(command: PolicyProposal, decision: Decision) -> Decision:
    """Propose a policy in the place of the newest enforced version."""
    policy = _checked_policy(command.policy, decision)
    changes = _required_changes(decision)
    if not is_operator(decision.cause):
        require_named(decision, command.proposed_by, changes.propose, "proposed_by", "propose a policy")
    newest = _require_newest(command.replaces, decision, "propose")
    due = decision.now + changes.after if changes.after is not None else None
    _require_future(policy, due or decision.now, command, decision)
    sha256 = _sha256_of(command.policy)
    open_one = decision.state.proposals.get(sha256)
    if open_one is not None and open_one.state == "open" and open_one.replaces == newest:
        raise RequestError("already_proposed", f"this policy waits for its approval already: {sha256}", "policy")
    signed_in = decision.cause.via == SIGNED_IN
    record = PolicyProposed(
        policy=command.policy,
        sha256=sha256,
        replaces=newest,
        proposed_by=command.proposed_by,
        missing=_needed(changes, signed_in=signed_in),
        signed_in=signed_in,
        due=due,
        evidence=command.evidence,
        **decision.cause.answer(),
    )
    decision.write_to(PolicyStream(), record)
    return decision.answer_with(record)


def approve_policy(command: PolicyApproval, decision: Decision) -> Decision:
    """Approve a proposal; the last approval publishes it, after the time for objections."""
    changes = _required_changes(decision)
    if decision.cause.via != SIGNED_IN:
        message = "people count as two only where each signed in: approve on the page or over HTTP with your own token"
        raise RequestError(CODE, message, "approved_by")
    proposal = _open_proposal(command.sha256, decision)
    require_named(decision, command.approved_by, changes.propose, "approved_by", "approve a policy")
    if command.approved_by in proposal.approved_by:
        raise RequestError("already_decided", f"{command.approved_by!r} has approved it already", "approved_by")
    others = (proposal.proposed_by, *proposal.approved_by)
    refuse_own_benefit(decision, command.approved_by, others, "approved_by", "approve a proposal of")
    policy = read_policy(proposal.policy)
    _require_future(policy, decision.now, command, decision)
    needed = _needed(changes, signed_in=proposal.signed_in)
    missing = max(0, needed - len(proposal.approved_by) - 1)
    publishes = not missing and (proposal.due is None or proposal.due <= decision.now)
    record = PolicyApproved(
        sha256=command.sha256,
        approved_by=command.approved_by,
        missing=missing,
        version=decision.state.policies.newest_version + 1 if publishes else None,
        **decision.cause.answer(),
    )
    decision.write_to(PolicyStream(), record)
    if publishes:
        approved_by = (*proposal.approved_by, command.approved_by)
        _publish_proposal(proposal, policy, approved_by, decision)
    return decision.answer_with(record)


def object_to_policy(command: PolicyObjection, decision: Decision) -> Decision:
    """Stop a proposal: an operator may, a reviewer, and each person who may propose."""
    governance = _governance_in_force(decision)
    changes = _required_changes(decision)
    _open_proposal(command.sha256, decision)
    if not is_operator(decision.cause):
        reviews = governance.reviews if governance is not None else ()
        names = (*reviews, *changes.propose)
        require_named(decision, command.objected_by, names, "objected_by", "object to a policy")
    record = PolicyObjected(
        sha256=command.sha256, objected_by=command.objected_by, reason=command.reason, **decision.cause.answer()
    )
    decision.write_to(PolicyStream(), record)
    return decision.answer_with(record)


def publish_overdue(command: OverdueProposal, decision: Decision) -> Decision:
    """Publish a proposal after its time for objections, unless it lapsed in the meantime."""
    _require_current(decision)
    changes, proposal = _changes_in_force(decision), decision.state.proposals.get(command.id)
    if changes is None or proposal is None or proposal.state != "open" or proposal.due is None:
        return decision
    missing = _needed(changes, signed_in=proposal.signed_in) - len(proposal.approved_by)
    if missing > 0 or proposal.due > decision.now or proposal.replaces != decision.state.policies.newest_enforced:
        return decision
    _publish_proposal(proposal, read_policy(proposal.policy), proposal.approved_by, decision)
    return decision


# ---------------------------------------------------------------------- conditions


def _checked_policy(document: dict[str, Any], decision: Decision) -> Policy:
    """Return the rules of a policy that may be published now.

    Raises:
        RequestError: the policy is not valid, or begins before the one in force.

    """
    try:
        policy = parse_policy(document)
    except PolicyError as error:
        problem = min(error.problems, key=lambda one: one.code != "unknown_field")  # it explains the missing field
        raise RequestError(problem.code, problem.message, f"policy.{problem.field}".rstrip(".")) from None
    _require_current(decision)
    if fault := currency_fault(policy.currency, max(decision.now, policy.effective_from)):
        raise RequestError("invalid", fault, "policy.currency")
    if refusal := decision.state.policies.refusal_of(policy, decision.now):
        raise RequestError("invalid", refusal, "policy.effective_from")
    return policy


def _require_current(decision: Decision) -> None:
    """End the decision with a retry unless the known state contains all events about policies."""
    if decision.streams.last_position(PolicyStream()) > decision.state.position:
        raise RetryError(Retry.AFTER_CATCH_UP)


def _require_newest(replaces: int, decision: Decision, what: str) -> int:
    """Return the newest enforced version, which a request replaces.

    Raises:
        RequestError: it replaces another version.

    """
    newest = decision.state.policies.newest_enforced
    if replaces != newest:
        message = f"the newest version is {newest}, not {replaces}: look at it, then {what} again"
        raise RequestError("outdated", message, "replaces")
    return newest


def _governance_in_force(decision: Decision) -> Governance | None:
    rules = decision.state.policies.in_force(decision.now)
    return rules.policy.governance if rules is not None else None


def _changes_in_force(decision: Decision) -> PolicyChanges | None:
    governance = _governance_in_force(decision)
    return governance.policies if governance is not None else None


def _required_changes(decision: Decision) -> PolicyChanges:
    _require_current(decision)
    changes = _changes_in_force(decision)
    if changes is None:
        message = "the policy in force names nobody who may propose policies: an operator publishes them"
        raise RequestError(CODE, message, "operation")
    return changes


def _open_proposal(sha256: str, decision: Decision) -> Proposal:
    proposal = decision.state.proposals.get(sha256)
    if proposal is None:
        raise RequestError("unknown_proposal", f"no policy with the SHA-256 {sha256!r:.80} was proposed", "sha256")
    if proposal.state != "open":
        raise RequestError("already_decided", f"this proposal is {proposal.state} already", "sha256")
    newest = decision.state.policies.newest_enforced
    if proposal.replaces != newest:
        message = f"it replaces version {proposal.replaces}, and {newest} was published since: propose it again"
        raise RequestError("outdated", message, "sha256")
    return proposal


def _needed(changes: PolicyChanges, *, signed_in: bool) -> int:
    """Return the approvals that a proposal needs: one more where its proposer did not sign in."""
    return changes.approvals + (1 if changes.approvals and not signed_in else 0)


def _require_future(policy: Policy, earliest: datetime, command: PolicyCommand, decision: Decision) -> None:
    """Refuse a policy that begins before it could be approved, unless the request is one of history mode.

    There the request's own time is the time of the decision, also where the decision is made again.
    """
    is_history = decision.history or command.time == decision.now
    if not is_history and policy.effective_from < earliest:
        begins = earliest.isoformat().replace("+00:00", "Z")
        message = f"a policy begins no earlier than its approval: name {begins} or a later time"
        raise RequestError("invalid", message, "policy.effective_from")


def _check_break_glass(
    command: PolicyRequest, policy: Policy, changes: PolicyChanges | None, decision: Decision
) -> None:
    if not is_operator(decision.cause):
        raise RequestError(CODE, "only an operator breaks the glass", "break_glass")
    if changes is None:
        message = "the policy in force does not govern policies: publish this one without break_glass"
        raise RequestError("invalid", message, "break_glass")
    if not command.reason:
        raise RequestError("invalid", "say in `reason` why governance cannot wait", "reason")
    _require_future(policy, decision.now, command, decision)


# ---------------------------------------------------------------------- records


def _sha256_of(document: dict[str, Any]) -> str:
    return hashlib.sha256(encode_sorted(document)).hexdigest()


def _publish_proposal(proposal: Proposal, policy: Policy, approved_by: tuple[str, ...], decision: Decision) -> None:
    record = _published(
        proposal.policy,
        policy,
        proposal.proposed_by,
        decision,
        decision.cause.fields(),
        approved_by=approved_by,
        evidence=proposal.evidence,
    )
    decision.write_to(PolicyStream(), record)


def _published(
    document: dict[str, Any],
    policy: Policy,
    published_by: str,
    decision: Decision,
    cause: AnswerFields | CauseFields,
    *,
    approved_by: tuple[str, ...] = (),
    break_glass: bool = False,
    reason: str | None = None,
    evidence: LimitEvidence | None = None,
) -> PolicyPublished:
    """Return the record of a policy as the next version."""
    teams = {*policy.teams, *decision.state.staff.teams()}
    return PolicyPublished(
        policy=document,
        version=decision.state.policies.newest_version + 1,
        published_by=published_by,
        sha256=_sha256_of(document),
        trial_teams=drawn_teams(policy.trial, teams) if policy.trial is not None else (),
        approved_by=approved_by,
        break_glass=break_glass,
        reason=reason,
        evidence=evidence,
        **cause,
    )
