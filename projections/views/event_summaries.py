"""Summaries of events: one line for people."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from domain.events import administration, decisions, facts, flags

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import msgspec

    from domain.money import Money


def amount_text(amount: Money) -> str:
    """Return an amount with its currency, e.g. ``5.00 GBP``."""
    return f"{amount.text} {amount.currency}"


def reasons_text(reasons: Sequence[decisions.Reason]) -> str:
    """Return the reasons why authority fell short, in words with numbers."""
    texts: list[str] = []
    for reason in reasons:
        text = reason.message
        if reason.limit is not None and reason.used is not None:
            text += f" (limit {amount_text(reason.limit)}, used {amount_text(reason.used)})"
        texts.append(text)
    return "; ".join(texts)


def describe(body: msgspec.Struct) -> str:  # noqa: C901, PLR0911, PLR0912 - one sentence for each kind of event
    """Return one line about an event's body."""
    match body:
        case facts.InteractionOpened():
            return _join("interaction opened", body.channel, body.reason)
        case facts.InteractionTransferred():
            to = body.to_agent_id or body.to_team_id
            return _join(f"transferred to {to}" if to else "transferred", "told again" if body.story_repeated else None)
        case facts.PurchaseCompleted():
            return f"bought for {amount_text(body.total)} (order {body.order_id})"
        case facts.PurchaseReturned():
            return _join(f"returned {amount_text(body.total)}", "item kept" if body.item_kept else None)
        case facts.FeedbackReceived():
            return f"{body.instrument} {body.score:g} of {body.worst:g} to {body.best:g}"
        case facts.RecognitionGiven():
            return f"{body.giver_id} thanked {body.receiver_id}: {body.reason}"
        case facts.ActionReported():
            return f"reported {_words(body.kind)} of {amount_text(body.amount)}: {body.reason}"
        case facts.EscalationReported():
            return _join(f"escalation of {amount_text(body.amount)}", body.reason)
        case facts.EscalationOutcomeReported():
            return _join(f"escalation {body.verdict}", body.reason)
        case facts.InteractionResolved():
            return _join(_by("interaction resolved", body.agent_id), body.resolution)
        case facts.InteractionReopened():
            return _join("interaction reopened", body.reason)
        case facts.RefundSettled():
            order = f" (order {body.order_id})" if body.order_id else ""
            return f"refund of {amount_text(body.total)} paid out{order}"
        case facts.FactCorrected():
            return f"event {body.id_of} of {body.source_of} corrected: {body.reason}"
    found = _describe_action(body) or _describe_authority(body) or _describe_policy(body) or _describe_review(body)
    return found or _describe_people(body) or _describe_voices(body) or _describe_administration(body) or _name(body)


def _words(code: str) -> str:
    """Return a code such as ``keep_item`` in words."""
    return code.replace("_", " ")


def _by(text: str, person: str | None) -> str:
    return f"{text} by {person}" if person else text


def _describe_action(body: msgspec.Struct) -> str | None:  # noqa: PLR0911 - one sentence for each kind of event
    match body:
        case decisions.ActionTaken():
            approved = f", approved by {body.decided_by}" if body.decided_by else ""
            return f"{_words(body.kind)} of {amount_text(body.amount)} ({_basis(body)}{approved}): {body.reason}"
        case decisions.ActionHeld():
            waits = "reserved for an escalation" if body.escalation_id else "held"
            return f"{waits}: {_words(body.kind)} of {amount_text(body.amount)}: {body.reason}"
        case decisions.ActionSettled():
            beyond = f", {amount_text(body.beyond)} above it was reported" if body.beyond is not None else ""
            return f"settled {amount_text(body.amount)} of {amount_text(body.held)} held{beyond}"
        case decisions.ActionVoided():
            return f"{amount_text(body.amount)} free again: {body.reason}"
        case decisions.ActionCharged():
            over = f", {amount_text(body.overdrawn)} beyond it" if body.overdrawn.minor else ""
            if body.decided is not None and body.reported is not None:
                told = f"{amount_text(body.reported)} reported of the {amount_text(body.decided)} decided before"
                return f"{told}; charged to {body.holder}: {amount_text(body.amount)}{over}"
            return f"reported action charged to {body.holder}: {amount_text(body.amount)}{over}"
        case decisions.ActionReversed():
            recovered = "recovered" if body.recovered else "not recovered"
            return f"{amount_text(body.amount)} reversed by {body.reversed_by}, {recovered}: {body.reason}"
        case decisions.CustomerCharged():
            return (
                f"near the cap: {amount_text(body.used)} of {amount_text(body.limit)} in {body.days} days before this"
            )
        case decisions.OrderCharged():
            return f"order {body.order_id}: {amount_text(body.used)} of {amount_text(body.paid)} given back before this"
    return None


def _basis(body: decisions.ActionTaken) -> str:
    return body.basis if body.owed is None else f"{body.basis}, {amount_text(body.owed)} owed"


def _describe_authority(body: msgspec.Struct) -> str | None:  # noqa: C901, PLR0911 - one sentence for each kind of event
    match body:
        case decisions.EscalationRequested():
            to = ", ".join(body.to) or "nobody known"
            return f"{body.agent_id} asks {to} for a {_words(body.kind)} of {amount_text(body.amount)}: {body.reason}"
        case decisions.EscalationForwarded():
            return _join(f"escalation goes to {', '.join(body.to)}", body.reason)
        case decisions.EscalationApproved():
            given = amount_text(body.amount)
            return f"{body.decided_by} approved {given} of {amount_text(body.asked)}, paid by {body.paid_by}"
        case decisions.EscalationStep():
            return _join(
                f"escalation {body.status}" + (f" by {body.decided_by}" if body.decided_by else ""), body.reason
            )
        case decisions.AuthorityFellShort():
            asked = f"{_words(body.kind)} of {amount_text(body.amount)}"
            return f"{body.outcome}: {asked}: {reasons_text(body.reasons)}"
        case decisions.BudgetOpened():
            carried = f" and {amount_text(body.carried_over)} carried over" if body.carried_over.minor else ""
            opened = "opened again" if body.reopened else "opened"
            return f"budget {body.period} of {body.holder} {opened} with {amount_text(body.granted)}{carried}"
        case decisions.BudgetGranted():
            return f"{amount_text(body.amount)} granted to {body.holder}: {body.reason}"
        case decisions.BudgetTransferred():
            way = "from" if body.direction == "in" else "to"
            return f"{amount_text(body.amount)} transferred {way} {body.other_holder}: {body.reason}"
        case decisions.BudgetDrawn():
            way = "drawn from" if body.direction == "in" else "drawn by"
            return f"{amount_text(body.amount)} {way} {body.other_holder}"
        case decisions.BudgetClosed():
            spent, lapsed = amount_text(body.spent), amount_text(body.lapsed)
            return f"budget {body.period} of {body.holder} closed: {spent} spent, {lapsed} lapsed"
        case decisions.GrantorCharged():
            given = f"{amount_text(body.used)} of {amount_text(body.limit)} granted by {body.holder} before this"
            return f"{amount_text(body.amount)} granted to {body.granted_to}: {given}"
    return None


def _describe_policy(body: msgspec.Struct) -> str | None:
    match body:
        case decisions.PolicyPublished():
            return f"policy version {body.version} published"
        case decisions.PolicyProposed():
            return f"{body.proposed_by} proposed a policy in place of version {body.replaces}"
        case decisions.PolicyApproved():
            wanting = f"{body.missing} more to approve" if body.missing else "it waits for its time"
            done = f"policy version {body.version}" if body.version else wanting
            return f"{body.approved_by} approved a proposed policy: {done}"
        case decisions.PolicyObjected():
            return f"{body.objected_by} objected to a proposed policy: {body.reason}"
    return None


def _describe_review(body: msgspec.Struct) -> str | None:
    match body:
        case flags.FlagRaised():
            return f"flag {body.rule}: {body.explanation}"
        case flags.FlagUnmasked():
            return f"{body.unmasked_by} began the review of {body.flag_id}"
        case flags.FlagReviewed():
            return f"{body.reviewed_by} reviewed {body.flag_id}: {body.verdict}"
        case flags.FlagAnswered():
            return f"{body.employee_id} answered {body.flag_id}"
        case flags.CaseEvent():
            return f"case of {', '.join(body.rules)}, rank {body.rank}: {body.explanation}"
    return None


def _describe_people(body: msgspec.Struct) -> str | None:  # noqa: PLR0911 - one sentence for each kind of event
    match body:
        case facts.EmployeeJoined() | facts.EmployeeChanged():
            does = "joined" if isinstance(body, facts.EmployeeJoined) else "changed"
            teams = f" in {', '.join(body.team_ids)}" if body.team_ids else ""
            below = f", reports to {body.manager_id}" if body.manager_id else ""
            return f"{body.employee_id} {does}: {body.role}{teams}{below}"
        case facts.EmployeeLeft():
            return _join(f"{body.employee_id} left", body.reason)
        case facts.TrainingCompleted():
            until = f", valid until {_moment(body.valid_until)}" if body.valid_until else ""
            return f"{body.employee_id} completed the training {body.course_id}{until}"
        case facts.ShiftStarted():
            return f"{body.employee_id} started a shift"
        case facts.ShiftEnded():
            return f"{body.employee_id} ended a shift"
        case facts.RelationshipDeclared():
            return f"{body.employee_id} declared a relationship with {body.customer_id}: {body.nature}"
        case facts.DelegationDeclared():
            times = f"from {_moment(body.from_time)} until {_moment(body.until_time)}"
            return f"{body.from_employee_id} delegated to {body.to_employee_id} {times}"
        case facts.CustomerReferred():
            return f"{body.customer_id} referred {body.referred_customer_id}"
        case facts.CustomerLinked() | facts.CustomerUnlinked():
            does = "linked" if isinstance(body, facts.CustomerLinked) else "no longer linked"
            return f"{body.a} and {body.b} {does}: {body.relation.replace('_', ' ')}"
    return None


def _moment(at: datetime) -> str:
    """Return a time such as `4 April 2026, 21:12 UTC`; at the ends of the calendar, where UTC has no date, as it is."""
    try:
        at = at.astimezone(UTC)
    except OverflowError:
        return at.isoformat()
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def _describe_voices(body: msgspec.Struct) -> str | None:
    match body:
        case facts.ObstacleReported():
            return _join(f"{body.employee_id} reported obstacle {body.obstacle_id}", body.kind)
        case facts.ObstacleAnswered():
            return f"{body.answered_by} answered obstacle {body.obstacle_id}"
        case facts.IdeaSubmitted():
            return f"{body.employee_id} submitted idea {body.idea_id}"
        case facts.IdeaDecided():
            return f"{body.decided_by} decided idea {body.idea_id}: {body.decision}"
        case facts.MoraleSurveyed():
            return f"morale of {body.team_id} in {body.period}: {body.respondents} of {body.invited} answered"
    return None


def _describe_administration(body: msgspec.Struct) -> str | None:  # noqa: PLR0911 - one sentence for each kind of event
    match body:
        case administration.ProjectionSkipped():
            return f"{body.projection} passed over position {body.position}: {body.reason}"
        case administration.CustomerForgotten():
            return _join(f"customer {body.customer_id} forgotten, requested by {body.requested_by}", body.reason)
        case administration.EmployeeForgotten():
            return _join(f"employee {body.employee_id} forgotten, requested by {body.requested_by}", body.reason)
        case administration.TrailRead():
            return f"{body.read_by} read the events about {', '.join(body.about)} up to position {body.up_to}"
        case administration.SourceRights():
            does = "registered" if isinstance(body, administration.SourceRegistered) else "changed"
            return f"source {body.source} {does} by {body.by}: profile {body.profile}"
        case administration.SourceStopped() | administration.SourceRetired():
            does = "stopped" if isinstance(body, administration.SourceStopped) else "retired"
            return _join(f"source {body.source} {does} by {body.by}", body.reason)
        case administration.AccessRecorded():
            return f"{body.who}: {body.what}, over {body.via.upper()}"
    return None


def _name(body: msgspec.Struct) -> str:
    """Return the class's name in words."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in type(body).__name__).strip()


def _join(*parts: str | None) -> str:
    return ": ".join(part for part in parts if part)
