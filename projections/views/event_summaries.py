"""Summaries of events: one line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.events import administration, decisions, facts, flags
from domain.serialization import personal_fields, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def describe(body: msgspec.Struct) -> str:  # noqa: C901, PLR0911 - one sentence for each kind of event
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
            return f"reported {body.kind} of {amount_text(body.amount)}: {body.reason}"
        case facts.EscalationReported():
            return _join(f"escalation of {amount_text(body.amount)}", body.reason)
        case facts.EscalationOutcomeReported():
            return _join(f"escalation {body.verdict}", body.reason)
    if isinstance(body, flags.FlagRaised):
        return f"flag {body.rule}: {body.explanation}"
    if isinstance(body, flags.CaseEvent):
        return f"case of {', '.join(body.rules)}, rank {body.rank}: {body.explanation}"
    return _describe_action(body) or _describe_authority(body) or _generic(body)


def _describe_action(body: msgspec.Struct) -> str | None:  # noqa: PLR0911 - one sentence for each kind of event
    match body:
        case decisions.ActionTaken():
            approved = f", approved by {body.decided_by}" if body.decided_by else ""
            return f"{body.kind} of {amount_text(body.amount)} ({_basis(body)}{approved}): {body.reason}"
        case decisions.ActionHeld():
            waits = "reserved for an escalation" if body.escalation_id else "held"
            return f"{waits}: {body.kind} of {amount_text(body.amount)}: {body.reason}"
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
            return f"{body.agent_id} asks {to} for a {body.kind} of {amount_text(body.amount)}: {body.reason}"
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
            asked = f"{body.kind} of {amount_text(body.amount)}"
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
        case decisions.PolicyPublished():
            return f"policy version {body.version} published"
        case administration.ProjectionSkipped():
            return f"{body.projection} passed over position {body.position}: {body.reason}"
    return None


def _generic(body: msgspec.Struct) -> str:
    """Return the class's name in words, with its first fields; the id of a flag comes before its cause."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(body).__name__).strip()
    personal = personal_fields(type(body))
    told = [
        f"{name} {value}"
        for name, value in sorted(plain(body).items(), key=lambda item: item[0] != "flag_id")
        if isinstance(value, (str, int, float)) and name not in personal
    ]
    return _join(words, ", ".join(told[:3]))


def _join(*parts: str | None) -> str:
    return ": ".join(part for part in parts if part)
