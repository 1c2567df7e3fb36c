"""`up`, `run`, `demo` and `mcp`."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

import resolution_ledger
from app.cli.main import CommandFinding, cli, command
from app.output import console, print_json
from app.runtime.announcement import FILE, announce, remove_announcement
from app.runtime.child_processes import keep_running, lower_priority
from app.runtime.plugins import load_rules, load_views
from app.runtime.roles import ROLES, exclusive_up, running, sealing_roles, until_stopped
from app.runtime.server_options import server_options
from app.runtime.session import Session
from app.runtime.source_users import source_options, update_users
from dashboard.listen_address import LOOPBACK, ListenAddress, token_of
from ledger import traces
from ledger.errors import LedgerError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from config.settings import Settings

_MCP_PATIENCE_SECONDS = 10
_ANSWERING = frozenset(("dashboard", "decisions"))
"""The roles whose answers people wait for."""
_FILE = click.Path(exists=True, dir_okay=False)


def _address_options[F: Callable[..., object]](function: F) -> F:
    for option in (
        click.option(
            "--port", type=click.IntRange(0, 65535), help="Port of the HTTP API. [default: 8321, or any free one]"
        ),
        click.option("--host", default=LOOPBACK, show_default=True, help="IP address of the HTTP API."),
        click.option("--tls-cert", "certificate", type=_FILE, help="Certificate (PEM, with its chain) for TLS."),
        click.option("--tls-key", "key", type=_FILE, help="Key of the certificate (PEM)."),
        click.option(
            "--trusted-proxy",
            "trusted_proxies",
            multiple=True,
            metavar="ADDRESS",
            envvar="RESOLUTION_LEDGER_TRUSTED_PROXY",
            help="A proxy or network whose X-Forwarded-For is trusted; repeatable.",
        ),
        click.option(
            "--allowed-host",
            "allowed_hosts",
            multiple=True,
            metavar="NAME",
            envvar="RESOLUTION_LEDGER_ALLOWED_HOST",
            help="A host name of the HTTP API in addition to localhost and its addresses; repeatable.",
        ),
        click.option("--behind-proxy", is_flag=True, help="A proxy in front terminates TLS."),
    ):
        function = option(function)
    return function


def _loop(roles: Sequence[str], **_options: object) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop for roles that people wait for; it takes less CPU a message and a socket."""
    if _ANSWERING.isdisjoint(roles):
        return None
    try:
        import uvloop
    except ModuleNotFoundError:  # not available on Windows
        return None
    return uvloop.new_event_loop


@_address_options
@click.option("--history", is_flag=True, help="Use the client's event time instead of the server's clock.")
@command(cli, json=False)
async def up(settings: Settings, *, history: bool, **address: Any) -> None:
    """Run everything: embedded NATS, intake, decisions, views, guard, seal, archive, HTTP API. Ctrl-C stops it."""
    await _up(settings, ListenAddress(**address).checked(), history=history)


async def _up(settings: Settings, where: ListenAddress, *, history: bool = False, guards_history: bool = False) -> None:
    """Run everything; ``guards_history``: the guard alone uses event times, as it did for events recorded already."""
    load_views()  # a plug-in that cannot be used is refused here; the roles that use it run in processes of their own
    load_rules()
    exported = traces.exported(resolution_ledger.__version__)
    async with exported, exclusive_up(settings.folder), Session(settings) as session:
        await update_users(session)
        listening = where.bound()  # held here, so that the port stays ours while its process restarts
        # Views, guard, seal and dashboard run in other processes, so that decisions do not wait for them.
        beside = [
            asyncio.create_task(keep_running(["run", *roles], settings, descriptors))
            for roles, descriptors in (
                (("projections",), ()),
                (("guard", *(("--history",) if history or guards_history else ())), ()),
                ((*sealing_roles(), "webhooks"), ()),
                (("dashboard", *where.options(listening.fileno())), (listening.fileno(),)),
            )
        ]
        try:
            async with running(session, ("intake", "decisions"), history=history) as services:
                announce(session.data_dir, session.upstream_server, where.url(listening), token_of(session.data_dir))
                message = f"resolution-ledger is up: see {session.data_dir}/connection.json"
                try:
                    await until_stopped(
                        [session.failed, *(one.failed for one in services)], lambda: console.print(message)
                    )
                finally:
                    remove_announcement(session.data_dir)
                    _cancel(beside)  # they end while intake and decisions do
        finally:
            listening.close()
            _cancel(beside)
            await asyncio.gather(*beside, return_exceptions=True)


def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks once: a second cancellation would end their waiting for their processes."""
    for task in tasks:
        if not task.cancelling():
            task.cancel()


@click.argument("roles", metavar="ROLE...", nargs=-1, required=True, type=click.Choice(ROLES))
@click.option("--history", is_flag=True, help="Use the client's event time instead of the server's clock.")
@_address_options
@click.option("--descriptor", type=int, hidden=True, help="File descriptor of a listening socket, for `dashboard`.")
@click.option("--with-parent", is_flag=True, hidden=True, help="End when standard input ends.")
@command(cli, json=False, loop=_loop)
async def run(settings: Settings, roles: tuple[str, ...], *, history: bool, with_parent: bool, **address: Any) -> None:
    """Run one or more ROLEs in one process.

    Roles: intake records the facts that sources publish; decisions answers their requests; projections builds the
    views; guard looks for misuse; seal signs the log; archive writes the log to Parquet files; webhooks sends
    events to subscribers; dashboard serves the HTTP API and the page.
    """
    if with_parent and _ANSWERING.isdisjoint(roles):
        lower_priority()
    async with (
        traces.exported(resolution_ledger.__version__),
        # A child process creates no ledger if its folder was moved.
        Session(settings, reads_only=with_parent, creates=False, below_up=with_parent) as session,
        running(session, roles, history=history, where=ListenAddress(**address)) as services,
    ):
        message = "" if with_parent else f"{', '.join(roles)} runs\n"
        await until_stopped(
            [session.failed, *(one.failed for one in services)],
            lambda: console.print(message, end=""),
            watch_stdin=with_parent,
        )


@click.option("--no-serve", is_flag=True, help="Exit after the summary instead of serving the page.")
@click.option("--seed", type=int, default=8, show_default=True, help="The same seed gives the same organisation.")
@click.option("--days", type=click.IntRange(1, 90), default=90, show_default=True, help="Days of the ninety.")
@command(cli)
async def demo(settings: Settings, seed: int, days: int, *, no_serve: bool, as_json: bool) -> None:
    """Simulate an organisation for ninety days, print a summary, and serve the page."""
    from app.demo.run import run_demo

    try:
        summary = await run_demo(settings, seed=seed, days=days, quiet=as_json)
    except LedgerError as error:
        raise CommandFinding(str(error)) from error
    if as_json:
        print_json(summary)
    if no_serve or settings.nats_url is not None:  # on your own server, roles are started separately
        return
    told = asyncio.create_task(_print_address(settings, quiet=as_json))
    try:
        await _up(settings, ListenAddress(), guards_history=True)
    finally:
        told.cancel()


async def _print_address(settings: Settings, *, quiet: bool) -> None:
    """Print the page's address after `up` has announced it."""
    file = settings.folder / FILE
    while not file.exists():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.1)
    found = json.loads(file.read_text(encoding="utf-8"))
    if not quiet:
        console.print(f"The page: {found['http_url']}, token {found['http_token']} (Ctrl-C ends it)", soft_wrap=True)


@click.option("--agent", required=True, metavar="EMPLOYEE", help="The AI agent's employee id.")
@click.option("--source", required=True, help="The registered source that the agent acts through.")
@command(cli, json=False)
async def mcp(settings: Settings, source: str, agent: str) -> None:
    """Serve the Model Context Protocol on standard input and output, for one AI agent.

    A program that runs the agent starts this command. The ledger runs elsewhere: `up` with this data directory, or the
    server of --nats-url, with the source's own user.
    """
    try:
        from app.mcp_server import AgentDesk, make_server
    except ModuleNotFoundError as error:
        raise MissingExtraError("AI agents", "mcp") from error
    options = server_options(settings) or source_options(settings.folder, source)
    async with resolution_ledger.Client(options, source=source, patience_seconds=_MCP_PATIENCE_SECONDS) as client:
        await make_server(AgentDesk(client, agent), resolution_ledger.__version__).run_stdio_async()
