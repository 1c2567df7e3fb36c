"""`up`, `run` and `demo`."""

from __future__ import annotations

import asyncio

import click

from app.cli import Finding, cli, command
from app.output import console, print_json
from app.roles import ROLES, keep_running, only_one, running, until_stopped
from app.session import Session
from config.settings import Settings, settings_as_options
from dashboard.address import HOST, bound, token_of
from ledger.errors import LedgerError


@click.option("--port", type=click.IntRange(0, 65535), help="Port of the HTTP API. [default: 8321, or any free one]")
@click.option("--history", is_flag=True, help="Let the times of requests rule, for simulations and migrations.")
@command(cli, json=False)
async def up(settings: Settings, port: int | None, *, history: bool) -> None:
    """Run everything here: embedded NATS, intake, decisions, views, guard, seal, archive, HTTP. Ctrl-C stops it."""
    async with Session(settings) as session, only_one(session):
        listening = bound(port)  # held here, so that nobody takes it while its process starts again
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        # Views fold, the seal signs and people read in processes of their own, so that no decision waits for them.
        beside = [
            asyncio.create_task(keep_running(["run", *roles, *settings_as_options(settings)], descriptors))
            for roles, descriptors in (
                (("projections",), ()),
                (("guard", *(("--history",) if history else ())), ()),
                (("seal", "archive"), ()),
                (("dashboard", "--descriptor", str(listening.fileno())), (listening.fileno(),)),
            )
        ]
        try:
            async with running(session, ("intake", "decisions"), history=history) as services:
                session.announce(address, token_of(session.data_dir))
                says = f"resolution-ledger is up: {session.data_dir}/connection.json says where"
                try:
                    await until_stopped(services, lambda: console.print(says))
                finally:
                    session.withdraw()
        finally:
            listening.close()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)


@click.argument("roles", metavar="ROLE...", nargs=-1, required=True, type=click.Choice(ROLES))
@click.option("--history", is_flag=True, help="Let the times of requests rule, for simulations and migrations.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of `dashboard`. [default: 8321, or any free one]")
@click.option("--descriptor", type=int, hidden=True, help="Of a socket that listens already, for `dashboard`.")
@click.option("--with-parent", is_flag=True, hidden=True, help="End when standard input ends.")
@command(cli, json=False)
async def run(
    settings: Settings, roles: tuple[str, ...], port: int | None, descriptor: int | None, *, history: bool,
    with_parent: bool,
) -> None:  # fmt: skip
    """Run one role in a process of its own, or several in one."""
    async with (
        Session(settings) as session,
        running(session, roles, history=history, port=port, descriptor=descriptor) as services,
    ):
        says = "" if with_parent else f"{', '.join(roles)} runs\n"
        await until_stopped(services, lambda: console.print(says, end=""), watch_stdin=with_parent)


@click.option("--no-serve", is_flag=True, help="End after the summary (the page it serves comes later).")
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed gives the same organisation.")
@click.option("--days", type=click.IntRange(1, 366), default=90, show_default=True, help="How many days it lives.")
@command(cli)
async def demo(settings: Settings, seed: int, days: int, *, no_serve: bool, as_json: bool) -> None:
    """An organisation's ninety days, published and decided like any upstream's, then a summary."""
    from app.demo.run import run_demo

    del no_serve  # it never serves: the page comes with the dashboard
    try:
        summary = await run_demo(settings, seed=seed, days=days, quiet=as_json)
    except LedgerError as error:
        raise Finding(str(error)) from error
    if as_json:
        print_json(summary)
