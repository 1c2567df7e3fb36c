"""What is written into the books: openings and closings, grants and transfers, what becomes of actions later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from domain.commands import RequestError
from domain.events.decisions import (
    ActionCharged,
    ActionReversed,
    ActionSettled,
    ActionVoided,
    BudgetClosed,
    BudgetDrawn,
    BudgetGranted,
    BudgetOpened,
    BudgetTransferred,
    OpenHold,
)
from domain.money import Money
from domain.periods import OpenedPeriod, days_of, kind_of

if TYPE_CHECKING:
    from datetime import datetime

    from domain.budgets.budget import Budget
    from domain.commands import GrantRequest, HoldRequest, ReversalRequest, TransferRequest
    from domain.events.facts import ActionReported, Basis
    from domain.policy.history import PolicyHistory
    from domain.policy.model import Policy, Rules


class ActionLike(Protocol):
    """What bookings need to know of an action."""

    @property
    def action_id(self) -> str:
        """As in the action."""

    @property
    def agent_id(self) -> str:
        """As in the action."""

    @property
    def amount(self) -> Money:
        """As in the action."""

    @property
    def basis(self) -> Basis:
        """As in the action."""

    @property
    def customer_id(self) -> str | None:
        """As in the action."""

    @property
    def interaction_id(self) -> str | None:
        """As in the action."""


class RequestContext(msgspec.Struct, frozen=True, kw_only=True):
    """The request behind a decision: who asked, under which id, with which body."""

    source: str
    request_id: str
    seen_position: int
    request_sha256: str | None = None
    """None where no request was made: the clock or a fact is the cause."""
    action_id: str = ""
    """What an action that this request takes is called."""

    def fields(self) -> dict[str, Any]:
        """For a record that goes with the answer."""
        return {"source": self.source, "request_id": self.request_id, "seen_position": self.seen_position}

    def answer(self) -> dict[str, Any]:
        """For the one record that is the answer."""
        return self.fields() | {"request_sha256": self.request_sha256}


def grant_of(policy: Policy, holder: str, role_name: str | None, currency: str) -> tuple[Money, int]:
    """What a policy grants a holder for a period, and how much may be carried over into it (minor units)."""
    granted, carry_limit = Money(0, currency), 0
    if currency == policy.currency:
        if role_name is not None and role_name in policy.roles:
            role = policy.roles[role_name]
            granted, carry_limit = role.budget, role.carry_over.minor
        team = policy.teams.get(holder.removeprefix("team:")) if holder.startswith("team:") else None
        if team is not None and team.pool is not None:
            granted = team.pool
    return granted, carry_limit


def period_to_book(rules: Rules, before: Budget | None, policies: PolicyHistory, now: datetime) -> str:
    """Return the period to book on now, where ``before`` is the holder's newest budget.

    Raises:
        ValueError: that budget's period has not begun yet.

    """
    if before is None:
        return rules.period_at(now, None)
    opened_by = policies.get(before.policy_version) or rules  # none where it was published elsewhere a moment ago
    zone, granted = opened_by.policy.time_zone, before.opening_grant_minor > 0
    return rules.period_at(now, OpenedPeriod(before.period, zone, granted))


def opening(
    rules: Rules,
    holder: str,
    period: str,
    before: Budget | None,
    cause: RequestContext,
    role_name: str | None,
    currency: str,
    *,
    back: bool = False,
    again: Budget | None = None,
) -> tuple[BudgetOpened, BudgetClosed | None]:
    """The records that open a holder's period and close the one before it.

    Carry-over comes only from the period directly before. What is reserved, and who waits for an answer,
    goes on. A budget in another currency than the policy's is granted nothing; one for a shorter period than the
    policy's (``Policy.next_period``) at most what the one before was.

    After a clock has run ahead: ``back`` says that the period lies before the one that is open, from which nothing is
    carried over; ``again`` is the budget of the period where it was closed before its end. It is granted what lapsed
    then, so that no grant is made twice.
    """
    granted, carry_limit = grant_of(rules.policy, holder, role_name, currency)
    if before is not None and kind_of(period) != rules.policy.period:
        granted = Money(min(granted.minor, before.opening_grant_minor), currency)
    if again is not None:
        granted, carry_limit = Money(again.lapsed_minor, currency), 0
    carried, closing = Money(0, currency), None
    if before is not None and not before.closed:
        adjacent = days_of(before.period)[1] >= days_of(period)[0] and not back
        left = max(0, before.remaining_minor)
        carried = Money(min(left, carry_limit) if adjacent else 0, currency)
        closing = BudgetClosed(
            holder=holder,
            period=before.period,
            spent=before.money(before.spent_minor),
            carried_over=carried,
            lapsed=before.money(left - carried.minor),
            reserved=before.money(before.reserved_minor) if before.reserved_minor else None,
            overdrawn=before.money(-before.remaining_minor) if before.remaining_minor < 0 else None,
            reopened=before.reopened,
            **cause.fields(),
        )
    opened = BudgetOpened(
        holder=holder,
        period=period,
        currency=currency,
        granted=granted,
        carried_over=carried,
        policy_version=rules.version,
        holds=tuple(
            OpenHold(action_id=action_id, amount=Money(hold.minor, currency), interaction_id=hold.interaction_id)
            for action_id, hold in (before.holds.items() if closing and before else ())
        ),
        escalations=tuple(sorted(before.escalations)) if closing and before else (),
        reopened=again is not None,
        **cause.fields(),
    )
    return opened, closing


def granted(request: GrantRequest, budget: Budget, cause: RequestContext) -> BudgetGranted:
    """The record of a grant.

    Raises:
        RequestError: the amount is in another currency than the budget, or zero.

    """
    _check_amount(request.amount, budget, "a grant of nothing grants nothing; name an amount above zero")
    return BudgetGranted(
        holder=budget.holder,
        period=budget.period,
        amount=request.amount,
        granted_by=request.granted_by,
        reason=request.reason,
        **cause.answer(),
    )


def transferred(
    request: TransferRequest, giver: Budget, taker: Budget, cause: RequestContext
) -> tuple[BudgetTransferred, BudgetTransferred]:
    """The entries of a transfer in both books; the first is the answer.

    Raises:
        RequestError: another currency, nothing, to itself, or more than the giver has left.

    """
    _check_amount(request.amount, giver, "a transfer of nothing moves nothing; name an amount above zero")
    if giver.holder == taker.holder:
        raise RequestError("invalid", "a transfer goes to another holder", "to_holder")
    if request.amount.minor > giver.remaining_minor:
        left = giver.money(giver.remaining_minor).text
        message = f"{giver.holder} has {left} left; transfer no more than that, or grant instead"
        raise RequestError("insufficient", message, "amount.amount")
    sides: tuple[tuple[Budget, Budget, Literal["out", "in"]], ...] = ((giver, taker, "out"), (taker, giver, "in"))
    out, into = (
        BudgetTransferred(
            holder=mine.holder,
            period=mine.period,
            direction=direction,
            other_holder=theirs.holder,
            amount=request.amount,
            granted_by=request.granted_by,
            reason=request.reason,
            **(cause.answer() if direction == "out" else cause.fields()),
        )
        for mine, theirs, direction in sides
    )
    return out, into


def drawn(
    pool: Budget, budget: Budget, amount: Money, action_id: str, cause: RequestContext
) -> tuple[BudgetDrawn, BudgetDrawn]:
    """The entries of a draw on a pool: in the pool's book, and in the agent's."""
    sides: tuple[tuple[Budget, Budget, Literal["out", "in"]], ...] = ((pool, budget, "out"), (budget, pool, "in"))
    out, into = (
        BudgetDrawn(
            holder=mine.holder,
            period=mine.period,
            direction=direction,
            other_holder=theirs.holder,
            amount=amount,
            action_id=action_id,
            **cause.fields(),
        )
        for mine, theirs, direction in sides
    )
    return out, into


def settled(
    held: ActionLike, open_minor: int, request: HoldRequest, budget: Budget, cause: RequestContext
) -> ActionSettled:
    """The record of held money that went.

    Raises:
        RequestError: more than was held, or another currency.

    """
    amount = request.amount if request.amount is not None else held.amount
    _check_currency(amount, held.amount)
    if amount.minor > held.amount.minor:
        message = f"{held.amount.text} was held; settle no more than that"
        raise RequestError("invalid", message, "amount.amount")
    return ActionSettled(held=Money(open_minor, amount.currency), **_posted(held, amount, budget), **cause.answer())


def settled_by_fact(
    held: ActionLike, open_minor: int, total: Money, position: int, budget: Budget, cause: RequestContext
) -> ActionSettled:
    """The same where a fact says that the money went: it did, even where it is more than was held."""
    return ActionSettled(
        held=Money(open_minor, total.currency), relates_to=position, **_posted(held, total, budget), **cause.fields()
    )


def voided(
    held: ActionLike,
    open_minor: int,
    reason: str,
    budget: Budget,
    cause: RequestContext,
    *,
    escalation_id: str | None = None,
    answers: bool = False,
) -> ActionVoided:
    """The record of a hold that is over without money moving."""
    return ActionVoided(
        reason=reason,
        escalation_id=escalation_id,
        **_posted(held, Money(open_minor, held.amount.currency), budget),
        **(cause.answer() if answers else cause.fields()),
    )


def charged(
    fact: ActionReported, action_id: str, position: int, budget: Budget, cause: RequestContext
) -> ActionCharged:
    """The record that posts a reported action to its budget, even beyond it."""
    over = fact.amount.minor - max(0, budget.remaining_minor)
    return ActionCharged(
        action_id=action_id,
        holder=budget.holder,
        period=budget.period,
        amount=fact.amount,
        agent_id=fact.agent_id,
        customer_id=fact.customer_id,
        interaction_id=fact.interaction_id,
        overdrawn=budget.money(max(0, over)),
        relates_to=position,
        **cause.fields(),
    )


def reversed_by(
    request: ReversalRequest,
    action: ActionLike,
    left: Money,
    position: int,
    budget: Budget,
    cause: RequestContext,
    *,
    late: bool,
) -> ActionReversed:
    """The record that undoes an action, or what ``amount`` says of what is ``left`` of it.

    Raises:
        RequestError: another currency, nothing, or more than is left.

    """
    amount = request.amount if request.amount is not None else left
    _check_currency(amount, left)
    if not left.minor:
        raise RequestError("nothing_left", "nothing is left of this action to reverse", "action_id")
    if not 0 < amount.minor <= left.minor:
        message = f"reverse more than nothing and at most what is left of the action, {left.text}"
        raise RequestError("invalid", message, "amount.amount")
    return ActionReversed(
        action_id=request.action_id,
        holder=budget.holder,
        period=budget.period,
        amount=amount,
        agent_id=action.agent_id,
        basis=action.basis,
        customer_id=action.customer_id,
        interaction_id=action.interaction_id,
        recovered=request.recovered,
        reversed_by=request.reversed_by,
        reason=request.reason,
        relates_to=position,
        late=late,
        **cause.answer(),
    )


def _posted(held: ActionLike, amount: Money, budget: Budget) -> dict[str, Any]:
    return {
        "action_id": held.action_id,
        "holder": budget.holder,
        "period": budget.period,
        "amount": amount,
        "agent_id": held.agent_id,
        "basis": held.basis,
        "customer_id": held.customer_id,
        "interaction_id": held.interaction_id,
    }


def _check_amount(amount: Money, budget: Budget, nothing: str) -> None:
    if amount.currency != budget.currency:
        message = f"this budget is in {budget.currency}, not {amount.currency}"
        raise RequestError("currency", message, "amount.currency")
    if not amount.minor:
        raise RequestError("invalid", nothing, "amount.amount")


def _check_currency(amount: Money, of: Money) -> None:
    if amount.currency != of.currency:
        message = f"the action is in {of.currency}, not {amount.currency}"
        raise RequestError("currency", message, "amount.currency")
