"""Polling: wait until a running ledger has got somewhere, and no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from app.runtime.session import Session
from config import topology
from ledger.store.log import Recorded
from ledger.store.role_status import ask_roles
from ledger.store.streams import js_api, stream_names


async def eventually[T](
    look: Callable[[], Awaitable[T]],
    holds: Callable[[T], object] = bool,
    timeout_seconds: float = 20,
    *,
    passing: tuple[type[Exception], ...] = (),
    every_seconds: float = 0.02,
) -> T:
    """Call ``look`` until ``holds`` accepts its result; return that result.

    Errors in ``passing`` count as "not yet". Once the time has passed, raises AssertionError with the last result or
    error.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        last: object
        try:
            if holds(found := await look()):
                return found
            last = found
        except passing as error:
            last = error
        assert time.monotonic() < deadline, f"still {last!r} after {timeout_seconds} seconds"
        await asyncio.sleep(every_seconds)


async def wait_until(condition: Callable[[], object], timeout_seconds: float = 20) -> None:
    """Call ``condition`` until it is true, while the event loop goes on."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true after {timeout_seconds} seconds"
        await asyncio.sleep(0.02)


def block_until(condition: Callable[[], object], timeout_seconds: float = 20) -> None:
    """Call ``condition`` until it is true, in a test without an event loop."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true after {timeout_seconds} seconds"
        time.sleep(0.02)


async def wait_for_intake(session: Session) -> None:
    """Wait until every message of every inbox is acknowledged; after a crash redelivery takes 30 seconds."""

    async def unacknowledged() -> int:
        count = 0
        for name in topology.inbox_streams(await stream_names(session.client)):
            info = await js_api(session.client, f"CONSUMER.INFO.{name}.{topology.INTAKE_CONSUMER}")
            count += int(info.get("num_pending", 0)) + int(info.get("num_ack_pending", 0))
        return count

    await eventually(unacknowledged, lambda count: count == 0, timeout_seconds=60)


async def read_rejections(session: Session) -> list[Recorded]:
    """Wait until the intake is done; return all messages that it refused, encrypted, in their order.

    It stores the refusals of a batch after the batch's events, so a receipt of an event does not say that a refusal
    beside it can be read.
    """
    await wait_for_intake(session)
    return await session.rejected.read_subject("rejected.>")


async def wait_for_processes(session: Session, role: str, number: int) -> None:
    """Wait until so many processes with a role have started: each answers for its status and names its instance."""

    async def instances() -> set[str]:
        answers = await ask_roles(session.client, topology.ROLES_SUBJECT, {role: 0.5})
        return {status.instance for status in answers[role].statuses if not status.starting}

    await eventually(instances, lambda found: len(found) >= number, timeout_seconds=60, every_seconds=0.1)


async def count_inbox_messages(session: Session) -> int:
    """Return the number of messages that all inboxes hold, acknowledged or not."""
    names = topology.inbox_streams(await stream_names(session.client))
    infos = [await js_api(session.client, f"STREAM.INFO.{name}") for name in names]
    return sum(int(info["state"]["messages"]) for info in infos)
