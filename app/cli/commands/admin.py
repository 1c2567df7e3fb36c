"""`admin`: its commands by module, and the examination of a ledger, which health checks call every minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.main import CommandFinding, LazyGroup, cli, command
from app.output import print_list
from app.runtime.session import Session
from config import topology
from ledger.errors import OtherDirectoryError

if TYPE_CHECKING:
    from app.output import OutputFormat
    from config.settings import Settings

_COMMANDS = {
    "alarm": ("admin_seal",),
    "archive": ("admin_seal",),
    "asyncapi": ("admin_records",),
    "certificates": ("admin_nats",),
    "doctor": ("admin",),
    "forget": ("admin_privacy",),
    "hold": ("admin_privacy",),
    "inbox": ("admin_nats",),
    "init": ("admin_records",),
    "keys": ("admin_privacy",),
    "policy": ("admin_records",),
    "projections": ("admin_records",),
    "rejected": ("admin_records",),
    "restore": ("admin_seal",),
    "schema": ("admin_records",),
    "scrub": ("admin_seal",),
    "seal": ("admin_seal",),
    "sources": ("admin_sources",),
    "tokens": ("admin_tokens",),
    "upgrade": ("admin_nats",),
    "webhooks": ("admin_webhooks",),
}


@cli.group(cls=LazyGroup, modules=_COMMANDS)
def admin() -> None:
    """Operate a ledger."""


@click.option(
    "--role", "roles", multiple=True, type=click.Choice(topology.ROLES), help="Check this role alone; repeatable."
)
@click.option("--here", is_flag=True, help="With --role: a process on this host must have it, for health checks.")
@click.option("--at-rest", is_flag=True, help="Check only stored data; no role needs to run.")
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0, 600),
    metavar="SECONDS",
    help="Time limit for a role's answer. [default: 15, with --role 1]",
)
@command(admin, lists=True)
async def doctor(
    settings: Settings,
    roles: tuple[str, ...],
    *,
    here: bool,
    at_rest: bool,
    seconds: float | None,
    output: OutputFormat,
) -> None:
    """Check server, streams, roles, clocks, views, seal, archive and inboxes. Exit status 1 on a finding.

    Roles are asked over NATS, wherever they run. Nothing is created, changed or recorded.
    """
    from app.health.check import Check
    from app.health.examination import examine, examine_roles
    from app.health.role_checks import ANSWER_SECONDS

    if (roles and at_rest) or (here and not roles):
        raise click.UsageError("--here needs --role, and --at-rest excludes it")
    try:
        async with Session(settings, reads_only=True, examines=True) as session:
            if roles:
                checks = await examine_roles(session, roles, patience=1.0 if seconds is None else seconds, here=here)
            else:
                checks = await examine(
                    session, patience=ANSWER_SECONDS if seconds is None else seconds, at_rest=at_rest
                )
    except OtherDirectoryError as error:
        checks = [Check("data directory", str(error), ok=False)]
    items, well = [check._asdict() for check in checks], all(check.ok for check in checks)
    rows = [(check.check, "ok" if check.ok else "WRONG", check.says) for check in checks]
    print_list(output, items, "Doctor", ("check", "", "says"), rows, "check says ok", ok=well)
    if not well:
        raise CommandFinding
