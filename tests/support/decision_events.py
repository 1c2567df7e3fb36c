"""Events of decision scenarios: facts and the ledger's records, with defaults for the fields that a scenario omits."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from domain.events import decisions, facts, flags
from domain.events.decisions import Limit, OpenHold, Reason
from domain.money import Money
from tests.support.documents import Document

NOW = datetime(2026, 3, 10, 9, tzinfo=UTC)
"""The time of a scenario's command, unless the command names another."""
EARLIER = datetime(2026, 3, 9, 9, tzinfo=UTC)
"""The time of a scenario's earlier events, unless an event names another."""


class _Any:
    def __repr__(self) -> str:
        return "ANY"


ANY = _Any()
"""Stands for a field that a scenario does not compare."""

_MONEY = frozenset(
    (
        *("amount", "asked", "carried_over", "granted", "held", "lapsed", "limit", "overdrawn", "reserved", "spent"),
        *("beyond", "decided", "owed", "paid", "reported", "total", "used"),
    )
)
_INSTANTS = frozenset(("due", "expires_at", "from_time", "until_time", "valid_until"))


class Described(NamedTuple):
    """An event of a scenario: its class, the fields that are named, and where they matter its time, source and id."""

    cls: type[msgspec.Struct]
    fields: Document
    at: datetime | None = None
    source: str = "crm"
    event_id: str | None = None
    corrects: int | None = None
    """The position of the fact that a `fact.corrected` replaces."""


def sha256_of(document: Document) -> str:
    """Return the hash of a document: JSON with sorted names and without white space."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def money(text: str) -> Money:
    """Return an amount such as ``5.00`` (pounds) or ``5.00 EUR``."""
    amount, _, currency = text.partition(" ")
    return Money.parse(amount, currency or "GBP")


def instant(text: str) -> datetime:
    """Return a time such as ``2026-03-10T09:00:00Z``."""
    return datetime.fromisoformat(text)


def typed(name: str, value: object) -> object:
    """Return the value of a field as records hold it: amounts and times may be written as text."""
    if isinstance(value, str) and name in _MONEY:
        return money(value)
    if isinstance(value, str) and name in _INSTANTS:
        return instant(value)
    return tuple(value) if isinstance(value, list) else value


def described(
    cls: type[msgspec.Struct], *, at: str | None = None, source: str = "crm", event_id: str | None = None, **fields: Any
) -> Described:
    """Return an event of a class with these fields."""
    known = {name: typed(name, value) for name, value in fields.items()}
    return Described(cls, known, instant(at) if at else None, source, event_id)


# ---------------------------------------------------------------------- facts


def joined(employee_id: str, role: str = "agent", *team_ids: str, **fields: Any) -> Described:
    """Return the fact that an employee started in a role."""
    return described(facts.EmployeeJoined, employee_id=employee_id, role=role, team_ids=team_ids, **fields)


def moved(employee_id: str, role: str = "agent", *team_ids: str, **fields: Any) -> Described:
    """Return the fact that an employee changed the role, teams or manager."""
    return described(facts.EmployeeChanged, employee_id=employee_id, role=role, team_ids=team_ids, **fields)


def left(employee_id: str, **fields: Any) -> Described:
    """Return the fact that an employee left the company."""
    return described(facts.EmployeeLeft, employee_id=employee_id, **fields)


def trained(employee_id: str, course_id: str = "goodwill-basics", **fields: Any) -> Described:
    """Return the fact that an employee completed a course."""
    return described(facts.TrainingCompleted, employee_id=employee_id, course_id=course_id, **fields)


def related(employee_id: str, customer_id: str) -> Described:
    """Return the fact that an employee declared a relation to a customer."""
    return described(facts.RelationshipDeclared, employee_id=employee_id, customer_id=customer_id, nature="sibling")


def delegated(absent: str, to: str, from_time: str = "2026-03-01T00:00:00Z", until_time: str = "") -> Described:
    """Return the fact that an absent employee delegated decisions, until the end of March unless another time is said."""
    return described(
        facts.DelegationDeclared,
        from_employee_id=absent,
        to_employee_id=to,
        from_time=from_time,
        until_time=until_time or "2026-04-01T00:00:00Z",
    )


def linked(a: str, b: str, relation: str = "household") -> Described:
    """Return the fact that two customers are one household or one person."""
    return described(facts.CustomerLinked, a=a, b=b, relation=relation)


def unlinked(a: str, b: str, relation: str = "household") -> Described:
    """Return the fact that two linked customers are separate."""
    return described(facts.CustomerUnlinked, a=a, b=b, relation=relation)


def reported(amount: str, agent_id: str = "A-7", **fields: Any) -> Described:
    """Return the fact that an action was taken offline."""
    given: Document = {"kind": "refund", "reason": "late"} | fields
    return described(facts.ActionReported, amount=amount, agent_id=agent_id, **given)


def refund_settled(action_id: str, total: str, **fields: Any) -> Described:
    """Return the fact that a payment processor paid a refund."""
    return described(facts.RefundSettled, action_id=action_id, total=total, source="payments", **fields)


def corrected(position: int, data: Document | None) -> Described:
    """Return a correction of the fact at a position: with the right data, or ``None`` if it never happened."""
    fields: Document = {"source_of": "crm", "id_of": f"ev-{position}", "data": data, "reason": "typed wrongly"}
    return Described(facts.FactCorrected, fields, corrects=position)


def paid(order_id: str, total: str, source: str = "till", **fields: Any) -> Described:
    """Return the fact that a customer paid for an order, as the till recorded it."""
    return described(facts.PurchaseCompleted, order_id=order_id, total=total, source=source, **fields)


def returned(order_id: str | None, total: str, source: str = "till", **fields: Any) -> Described:
    """Return the fact that a customer returned goods of an order."""
    return described(facts.PurchaseReturned, order_id=order_id, total=total, source=source, **fields)


# ---------------------------------------------------------------------- budgets


def opened(holder: str, granted: str, **fields: Any) -> Described:
    """Return the opening of a budget."""
    return described(decisions.BudgetOpened, holder=holder, granted=granted, **({"carried_over": "0.00"} | fields))


def closed(holder: str, period: str, **fields: Any) -> Described:
    """Return the closing of a budget; amounts that are not named are zero."""
    given: Document = {"spent": "0.00", "lapsed": "0.00", "carried_over": "0.00"} | fields
    return described(decisions.BudgetClosed, holder=holder, period=period, **given)


def granted(holder: str, amount: str, **fields: Any) -> Described:
    """Return a grant to a holder."""
    given: Document = {"granted_by": "M-1", "reason": "a busy week"} | fields
    return described(decisions.BudgetGranted, holder=holder, amount=amount, **given)


def transferred(holder: str, direction: str, other_holder: str, amount: str, **fields: Any) -> Described:
    """Return one side of a transfer."""
    given: Document = {"granted_by": "M-1", "reason": "a busy week"} | fields
    names: Document = {"holder": holder, "direction": direction, "other_holder": other_holder, "amount": amount}
    return described(decisions.BudgetTransferred, **(names | given))


def drawn(holder: str, direction: str, other_holder: str, amount: str, **fields: Any) -> Described:
    """Return one side of a draw on a pool."""
    names: Document = {"holder": holder, "direction": direction, "other_holder": other_holder, "amount": amount}
    return described(decisions.BudgetDrawn, **(names | fields))


def open_hold(action_id: str, amount: str, interaction_id: str | None = None) -> OpenHold:
    """Return a reservation that an opening takes over."""
    return OpenHold(action_id=action_id, amount=money(amount), interaction_id=interaction_id)


# ---------------------------------------------------------------------- actions


def taken(amount: str, agent_id: str = "A-7", **fields: Any) -> Described:
    """Return an action that was taken."""
    return described(decisions.ActionTaken, amount=amount, **({"agent_id": agent_id} | fields))


def held(amount: str, agent_id: str = "A-7", **fields: Any) -> Described:
    """Return an action whose amount is reserved."""
    return described(decisions.ActionHeld, amount=amount, **({"agent_id": agent_id} | fields))


def settled(amount: str, **fields: Any) -> Described:
    """Return the payment of a hold."""
    return described(decisions.ActionSettled, amount=amount, **fields)


def voided(amount: str, reason: str, **fields: Any) -> Described:
    """Return the release of a hold."""
    return described(decisions.ActionVoided, amount=amount, reason=reason, **fields)


def charged(amount: str, overdrawn: str = "0.00", **fields: Any) -> Described:
    """Return the posting of a reported action."""
    return described(decisions.ActionCharged, amount=amount, overdrawn=overdrawn, **fields)


def reversal(amount: str, **fields: Any) -> Described:
    """Return the reversal of an action."""
    given: Document = {"reversed_by": "M-1", "reason": "item found", "recovered": True} | fields
    return described(decisions.ActionReversed, amount=amount, **given)


def fell_short(amount: str, outcome: str, *reasons: Reason, **fields: Any) -> Described:
    """Return the record of a request beyond authority."""
    given: Document = {"preview": False, "reasons": reasons} | fields
    return described(decisions.AuthorityFellShort, amount=amount, outcome=outcome, **given)


def customer_charged(customer_id: str, amount: str, **fields: Any) -> Described:
    """Return goodwill to a customer near the cap, on the customer's own stream."""
    given: Document = {"limit": "100.00", "days": 90} | fields
    return described(decisions.CustomerCharged, customer_id=customer_id, amount=amount, **given)


def order_charged(order_id: str, amount: str, **fields: Any) -> Described:
    """Return an action for an order of which much is given back, on the order's own stream."""
    return described(decisions.OrderCharged, order_id=order_id, amount=amount, **fields)


def met(**limits: tuple[str | None, str]) -> tuple[Limit, ...]:
    """Return limits as records hold them: name, limit (``None``: unlimited) and amount used before, in pounds."""
    return tuple(
        Limit(name=name, limit=None if limit is None else money(limit), used=money(used))
        for name, (limit, used) in limits.items()
    )


def why(rule: str, *, limit: str | None = None, used: str | None = None, asked: str | None = None) -> Reason:
    """Return a reason; its message is not compared, because a message may change between versions."""
    amounts = {name: money(text) for name, text in (("limit", limit), ("used", used), ("asked", asked)) if text}
    return Reason(rule=rule, message=ANY, **amounts)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- escalations


def requested(amount: str, agent_id: str = "A-7", *reasons: Reason, **fields: Any) -> Described:
    """Return an open escalation."""
    given: Document = {"agent_id": agent_id, "reasons": reasons} | fields
    return described(decisions.EscalationRequested, amount=amount, **given)


def forwarded(*to: str, **fields: Any) -> Described:
    """Return an escalation that was passed on to these people."""
    return described(decisions.EscalationForwarded, to=to, **fields)


def approved(amount: str, **fields: Any) -> Described:
    """Return the approval of an escalation."""
    return described(decisions.EscalationApproved, amount=amount, **fields)


def denied(**fields: Any) -> Described:
    """Return the denial of an escalation."""
    return described(decisions.EscalationDenied, **fields)


def withdrawn(**fields: Any) -> Described:
    """Return the withdrawal of an escalation."""
    return described(decisions.EscalationWithdrawn, **fields)


def expired(**fields: Any) -> Described:
    """Return the expiry of an escalation."""
    return described(decisions.EscalationExpired, **fields)


# ---------------------------------------------------------------------- policies and flags


def published(policy: Document, version: int = 1, **fields: Any) -> Described:
    """Return the publication of a policy, by the owner."""
    given: Document = {"published_by": "owner", "sha256": "", "at": "2026-01-01T00:00:00Z"} | fields
    return described(decisions.PolicyPublished, policy=policy, version=version, **given)


def policy_proposed(policy: Document, **fields: Any) -> Described:
    """Return a proposal of a policy in the place of version 1, by H-1."""
    given: Document = {"proposed_by": "H-1", "replaces": 1, "sha256": sha256_of(policy)} | fields
    return described(decisions.PolicyProposed, policy=policy, **given)


def policy_approved(sha256: str, **fields: Any) -> Described:
    """Return an approval of a proposal, by H-2."""
    return described(decisions.PolicyApproved, sha256=sha256, **({"approved_by": "H-2"} | fields))


def policy_objected(sha256: str, **fields: Any) -> Described:
    """Return an objection to a proposal, by U-1."""
    given: Document = {"objected_by": "U-1", "reason": "too wide"} | fields
    return described(decisions.PolicyObjected, sha256=sha256, **given)


def grantor_charged(person: str, amount: str, granted_to: str, **fields: Any) -> Described:
    """Return the count of a grant on its grantor's budget."""
    names: Document = {"holder": f"agent:{person}", "amount": amount, "granted_to": granted_to}
    return described(decisions.GrantorCharged, **(names | fields))


def flag_raised(
    flag_id: str = "flag-1", about: tuple[str, ...] = ("agent:A-7",), evidence: tuple[int, ...] = (1, 2)
) -> Described:
    """Return a flag of the guard."""
    fields: Document = {"rule": "R2", "rule_version": 1, "explanation": "two parts", "evidence": evidence}
    return described(flags.FlagRaised, flag_id=flag_id, about=about, **fields)


def flag_reviewed(verdict: str, **fields: Any) -> Described:
    """Return the review of a flag."""
    return described(flags.FlagReviewed, verdict=verdict, **fields)


def flag_answered(text: str, **fields: Any) -> Described:
    """Return the answer of the employee whom a flag concerns."""
    return described(flags.FlagAnswered, text=text, **fields)


def flag_unmasked(**fields: Any) -> Described:
    """Return the look of a reviewer at the names behind a flag."""
    return described(flags.FlagUnmasked, **fields)
