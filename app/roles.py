"""The roles that make a ledger work, started together in one process or one by one."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import nats.errors

from config import topology
from consumers.decision_service import DecisionService
from consumers.intake_service import IntakeService
from consumers.projection_service import ProjectionService
from ledger.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from app.session import Session

ROLES = ("intake", "decisions", "projections")
PROBE_SOURCE = "resolution-ledger-probe"


class Service(Protocol):
    """What a role is: it starts, stops, and may fail for good."""

    failed: asyncio.Future[None]

    async def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """Leave in good order."""


async def make(session: Session, role: str, *, history: bool = False) -> Service:
    """The service of a role, not yet started."""
    indexes = session.data_dir / "index"
    match role:
        case "intake":
            return IntakeService(
                session.url, session.client, session.log, session.rejected, indexes / "intake.sqlite",
                replicas=session.settings.replicas,
            )  # fmt: skip
        case "decisions":
            lean = await session.connection("directory", lean=True)
            return DecisionService(
                session.url, session.client, lean, session.log, indexes / "decisions.sqlite", history=history
            )
        case "projections":
            return ProjectionService(session.url, session.log, session.data_dir)
    message = f"no role {role!r}"
    raise ValueError(message)


@asynccontextmanager
async def running(session: Session, roles: Sequence[str], *, history: bool = False) -> AsyncIterator[list[Service]]:
    """These roles, running in this process for as long as the context lasts."""
    async with AsyncExitStack() as stack:
        services: list[Service] = []
        for role in roles:
            service = await make(session, role, history=history)
            stack.push_async_callback(service.stop)
            await service.start()
            services.append(service)
        yield services


async def until_stopped(services: Sequence[Service]) -> None:
    """Wait for Ctrl-C or SIGTERM; a service that fails for good raises its error."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait(
            [stopping, *(service.failed for service in services)], return_when=asyncio.FIRST_COMPLETED
        )
        for service in services:
            if service.failed.done():
                service.failed.result()
    finally:
        stopping.cancel()


@asynccontextmanager
async def served(session: Session, *roles: str, history: bool = False) -> AsyncIterator[None]:
    """Make sure that these roles answer: beside a running `up` use its, alone run them here."""
    missing = [role for role in roles if not await _answers(session, role)]
    if missing and not session.embedded:
        names = ", ".join(missing)
        message = f"nobody serves {names} on this NATS server: start `resolution-ledger run ROLE` for each"
        raise UnavailableError(message)
    async with running(session, missing, history=history):
        yield


_PROBES = {
    "intake": f"{topology.READ_SUBJECT}.{PROBE_SOURCE}.receipt",
    "decisions": f"{topology.DECIDE_SUBJECT}.{PROBE_SOURCE}.preview",
}


async def _answers(session: Session, role: str) -> bool:
    try:
        await session.client.request(_PROBES[role], b"{}", timeout=5)
    except nats.errors.NoRespondersError:
        return False
    except (nats.errors.Error, TimeoutError):
        return True  # somebody is there, and slow
    return True
