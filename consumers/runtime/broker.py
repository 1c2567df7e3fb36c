"""The FastStream broker of our services, and the wrapper that gives every request an answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from faststream.nats import NatsBroker
from faststream.nats.subscriber.usecases import LogicSubscriber
from nats.aio.subscription import Subscription
from nats.errors import Error

from consumers.runtime.source_tokens import refuse
from domain.commands import RequestError
from domain.serialization import FieldError, encode
from ledger import traces
from ledger.errors import LedgerError
from ledger.nats.client import PING_SECONDS, PINGS_UNANSWERED, LedgerClient, is_answerable
from ledger.nats.connection_options import options_of
from ledger.nats.incidents import report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faststream.nats import NatsMessage
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from ledger.nats.connection_options import ConnectionOptions, NatsServer

_FLUSH_SECONDS = 3
_DRAIN_SECONDS = 5.0
_ANSWER_BYTES = 900_000
"""The server closes a connection that publishes more than a megabyte."""


class _RequestClient(LedgerClient):
    """A client for requests; it drops and reports requests with a reply subject that must not be answered."""

    async def flush(self, timeout: int = _FLUSH_SECONDS) -> None:  # noqa: ASYNC109 - as nats-py has it
        """Wait until the server has all sent messages; shorter than in nats-py, which flushes twice when it ends."""
        await super().flush(timeout)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg | None:
        if reply and not is_answerable(reply):
            report("a request names a reply subject that is never answered", reply)
            return None
        return super()._build_message(sid, subject, reply, data, headers)


class _RequestBroker(NatsBroker):
    """FastStream's broker with our client instead of ``nats.connect``."""

    def __init__(self, options: ConnectionOptions, **others: Any) -> None:
        super().__init__(list(options.servers), **others)
        self._options = options

    async def _connect(self) -> Client:
        connection = _RequestClient()
        await connection.connect_to(self._options, **self._connection_kwargs)
        self.config.connect(connection)
        return connection

    async def stop(self, *error: Any) -> None:
        """Stop; a connection that is lost is closed, because it cannot be drained."""
        connection = self._connection
        try:
            await self._drain()
            await super().stop(*error)
        except Error:
            if connection is not None:
                await connection.close()

    async def _drain(self) -> None:
        """End the subscriptions once every request that the server had sent is answered.

        FastStream drops requests that arrive while it ends one subscription after the other.
        """
        ends = []
        for one in self.subscribers:
            assert isinstance(one, LogicSubscriber)  # each subscriber of a broker of NATS is one
            subscription = one.subscription
            if isinstance(subscription, Subscription):
                one.subscription = None
                ends.append(subscription.drain())  # type: ignore[no-untyped-call] # nats-py's
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await asyncio.gather(*ends, return_exceptions=True)  # one that cannot be drained leaves the others time


def make_broker(server: NatsServer, name: str) -> NatsBroker:
    """Return a broker that reconnects for ever. It does not log each message, which would halve its speed."""
    return _RequestBroker(
        options_of(server),
        name=f"resolution-ledger {name}",
        logger=None,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        graceful_timeout=5,
        description="Resolution Ledger",
        decoder=_undecoded,
        error_cb=_report_error,
        ping_interval=PING_SECONDS,
        max_outstanding_pings=PINGS_UNANSWERED,
    )


async def _undecoded(message: NatsMessage) -> object:
    """Return the body undecoded; FastStream's decoder raises on unusual content types and deeply nested JSON."""
    return message.body


async def _report_error(error: Exception) -> None:
    report("an error of a connection", error)


async def answered(
    message: NatsMessage, work: Callable[[str, bytes], Awaitable[bytes]], *, checks_token: bool = False
) -> bytes:
    """Return the answer of ``work``, which gets the source's token and the body; after an error, an error answer.

    ``checks_token``: ``work`` itself refuses invalid tokens.
    """
    raw = message.raw_message
    with traces.processing(raw.subject, raw.headers) as span:
        answer = await _answer(raw, work, checks_token=checks_token)
        if span is not None:
            span.note(answer)
    return answer


async def _answer(raw: Msg, work: Callable[[str, bytes], Awaitable[bytes]], *, checks_token: bool) -> bytes:
    token = raw.subject.split(".")[2]
    try:
        if not checks_token:
            refuse(token)
        answer = await work(token, raw.data)
    except Exception as error:  # noqa: BLE001 - every request gets an answer
        return error_answer(error)
    if len(answer) > _ANSWER_BYTES:
        return error_answer(RequestError("too_large", "the answer is too large; ask for less at once"))
    return answer


def error_answer(error: Exception) -> bytes:
    """Return the answer for an error; an unexpected error is reported as ours."""
    match error:
        case RequestError():
            answer = error
        case FieldError():
            answer = RequestError(error.code, error.message, error.field or None)
        case LedgerError() | Error():
            answer = RequestError("unavailable", str(error))
        case _:
            report("a request failed", error, error)
            answer = RequestError("internal", "an error of ours, see the log; ask again")
    answer.message = answer.message.encode(errors="replace").decode()
    return encode(answer.wire())
