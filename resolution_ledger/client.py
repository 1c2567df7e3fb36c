"""A typed async client for systems that report facts and ask for decisions, over NATS or HTTP alike.

::

    async with Client("nats://user:password@ledger:4222", source="crm") as ledger:
        request = ActionRequest(
            request_id="case-17-refund", agent_id="A-7", kind="refund", amount=Money.parse("5.00", "GBP"), reason="late"
        )
        answer = await ledger.decide(request)
        if answer.outcome == "taken":
            ...  # give it to the customer

The URL's scheme chooses the way; over HTTP the client needs a token of the source. A call is repeated with the same id
until it is answered, for ``patience_seconds``: a retry never acts twice. Errors are in ``resolution_ledger.errors``.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self, overload

import msgspec

from domain.commands import (
    ActionRequest,
    EscalationAsk,
    EscalationDecision,
    HoldRequest,
    Preview,
    ReversalRequest,
)
from domain.documents.replies import ANSWERS, Brief, EventOutcome, NotificationList
from domain.events.facts import FACTS, Fact
from domain.serialization import Instant, decoder_of, encode
from resolution_ledger.connections import connection_to
from resolution_ledger.errors import NoAnswerError, error_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from domain.documents.replies import (
        ActionAnswer,
        ErrorDetail,
        EscalationAnswer,
        HoldAnswer,
        KeptNotice,
        PreviewAnswer,
        ReversalAnswer,
    )
    from domain.serialization import Json
    from ledger.nats.connection_options import NatsServer

_BATCH = 1000
"""The most events of one request over HTTP."""
_LOOK_SECONDS = 0.5
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0
_TYPES = {cls: name for name, cls in FACTS.items()}
_OPERATIONS: dict[type, str] = {
    ActionRequest: "action",
    HoldRequest: "hold",
    ReversalRequest: "reversal",
    EscalationAsk: "escalation",
    EscalationDecision: "escalation",
    Preview: "preview",
}


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact to publish: an instance of a class of ``resolution_ledger.facts``, with an id of the source's choice.

    A repetition with the same id and content has no effect.
    """

    id: str
    fact: Fact
    time: Instant | None = None
    sequence: int | str | None = None


class Client:
    """A connection to a ledger in the name of one source; use it as an async context manager, from one event loop.

    Instead of a URL, ``url`` may be the options of a connection over NATS, with credentials in files.
    ``timeout_seconds`` limits one attempt, ``patience_seconds`` all attempts of a call.
    """

    def __init__(
        self,
        url: NatsServer,
        *,
        source: str,
        token: str | None = None,
        timeout_seconds: float = 5,
        patience_seconds: float = 30,
    ) -> None:
        self.source = source
        self._patience = patience_seconds
        self._connection = connection_to(url, source, token, timeout_seconds)

    async def __aenter__(self) -> Self:
        await self._repeated(self._connection.open)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._connection.close()

    async def publish(self, event: NewEvent) -> EventOutcome:
        """Publish a fact; return its receipt once it is durable in the inbox.

        Raises:
            EventsRejectedError: the intake would reject it; nothing was published.
            NoAnswerError: it is not known to be durable; repeat the call.

        """
        return (await self.publish_batch([event]))[0]

    async def publish_batch(self, events: Sequence[NewEvent]) -> list[EventOutcome]:
        """Publish facts in order; return their receipts. Raises as ``publish``, for each thousand events."""
        bodies = [self._cloud_event(event) for event in events]
        found: list[EventOutcome] = []
        for first in range(0, len(bodies), _BATCH):
            part = bodies[first : first + _BATCH]
            found += await self._repeated(partial(self._connection.publish, part))
        return found

    @overload
    async def decide(self, request: ActionRequest) -> ActionAnswer: ...
    @overload
    async def decide(self, request: HoldRequest) -> HoldAnswer: ...
    @overload
    async def decide(self, request: ReversalRequest) -> ReversalAnswer: ...
    async def decide(
        self, request: ActionRequest | HoldRequest | ReversalRequest
    ) -> ActionAnswer | HoldAnswer | ReversalAnswer:
        """Request a decision; return the first answer that this ``request_id`` got.

        Raises:
            RejectedError: nothing was recorded; ``code``, ``field`` and ``remedy`` name the correction.
            NoAnswerError: no answer came; repeat the call.

        """
        answer: ActionAnswer | HoldAnswer | ReversalAnswer = await self._ask(request, request.request_id)
        return answer

    async def preview(self, request: Preview) -> PreviewAnswer:
        """Return the decision that a request would get, or without an amount the most that is available."""
        answer: PreviewAnswer = await self._ask(request, request.request_id)
        return answer

    async def escalate(self, request: EscalationAsk | EscalationDecision) -> EscalationAnswer:
        """Request an approver's authority for an action, or decide, withdraw or forward an escalation."""
        answer: EscalationAnswer = await self._ask(request, request.request_id)
        return answer

    async def brief(self, agent_id: str, *, customer_id: str | None = None, interaction_id: str | None = None) -> Brief:
        """Return a customer's matters, and what the agent may give now."""
        named = {"agent_id": agent_id, "customer_id": customer_id, "interaction_id": interaction_id}
        return await self._read(Brief, "brief", {name: one for name, one in named.items() if one is not None})

    async def receipt(self, event_id: str, *, wait_seconds: float = 0) -> EventOutcome:
        """Return the outcome of an event; ``wait_seconds``: as long as it is pending."""
        until = time.monotonic() + wait_seconds
        while True:
            found = await self._read(EventOutcome, "receipt", {"id": event_id})
            if found.status != "pending" or time.monotonic() >= until:
                return found
            await asyncio.sleep(_FIRST_PAUSE_SECONDS)

    async def notifications(self, after: int = 0, *, poll_seconds: float = 1) -> AsyncIterator[KeptNotice]:
        """Yield each step of the escalations that this source filed, as it happens, for ever.

        ``after`` is the ``seq`` of the last one that the listener has handled; notifications are kept for seven days.
        """
        while True:
            found = await self._read(NotificationList, "notifications", {"after": after})
            for one in found.items:
                yield one
            after = max(after, found.next or 0)
            if found.complete is not False:
                await asyncio.sleep(poll_seconds)

    async def escalation(self, escalation_id: str, *, wait_seconds: float = 0) -> KeptNotice | None:
        """Return the last step of an escalation that this source filed; none if none is kept.

        ``wait_seconds``: as long as it is undecided. Steps are kept for seven days.
        """
        until, after, last = time.monotonic() + wait_seconds, 0, None
        while True:
            found = await self._read(NotificationList, "notifications", {"after": after})
            last = next((one for one in reversed(found.items) if one.escalation_id == escalation_id), last)
            after = max(after, found.next or 0)
            if found.complete is False:
                continue
            is_open = last is None or last.status in {"requested", "forwarded"}
            if not is_open or time.monotonic() >= until:
                return last
            await asyncio.sleep(_LOOK_SECONDS)

    def _cloud_event(self, event: NewEvent) -> bytes:
        attributes: dict[str, Json] = {"specversion": "1.0", "id": event.id, "source": self.source}
        attributes |= {"type": _TYPES[type(event.fact)], "data": event.fact}
        more = {"time": event.time, "sequence": event.sequence}
        return encode(attributes | {name: value for name, value in more.items() if value is not None})

    async def _ask(self, request: msgspec.Struct, key: str | None) -> Any:
        operation = _OPERATIONS[type(request)]
        return await self._answered(
            ANSWERS[operation], lambda: self._connection.decide(operation, encode(request), key)
        )

    async def _read[T](self, answer: type[T], reading: str, query: Mapping[str, Json]) -> T:
        return await self._answered(answer, lambda: self._connection.read(reading, query))

    async def _answered[T](self, wanted: type[T], ask: Callable[[], Awaitable[bytes]]) -> T:
        """Return the decoded answer; an answer that is an error is raised, or asked for again."""

        async def once() -> T:
            answer = decoder_of(wanted).decode(await ask())
            error: ErrorDetail | None = getattr(answer, "error", None)
            if error is not None and getattr(answer, "status", None) != "rejected":
                raise error_of(error.code, error.message, error.field)
            return answer

        return await self._repeated(once)

    async def _repeated[T](self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the result of the first attempt that is answered, within the patience."""
        until, pause = time.monotonic() + self._patience, _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await attempt()
            except NoAnswerError:
                if time.monotonic() + pause > until:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
