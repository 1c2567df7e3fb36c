"""Records of budgets: openings, closings, grants, transfers, and postings of actions after they were taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

import msgspec

from domain.actions import counted_minor
from domain.commands import RequestError
from domain.events.causes import NO_COMMAND, RULES_VERSION
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
    GrantorCharged,
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


class CauseFields(TypedDict):
    """The fields by which a record names its cause."""

    source: str
    request_id: str
    seen_position: int
    decider_id: str
    rules_version: int


class AnswerFields(CauseFields):
    """The same fields of the one record that answers a request."""

    request_sha256: str | None
    command: msgspec.Raw
    via: str | None


class ActionLike(Protocol):
    """The fields of an action that postings copy."""

    @property
    def action_id(self) -> str:
        """The id of the action."""

    @property
    def agent_id(self) -> str:
        """The id of the agent that the action is charged to."""

    @property
    def amount(self) -> Money:
        """The amount of the action."""

    @property
    def basis(self) -> Basis:
        """Goodwill, entitlement or correction."""

    @property
    def owed_minor(self) -> int | None:
        """The part of an entitlement or a correction that draws no budget; ``None`` without proof or for goodwill."""

    @property
    def customer_id(self) -> str | None:
        """The id of the customer, or ``None``."""

    @property
    def interaction_id(self) -> str | None:
        """The id of the interaction, or ``None``."""


class RequestContext(msgspec.Struct, kw_only=True):
    """The cause of a decision (``domain.events.causes.Caused``): its source, its id and the hash of its body."""

    source: str
    request_id: str
    seen_position: int
    """Set again when the request is decided."""
    request_sha256: str | None = None
    """``None`` where a timer or a fact caused the decision, not a request."""
    action_id: str = ""
    """The id of the action that this request takes."""
    decider_id: str = ""
    rules_version: int = RULES_VERSION
    command: msgspec.Raw = NO_COMMAND
    via: str | None = None
    """`cli` or `http` where the ledger's own commands or page sent the request: profiles of sources do not limit it."""

    def fields(self) -> CauseFields:
        """Return the fields of a record that accompanies the answer."""
        return {
            "source": self.source,
            "request_id": self.request_id,
            "seen_position": self.seen_position,
            "decider_id": self.decider_id,
            "rules_version": self.rules_version,
        }

    def noted(self) -> AnswerFields:
        """Return the fields of a record that a preview leaves: with the command, and no answer to a request."""
        return {**self.fields(), "request_sha256": None, "command": self.command, "via": self.via}

    def answer(self) -> AnswerFields:
        """Return the fields of the one record that is the answer; its hash of the body makes it so."""
        return {**self.fields(), "request_sha256": self.request_sha256, "command": self.command, "via": self.via}


def grant_of(policy: Policy, holder: str, role_name: str | None, currency: str) -> tuple[Money, int]:
    """Return the grant of a holder for a period, and the most that may be carried over into it (minor units)."""
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
    opened_by = policies.get(before.policy_version) or rules  # another process may have published it a moment ago
    zone, granted = opened_by.policy.time_zone, before.opening_grant_minor > 0 or before.given_minor > 0
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
    granted_in: str | None = None,
) -> tuple[BudgetOpened, BudgetClosed | None]:
    """Return the records that open a holder's period and close the period before it.

    Carry-over comes only from the period directly before. Reservations and open escalations move to the new period. A
    budget in another currency than the policy's is granted nothing. A budget for a shorter period than the policy's
    (``Policy.next_period``) is granted at most as much as the budget before it.

    ``granted_in`` is the currency of another budget of this holder with a grant for the same time: this one is granted
    nothing.

    Two arguments undo the effects of a clock that ran ahead. ``back`` says that the new period lies before the open
    one, so nothing is carried over. ``again`` is the budget of the same period, closed before its end. The amount that
    lapsed at its closing is granted again, so that no grant is made twice.
    """
    granted, carry_limit = grant_of(rules.policy, holder, role_name, currency)
    if before is not None and kind_of(period) != rules.policy.period:
        granted = Money(min(granted.minor, before.opening_grant_minor), currency)
    if granted_in is not None:
        granted = Money(0, currency)
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
        granted_in=granted_in,
        **cause.fields(),
    )
    return opened, closing


def granted(request: GrantRequest, budget: Budget, cause: RequestContext) -> BudgetGranted:
    """Return the record of a grant.

    Raises:
        RequestError: the amount is zero, or not in the budget's currency.

    """
    _check_amount(request.amount, budget, "a grant must be above zero")
    return BudgetGranted(
        holder=budget.holder,
        period=budget.period,
        amount=request.amount,
        granted_by=request.granted_by,
        reason=request.reason,
        **cause.answer(),
    )


def grantor_charged(request: GrantRequest, per_period: Money, budget: Budget, cause: RequestContext) -> GrantorCharged:
    """Return the record that counts a grant on its grantor's budget.

    Raises:
        RequestError: the grantor has granted too much in this period already.

    """
    left = per_period.minor - budget.given_minor
    if request.amount.minor > left:
        message = (
            f"{request.granted_by} may grant {per_period.text} a period, of which "
            f"{budget.money(max(0, left)).text} is left"
        )
        raise RequestError("insufficient", message, "amount.amount")
    return GrantorCharged(
        holder=budget.holder,
        period=budget.period,
        amount=request.amount,
        granted_to=request.holder,
        limit=per_period,
        used=budget.money(budget.given_minor),
        **cause.fields(),
    )


def transferred(
    request: TransferRequest, giver: Budget, taker: Budget, cause: RequestContext
) -> tuple[BudgetTransferred, BudgetTransferred]:
    """Return the records of a transfer for the giver's and the taker's budget; the first one is the answer.

    Raises:
        RequestError: the amount is zero, in another currency or more than the giver has left, or both holders are the
            same.

    """
    _check_amount(request.amount, giver, "a transfer must be above zero")
    if giver.holder == taker.holder:
        raise RequestError("invalid", "a transfer must go to another holder", "to_holder")
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
    """Return the records of a draw on a team's pool: one for the pool's budget, one for the agent's."""
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
    """Return the record that settles a hold: the money was paid.

    Raises:
        RequestError: the amount is more than was held, or in another currency.

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
    """Return the record that settles a hold because a fact reports the payment, by no more than was held."""
    amount, beyond = total, None
    if total.minor > held.amount.minor and cause.rules_version >= _SETTLES_NO_MORE_SINCE:
        amount, beyond = held.amount, Money(total.minor - held.amount.minor, total.currency)
    return ActionSettled(
        held=Money(open_minor, total.currency),
        relates_to=position,
        beyond=beyond,
        **_posted(held, amount, budget),
        **cause.fields(),
    )


_SETTLES_NO_MORE_SINCE = 2
"""Rules of version 1 let a reported payment settle a hold above its amount."""


def settled_by_report(
    held: ActionLike, open_minor: int, reported: Money, budget: Budget, cause: RequestContext
) -> ActionSettled:
    """Return the record that settles a hold because its action was reported, by no more than was held."""
    amount = min(reported, held.amount, key=lambda one: one.minor)
    return ActionSettled(held=Money(open_minor, amount.currency), **_posted(held, amount, budget), **cause.fields())


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
    """Return the record that releases a hold without a payment."""
    return ActionVoided(
        reason=reason,
        escalation_id=escalation_id,
        **(_posted(held, Money(open_minor, held.amount.currency), budget) | {"owed": None}),
        **(cause.answer() if answers else cause.fields()),
    )


def charged(
    fact: ActionReported, action_id: str, position: int, budget: Budget, cause: RequestContext, owed: Money | None
) -> ActionCharged:
    """Return the record that posts a reported action to its budget, even where that overdraws it."""
    over = counted_minor(fact.basis, fact.amount, owed) - max(0, budget.remaining_minor)
    return ActionCharged(
        action_id=action_id,
        holder=budget.holder,
        period=budget.period,
        amount=fact.amount,
        agent_id=fact.agent_id,
        basis=fact.basis,
        owed=owed,
        customer_id=fact.customer_id,
        interaction_id=fact.interaction_id,
        overdrawn=budget.money(max(0, over)),
        relates_to=position,
        **cause.fields(),
    )


def added_by_report(
    fact: ActionReported,
    action: ActionLike,
    decided: Money,
    position: int,
    budget: Budget,
    cause: RequestContext,
    owed_minor: int | None,
) -> ActionCharged:
    """Return the record of a report about a decided action: it posts the part beyond ``decided``, often nothing.

    An amount in another currency cannot be compared, so nothing is added. ``owed_minor`` is the part of the whole
    reported amount that is owed.
    """
    comparable = fact.amount.currency == decided.currency
    added = Money(max(0, fact.amount.minor - decided.minor) if comparable else 0, decided.currency)
    owed = None
    if owed_minor is not None:
        owed = Money(min(added.minor, max(0, owed_minor - (action.owed_minor or 0))), decided.currency)
    over = counted_minor(action.basis, added, owed) - max(0, budget.remaining_minor)
    return ActionCharged(
        action_id=action.action_id,
        holder=budget.holder,
        period=budget.period,
        amount=added,
        agent_id=fact.agent_id,
        basis=action.basis,
        owed=owed,
        customer_id=action.customer_id,
        interaction_id=action.interaction_id,
        overdrawn=budget.money(max(0, over)),
        relates_to=position,
        decided=decided,
        reported=fact.amount,
        **cause.fields(),
    )


def reversed_by(
    request: ReversalRequest,
    action: ActionLike,
    left: Money,
    counted: int,
    position: int,
    budget: Budget,
    cause: RequestContext,
    *,
    late: bool,
) -> ActionReversed:
    """Return the record that reverses an action, wholly or by ``request.amount``; ``left`` is not yet reversed.

    ``counted`` is the part of it that counts as goodwill, in minor units. That part is reversed first, because what the
    customer keeps is owed as far as it was.

    Raises:
        RequestError: the amount is zero, in another currency, or more than is left of the action.

    """
    amount = request.amount if request.amount is not None else left
    _check_currency(amount, left)
    if not left.minor:
        raise RequestError("nothing_left", "nothing of this action is left to reverse", "action_id")
    if not 0 < amount.minor <= left.minor:
        message = f"reverse an amount above zero and at most {left.text}, which is left of the action"
        raise RequestError("invalid", message, "amount.amount")
    return ActionReversed(
        action_id=request.action_id,
        holder=budget.holder,
        period=budget.period,
        amount=amount,
        agent_id=action.agent_id,
        basis=action.basis,
        owed=None if action.owed_minor is None else Money(max(0, amount.minor - counted), amount.currency),
        customer_id=action.customer_id,
        interaction_id=action.interaction_id,
        recovered=request.recovered,
        reversed_by=request.reversed_by,
        reason=request.reason,
        relates_to=position,
        late=late,
        **cause.answer(),
    )


class _Posted(TypedDict):
    action_id: str
    holder: str
    period: str
    amount: Money
    agent_id: str
    basis: Basis
    owed: Money | None
    customer_id: str | None
    interaction_id: str | None


def _posted(held: ActionLike, amount: Money, budget: Budget) -> _Posted:
    return {
        "action_id": held.action_id,
        "holder": budget.holder,
        "period": budget.period,
        "amount": amount,
        "agent_id": held.agent_id,
        "basis": held.basis,
        "owed": None if held.owed_minor is None else Money(min(amount.minor, held.owed_minor), amount.currency),
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
