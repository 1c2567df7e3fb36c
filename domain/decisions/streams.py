"""The logical streams that decisions write to. The decider maps each to a subject of the log."""

from __future__ import annotations

import msgspec

from domain.events.decisions import Record
from domain.events.flags import FlagEvent


class BudgetKey(msgspec.Struct, frozen=True, gc=False):
    """A holder's budgets in a currency; one of them is the newest."""

    holder: str
    currency: str


class BudgetPeriod(msgspec.Struct, frozen=True, gc=False):
    """The budget of a holder in a currency for one period."""

    holder: str
    currency: str
    period: str


class CustomerStream(msgspec.Struct, frozen=True, gc=False):
    """The stream that makes a customer's cap exact, where several deciders give to one customer."""

    customer_id: str


class OrderStream(msgspec.Struct, frozen=True, gc=False):
    """The stream that makes the owed amount of an order exact, where several deciders give it back."""

    order_id: str


class RefusalStream(msgspec.Struct, frozen=True, gc=False):
    """The stream of one request that was refused because no policy is in force."""

    source: str
    request_id: str


class FlagStream(msgspec.Struct, frozen=True, gc=False):
    """A flag and its reviews."""

    flag_id: str


class PolicyStream(msgspec.Struct, frozen=True, gc=False):
    """All published policies."""


type LoadableStream = BudgetKey | BudgetPeriod | CustomerStream | OrderStream | FlagStream | PolicyStream
type Stream = BudgetPeriod | CustomerStream | OrderStream | RefusalStream | FlagStream | PolicyStream


class NewEvent(msgspec.Struct, frozen=True):
    """An event that a decision causes."""

    stream: Stream
    record: Record | FlagEvent
    begins: bool = False
    """True where the stream must be empty before it."""
    reopens: bool = False
    """True where it opens a budget again that was closed before the end of its period."""


class StreamNotLoadedError(Exception):
    """A stream that must be loaded before the decision can be made."""

    def __init__(self, stream: LoadableStream) -> None:
        super().__init__(stream)
        self.stream = stream
