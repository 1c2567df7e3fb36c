"""The roles of a ledger, started together in one process or one by one."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import nats.errors

from app.runtime.announcement import remove_announcement
from app.runtime.child_processes import end_of_stdin
from config import topology
from consumers.runtime.alarm_watch import AlarmWatch
from ledger.errors import LedgerError, MissingExtraError, UnavailableError
from ledger.files import try_lock
from ledger.store.role_status import StatusResponder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from app.runtime.session import Session
    from dashboard.auth.openid import OpenIdProvider
    from dashboard.listen_address import ListenAddress
    from ledger.background_service import BackgroundService, RoleService

_log = logging.getLogger(__name__)
ROLES = topology.ROLES
WRITERS = {"intake", "decisions"}
PROBE_SOURCE = "resolution-ledger-probe"


@asynccontextmanager
async def exclusive_up(data_dir: Path) -> AsyncIterator[None]:
    """Refuse a second `up` for one data directory, whose end would remove the first one's announcement.

    An announcement from an interrupted `up` is removed first, so that no client reads a stale address.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "up.lock").open("a") as file:
        if not try_lock(file):
            raise LedgerError(f"`up` runs already for {data_dir}: use it, or name another --data-dir")
        remove_announcement(data_dir)
        yield


async def create_service(  # noqa: PLR0911 - one return a role
    session: Session,
    role: str,
    *,
    history: bool = False,
    where: ListenAddress | None = None,
) -> RoleService:
    """Return the service of a role, not yet started; only the role's own modules are imported."""
    indexes = session.data_dir / "index"
    match role:
        case "intake":
            from consumers.intake.service import IntakeService, restore_intake_index

            await restore_intake_index(session.client, indexes / "intake.sqlite")
            return IntakeService(
                session.server,
                session.client,
                session.log,
                session.rejected,
                indexes / "intake.sqlite",
                replicas=session.settings.replicas,
                routes=session.routes,
                creates=session.creates,
                admits_unregistered=session.settings.admits_unregistered,
                precedence=session.precedence,
            )
        case "decisions":
            from consumers.decisions.service import DecisionService
            from consumers.decisions.state.follower import restore_index

            await restore_index(session.client, indexes)
            reader = await session.connection("directory")
            return DecisionService(
                session.server,
                session.client,
                reader,
                session.log,
                indexes,
                history=history,
                admits_unregistered=session.settings.admits_unregistered,
                precedence=session.precedence,
            )
        case "projections":
            return _projection_service(session)
        case "guard":
            from app.runtime.plugins import load_rules
            from consumers.guard.service import GuardService

            return GuardService(session.server, session.log, session.data_dir, history=history, plugins=load_rules())
        case "seal":
            from consumers.seal.service import SealService

            secret = session.settings.seal_secret
            return SealService(session.server, session.client, session.log, session.data_dir, secret=secret)
        case "archive":
            from consumers.seal.archive_service import ArchiveService

            mirrors = not session.embedded
            return ArchiveService(session.server, session.log, session.data_dir, mirrors=mirrors)
        case "webhooks":
            return _webhook_service(session)
        case "dashboard":
            return _dashboard_service(session, where)
    raise ValueError(f"no role {role!r}")


def _projection_service(session: Session) -> RoleService:
    from app.runtime.plugins import load_views
    from app.runtime.view_builds import ViewBuilds
    from consumers.projections.service import ProjectionService

    load_views()
    admits, builds = session.settings.admits_unregistered, ViewBuilds(session.settings)
    return ProjectionService(session.server, session.log, session.views, builds.build, admits_unregistered=admits)


def _dashboard_service(session: Session, where: ListenAddress | None) -> RoleService:
    from app.runtime.plugins import load_views
    from consumers.intake.event_check import EventCheck
    from consumers.runtime.source_watch import SourceWatch
    from dashboard.listen_address import ListenAddress
    from dashboard.service import DashboardService

    load_views()
    check = EventCheck(SourceWatch(session.log, admits_unregistered=session.settings.admits_unregistered))
    at, openid = where or ListenAddress(), _openid_provider(session)
    return DashboardService(session.server, topology.LEDGER, session.data_dir, session.views, at, check, openid)


def _openid_provider(session: Session) -> OpenIdProvider | None:
    """Return the provider by which people sign in; none without the settings for it.

    Raises:
        MissingExtraError: authlib is not installed.

    """
    if session.settings.oidc_issuer is None:
        return None
    if find_spec("authlib") is None:
        raise MissingExtraError("sign-ins by OpenID Connect", "oidc")
    from dashboard.auth.openid import OpenIdProvider

    return OpenIdProvider(session.settings)


def _webhook_service(session: Session) -> RoleService:
    from consumers.webhooks.sender import MailServer
    from consumers.webhooks.service import WebhookService

    settings = session.settings
    mail = MailServer.of(settings.smtp_url, settings.mail_from) if settings.smtp_url else None
    private = settings.webhooks_to_private
    return WebhookService(session.server, session.log, session.views, private=private, mail=mail)


def has_archive_extra() -> bool:
    """Return whether the extra that writes an archive is installed."""
    return find_spec("pyarrow") is not None


def sealing_roles() -> tuple[str, ...]:
    """Return the roles that seal and archive; without the extra for Parquet, only the first."""
    if not has_archive_extra():
        _log.warning("no archive is kept: %s", MissingExtraError("Parquet files", "archive"))
        return ("seal",)
    return "seal", "archive"


@asynccontextmanager
async def running(
    session: Session, roles: Sequence[str], *, history: bool = False, where: ListenAddress | None = None
) -> AsyncIterator[list[BackgroundService]]:
    """Run these roles in this process as long as the context lasts; yield their services."""
    async with AsyncExitStack() as stack:
        services: list[BackgroundService] = []
        if WRITERS.intersection(roles):
            watch = AlarmWatch(session.client)
            stack.push_async_callback(watch.stop)
            await watch.start()
            services.append(watch)
        if roles and session.log.earlier is not None:
            await session.log.earlier.check()
        responders = {
            role: StatusResponder(session.client, topology.ROLES_SUBJECT, role, session.data_dir) for role in roles
        }
        for responder in responders.values():
            stack.push_async_callback(responder.stop)
            await responder.start()
        started: list[RoleService] = []
        stack.push_async_callback(_stop_together, started)
        for role, responder in responders.items():
            service = await create_service(session, role, history=history, where=where)
            started.append(service)
            await service.start()
            services.append(service)
            responder.open(service)
        gc.freeze()  # objects from the start live on: the collector need not scan them
        stack.callback(gc.unfreeze)  # libraries report objects that are not collected at the end of the process
        yield services


async def _stop_together(services: Sequence[RoleService]) -> None:
    """Stop services at the same time, since each may wait some seconds for a server that hangs."""
    ends = await asyncio.gather(*(service.stop() for service in services), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end


async def until_stopped(
    failures: Sequence[asyncio.Future[None]], ready: Callable[[], None], *, watch_stdin: bool = False
) -> None:
    """Wait for Ctrl-C, SIGTERM or, with ``watch_stdin``, the end of standard input.

    ``ready`` is called after the signal handlers are set.

    Raises:
        LedgerError: one of these futures failed.

    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        if sys.platform == "win32":  # its event loop has no signal handlers
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        else:
            loop.add_signal_handler(number, stop.set)
    gc.freeze()  # objects from the start live on: the collector need not scan them
    ready()
    waits: list[asyncio.Task[bool] | asyncio.Task[None]] = [asyncio.create_task(stop.wait())]
    if watch_stdin:
        waits.append(asyncio.create_task(end_of_stdin()))
    try:
        await asyncio.wait([*waits, *failures], return_when=asyncio.FIRST_COMPLETED)
        for failure in failures:
            if failure.done():
                failure.result()
    finally:
        for wait in waits:
            wait.cancel()


@asynccontextmanager
async def ensure_roles(session: Session, *roles: str, history: bool = False) -> AsyncIterator[None]:
    """Make sure that these roles answer: use those of a running `up`, else run them here.

    Events that were recorded here are sealed at the end. Nothing is recorded after a log that has lost its end.

    Raises:
        SealError: the newest sealed event is missing or has changed.
        UnavailableError: a role is missing, and the server is not embedded.

    """
    missing = [role for role in roles if not await _answers(session, role)]
    if missing and not session.embedded:
        names = ", ".join(missing)
        message = f"no process serves {names} on this NATS server: start `resolution-ledger run ROLE` for each"
        raise UnavailableError(message)
    if missing:
        from app.runtime.seal import check_sealed_end, seal_to_the_end

        await check_sealed_end(session)
    async with running(session, missing, history=history):
        yield
    if missing:
        try:
            await seal_to_the_end(session)
        except LedgerError as error:
            _log.warning("recorded events are not sealed: %s", error)


PROBES = {
    "intake": f"{topology.READ_SUBJECT}.{PROBE_SOURCE}.receipt",
    "decisions": f"{topology.DECIDE_SUBJECT}.{PROBE_SOURCE}.preview",
    "projections": f"{topology.READ_SUBJECT}.{PROBE_SOURCE}.brief",
}
"""Invalid requests on the subjects that sources use; each gets an error as its answer."""


async def answering_roles(session: Session) -> list[str]:
    """Return the roles of which a process runs, on any machine."""
    return [role for role in ROLES if await _is_there(session, f"{topology.ROLES_SUBJECT}.{role}")]


async def _answers(session: Session, role: str) -> bool:
    return await _is_there(session, PROBES[role])


async def _is_there(session: Session, subject: str) -> bool:
    try:
        await session.client.request(subject, b"{}", timeout=5)
    except nats.errors.NoRespondersError:
        return False
    except (nats.errors.Error, TimeoutError):
        return True  # a slow process subscribes
    return True
