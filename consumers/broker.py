"""The FastStream broker of our services, and how a handler answers whatever happens."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from faststream.nats import NatsBroker

from domain.requests import RequestError
from domain.wire import FieldError, encode
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg

_log = logging.getLogger(__name__)


def make_broker(url: str, name: str) -> NatsBroker:
    """A broker that reconnects for ever; no logging of each message, which would halve the speed."""
    return NatsBroker(
        url.split(","),
        name=f"resolution-ledger {name}",
        logger=None,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        graceful_timeout=5,
        description="Resolution Ledger",
    )


async def answered(work: Callable[[], Awaitable[bytes]]) -> bytes:
    """The answer of this work; where it fails, an error that says so: every request gets an answer."""
    try:
        return await work()
    except RequestError as error:
        answer = error
    except FieldError as error:
        answer = RequestError(error.code, error.message, error.field or None)
    except LedgerError as error:
        answer = RequestError("unavailable", str(error))
    except Exception:  # noqa: BLE001 - logged; and whoever asked gets an answer
        _log.exception("a request failed")
        answer = RequestError("internal", "an error of ours, see the log; ask again")
    return encode(answer.wire())


def source_of(message: Msg) -> str:
    """The source's token in a request's subject, which the server's permissions vouch for."""
    return message.subject.split(".")[2]
