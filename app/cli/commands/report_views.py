"""`report`: balances, actions and escalations from the views."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from app.cli.as_of import as_of_option, happened_option, moment_of, position_of
from app.cli.main import cli, command
from app.output import print_list
from app.runtime.plugins import load_views
from app.runtime.session import Session
from app.runtime.views import read_view
from domain.analytics.procedure_cost import long_way
from domain.money import money_text
from projections.csv_text import FIELDS
from projections.engine import temporal_tables
from projections.plugin_views import plugin_table
from projections.policy_history import policy_in_force
from projections.views import casework
from projections.views.balances import read_balances, read_happened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import sqlalchemy as sa

    from app.output import OutputFormat
    from config.settings import Settings
    from projections.engine.storage import Row
    from projections.reading import ReadResult

_ACTION = FIELDS["actions"] + " long_way$"


async def at_of(session: Session, as_of: str | None) -> int | None:
    """Return the position of ``--as-of``; none without the option."""
    if as_of is None:
        return None
    return await position_of(session.log, as_of, await session.log.last_position())


@cli.group()
def report() -> None:
    """Reports on budgets, actions, customer value and the authority gap."""


def _print_view(
    output: OutputFormat,
    title: str,
    answer: ReadResult[list[Row]],
    at: int | None,
    columns: tuple[str, ...],
    row: Callable[[Row], Sequence[object]],
    fields: str,
    numbers: tuple[int, ...] = (),
) -> None:
    """Print the rows of a view at the position ``at``, else at the view's own."""
    position, rows = answer.progress.anchor.position if at is None else at, [row(item) for item in answer.result]
    print_list(
        output, answer.result, f"{title} at position {position}", columns, rows, fields, numbers, position=position
    )


def _moneys(item: Row, *names: str) -> list[str]:
    return [money_text(item[name]) if item[name] else "" for name in names]


@click.option("--holder", help="agent:<id> or team:<id>")
@click.option("--period", help="2026-11-21, 2026-W47, 2026-11 or 2026-Q4")
@as_of_option
@happened_option
@command(report, lists=True)
async def balances(
    settings: Settings,
    holder: str | None,
    period: str | None,
    as_of: str | None,
    *,
    happened: bool,
    output: OutputFormat,
) -> None:
    """Granted, spent, reserved and remaining amounts by holder and period."""

    def read(connection: sa.Connection) -> list[Row]:
        if happened:
            return read_happened(connection, moment, holder, period)
        return read_balances(connection, holder, period, position=at)

    moment = moment_of(as_of) if happened else ""
    async with Session(settings, reads_only=True) as session:
        at = None if happened else await at_of(session, as_of)
        answer = await read_view(session, "budget_balances", read)
    columns = ("holder", "period", "granted", "spent", "reserved", "remaining", "")

    def row(item: Row) -> list[object]:
        return [item["holder"], item["period"], *_moneys(item, *columns[2:6]), "closed" if item["closed"] else ""]

    _print_view(output, "Balances", answer, at, columns, row, FIELDS["balances"], (2, 3, 4, 5))


@click.option(
    "--unsettled", "only_unsettled", is_flag=True, help="Only actions without a settlement of the same amount."
)
@click.option("--older-than", "days", type=int, default=0, show_default=True, help="Age in days, with --unsettled.")
@as_of_option
@happened_option
@command(report, lists=True)
async def actions(
    settings: Settings, days: int, as_of: str | None, *, only_unsettled: bool, happened: bool, output: OutputFormat
) -> None:
    """Actions with their state (taken, held, settled, voided, charged, reversed) and the cost of asking."""

    def read(connection: sa.Connection) -> list[Row]:
        if happened:
            return casework.read_actions_happened(connection, moment)
        source = temporal_tables.as_of(casework.actions, at)
        where = (casework.unsettled(before, source),) if only_unsettled else ()
        return casework.read_actions(connection, *where, source=source)

    before = (datetime.now(UTC) - timedelta(days=days)).isoformat() if days else "9999"
    if happened and only_unsettled:
        raise click.UsageError("--happened excludes --unsettled")
    moment = moment_of(as_of) if happened else ""
    async with Session(settings, reads_only=True) as session:
        at = None if happened else await at_of(session, as_of)
        answer = await read_view(session, "casework", read)
        policy = await policy_in_force(session.log, at)
    for item in answer.result:
        own = policy is not None and item["escalation_id"] is None and item["amount"]["currency"] == policy.currency
        saved = long_way(item["kind"], policy) if policy is not None and own else None
        item["long_way"] = saved and saved.wire()
    columns = ("action", "time", "state", "agent", "kind", "amount", "settled", "reversed", "long way")

    def row(item: Row) -> list[object]:
        amounts = _moneys(item, "amount", "settled", "reversed", "long_way")
        return [item["action_id"], item["time"][:16], item["state"], item["agent_id"], item["kind"], *amounts]

    _print_view(output, "Actions", answer, at, columns, row, _ACTION, (5, 6, 7, 8))


@click.option("--waiting", is_flag=True, help="Only undecided escalations.")
@as_of_option
@happened_option
@command(report, lists=True)
async def escalations(
    settings: Settings, as_of: str | None, *, waiting: bool, happened: bool, output: OutputFormat
) -> None:
    """Escalations with requester, approvers (or the system that handles it), waiting time and outcome."""

    def read(connection: sa.Connection) -> list[Row]:
        if happened:
            found = casework.read_escalations_happened(connection, moment)
            return [one for one in found if not waiting or one["status"] == "waiting"]
        source = temporal_tables.as_of(casework.escalations, at)
        return casework.read_escalations(
            connection, *((source.c.status == "waiting",) if waiting else ()), source=source
        )

    moment = moment_of(as_of) if happened else ""
    async with Session(settings, reads_only=True) as session:
        at = None if happened else await at_of(session, as_of)
        answer = await read_view(session, "casework", read)
    columns = ("escalation", "requested", "agent", "kind", "asked", "of", "status", "waited")

    def row(item: Row) -> list[object]:
        first = [item["escalation_id"], item["requested"][:16], item["agent_id"], item["kind"], *_moneys(item, "asked")]
        waited = "" if item["waited_seconds"] is None else f"{item['waited_seconds'] / 60:.0f} min"
        return [*first, item["reported_by"] or ", ".join(item["asked_of"]), item["status"], waited]

    _print_view(output, "Escalations", answer, at, columns, row, FIELDS["escalations"], (4, 7))


@click.argument("name", metavar="VIEW")
@click.option("--table", help="One of the view's tables. [default: its only one]")
@command(report, lists=True)
async def view(settings: Settings, name: str, table: str | None, *, output: OutputFormat) -> None:
    """Print the rows of a VIEW that another package adds."""
    load_views()
    try:
        found = plugin_table(name, table)
    except LookupError as error:
        raise click.UsageError(str(error)) from None
    async with Session(settings, reads_only=True) as session:
        answer = await read_view(session, name, found.read)
    columns = tuple(found.table.columns.keys())
    _print_view(output, found.table.name, answer, None, columns, lambda row: [*row.values()], " ".join(columns))
