"""Owed amounts: the part of an entitlement or a correction that other events show as owed for its order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.money import Money


class OrderFact(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A fact about the money of an order: paid by the customer, or given back."""

    kind: Literal["paid", "back"]
    source: str
    minor: int
    currency: str
    reference: str | None = None
    """The payment processor's own name of a refund: two facts with one reference are one refund."""
    action_id: str | None = None
    """The action that the refund pays, which counts already."""


class OrderAction(Protocol):
    """An action that names the order."""

    @property
    def action_id(self) -> str:
        """The id of the action."""

    @property
    def currency(self) -> str:
        """The currency of the action."""

    @property
    def given_minor(self) -> int:
        """The amount that the customer has of it: less what was recovered, in minor units."""


class OrderAccount(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The money of one order in one currency, in minor units."""

    paid: int = 0
    back: int = 0
    """The amount given back on any basis."""


NOTHING_PAID = OrderAccount()


def order_account(
    told: Iterable[OrderFact], actions: Iterable[OrderAction], currency: str, source: str, without: str = ""
) -> OrderAccount:
    """Return the account of an order, as it shows what is owed to a request of this source.

    A payment counts where another source recorded it: a source proves nothing to itself. Of several sources the one
    with the largest total counts, because two systems may record the same payment. All that was given back counts.
    ``without`` is the action that is decided on.
    """
    paid: dict[str, int] = {}
    refunds: dict[str, int] = {}
    back = 0
    for fact in told:
        if fact.currency != currency or fact.action_id is not None:
            continue
        if fact.kind == "paid":
            paid[fact.source] = paid.get(fact.source, 0) + fact.minor
        elif fact.reference is None:
            back += fact.minor
        else:
            refunds[fact.reference] = max(fact.minor, refunds.get(fact.reference, 0))
    paid.pop(source, None)
    given = sum(one.given_minor for one in actions if one.currency == currency and one.action_id != without)
    return OrderAccount(max(paid.values(), default=0), back + sum(refunds.values()) + given)


def shown(owed: Money, of: Money, *, by_policy: bool = False) -> str:
    """Return the owed part in words, e.g. ``48.00 of 60.00 is shown as owed; the rest counts as goodwill``."""
    proof = "needs no proof by basis_limits" if by_policy else "is shown as owed"
    rest = "" if owed.minor == of.minor else "; the rest counts as goodwill"
    return f"{owed.text} of {of.text} {proof}{rest}"
