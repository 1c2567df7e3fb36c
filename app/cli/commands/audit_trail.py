"""`audit`: the audit trail, explanations of actions, and the events themselves."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.as_of import as_of_option, happened_option, moment_of, position_of
from app.cli.main import cli, command
from app.cli.read_audit import by_option, note_reading
from app.output import console, fail, print_json, print_list, print_table
from app.runtime.access_records import note_access
from app.runtime.session import Session
from app.runtime.views import open_view, read_view
from domain.money import money_text
from domain.serialization import encode
from ledger.encryption.keyring import Keyring
from ledger.store.log import digest_of as digest
from ledger.store.subscription import Follower, ReadCursor
from projections.amount_ranges import read_amounts
from projections.csv_text import FIELDS
from projections.engine import storage
from projections.engine.pages import PageRequest
from projections.reports.explanation import action_of_escalation
from projections.reports.explanation import explain as explain_action
from projections.reports.explanation_text import story_of
from projections.views.audit_trail import Trail, read_trail
from projections.views.balances import read_balances, read_making
from projections.views.flags import read_flags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa

    from app.output import OutputFormat
    from config.settings import Settings
    from projections.engine.storage import Row

_BALANCE = "holder period granted$ spent$ reserved$ remaining$ granted_in_period$ opened closed position happened what"


@cli.group()
def audit() -> None:
    """Events, explanations and proofs: each action, its authority and its evidence."""


@click.option("--interaction", help="Events that name this interaction.")
@click.option("--action", help="Events that name this action.")
@click.option("--agent", help="Events that name this agent.")
@click.option("--customer", help="Events that name this customer.")
@click.option("--order", help="Events about this order.")
@click.option("--amount", help="Events with this amount (45.00 GBP), or one in a range (40.00 to 50.00 GBP).")
@click.option("--limit", type=int, help="The most events to list.")
@click.option("--after", type=int, default=0, help="Only events after this position.")
@as_of_option
@happened_option
@by_option
@command(audit, lists=True)
async def trail(
    settings: Settings,
    limit: int | None,
    after: int,
    as_of: str | None,
    by: str | None,
    amount: str | None,
    *,
    happened: bool,
    output: OutputFormat,
    **named: str | None,
) -> None:
    """List events in order, with positions; only those that name all given ids."""
    try:
        amounts = None if amount is None else read_amounts(amount)
    except ValueError as error:
        raise click.UsageError(f"--amount: {error}") from None
    wanted = [(kind, name) for kind, name in named.items() if name is not None]
    async with Session(settings, reads_only=True) as session, open_view(session, Trail.name) as connection:
        position = storage.read_progress(connection).anchor.position
        moment = moment_of(as_of) if happened else None
        if as_of is not None and not happened:
            position = await position_of(session.log, as_of, position)
        about = [f"{kind}:{name}" for kind, name in wanted if kind not in ("interaction", "order")]
        await note_reading(session.log, about, position, by)
        items = read_trail(connection, wanted, PageRequest(limit, after, at=position), moment, amounts)
    columns = ("position", "time", "who", "whom", "interaction", "what")
    rows = [
        (item["position"], item["time"][:19], item["who"], item["whom"], item["interaction_id"], item["what"])
        for item in items
    ]
    print_list(
        output,
        items,
        f"Audit trail at position {position}",
        columns,
        rows,
        FIELDS["trail"],
        numbers=(0,),
        position=position,
    )


@by_option
@click.argument("action")
@command(audit)
async def explain(settings: Settings, action: str, by: str | None, *, as_json: bool) -> None:
    """Explain an ACTION: the request, the rules and the budget at that time, and the events after it.

    The id of an escalation stands for the action that came of it.
    """
    async with Session(settings, reads_only=True) as session:
        async with open_view(session, Trail.name) as connection:
            found = await explain_action(session.log, connection, action)
            missing = "" if found else _missing_action(connection, action)
            position = storage.read_progress(connection).anchor.position
        shown = encode(found["action"] if found else None)
        raised: list[Row] = []
        if found is not None:
            await note_reading(session.log, [f"action:{found['action_id']}"], position, by)
            at, now = found["position"], datetime.now(UTC)
            raised = (await read_view(session, "flags", lambda c: read_flags(c, now, position=at))).result
        revealed = await (await Keyring.open(session.client)).decrypt_fields(shown)
    if found is None:
        fail(missing, code="unknown_action", as_json=as_json)
    found["action"] = json.loads(revealed)
    if as_json:
        print_json({**found, "flags": raised, "position_of_view": position})
        return
    print_table(found["action_id"], ("", ""), story_of(found))
    _print_lines(
        "Its escalation",
        found.get("escalation", ()),
        ("position", "time", "what", "decided_by", "waited_seconds"),
    )
    _print_lines("Later events", found["after"], ("position", "time", "who", "what"))
    _print_lines("Flags", raised, ("position", "rule", "status", "explanation"))
    _print_lines("Corrected", found.get("corrected", ()), ("position", "known_then", "known_now"))
    _print_lines("Its interaction", found.get("interaction", ()), ("position", "time", "who", "what"))


def _missing_action(connection: sa.Connection, action: str) -> str:
    """Return the sentence about an id under which no action was taken."""
    asked_for = action_of_escalation(connection, action)
    if asked_for is None:
        return f"no action {action} is recorded"
    return (
        f"{action} is an escalation, and its action {asked_for} was not taken: see "
        f"`resolution-ledger audit trail --action {asked_for}`"
    )


def _print_lines(title: str, lines: Sequence[Mapping[str, object]], columns: tuple[str, ...]) -> None:
    if lines:
        rows = [tuple(_cell(line.get(column), column) for column in columns) for line in lines]
        print_table(title, columns, rows, numbers=(0,))


def _cell(value: object, column: str) -> object:
    return value[:19] if column == "time" and isinstance(value, str) else value


@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@by_option
@click.argument("action")
@command(audit)
async def case(settings: Settings, action: str, file: Path, by: str | None, *, as_json: bool) -> None:
    """Write one offline FILE (HTML) about an ACTION: its story, its events with proofs, keys, and how to check them."""
    from app.runtime.seal import from_seal
    from projections.reports.case_file import case_document, case_page
    from projections.reports.decision_foundation import foundation_of

    async with Session(settings, reads_only=True) as session:
        async with open_view(session, Trail.name) as connection:
            found = await explain_action(session.log, connection, action)
            missing = "" if found else _missing_action(connection, action)
            foundation = await foundation_of(session.log, connection, found["position"]) if found else None
        if found is None:
            fail(missing, code="unknown_action", as_json=as_json)
        await note_reading(session.log, [f"action:{found['action_id']}"], found["position"], by)
        explained = found
        document = await from_seal(session, lambda seal: case_document(explained, foundation, seal))
        await note_access(session, f"export: case file of {found['action_id']}")
    file.write_text(case_page(document), encoding="utf-8")
    if as_json:
        print_json({"file": str(file), "events": len(document["proofs"])})
    else:
        console.print(f"{file}: {len(document['proofs'])} events, each with its proof. Check them with:", markup=False)
        click.echo(f"resolution-ledger audit verify-proof {file} --key {document['verifier_keys'][-1]}")


@click.argument("period")
@click.argument("holder")
@command(audit, lists=True)
async def balance(settings: Settings, holder: str, period: str, *, output: OutputFormat) -> None:
    """List the events that make the balance of HOLDER (agent:<id>, team:<id>) in PERIOD, with each result."""
    async with Session(settings, reads_only=True) as session:
        answer = await read_view(session, "budget_balances", lambda c: read_making(c, holder, period))
        if not answer.result:
            budgets = (await read_view(session, "budget_balances", lambda c: read_balances(c, holder))).result
            fail(_missing_budget(holder, period, budgets), code="unknown_budget", as_json=output == "json")
        positions = [one["position"] for one in answer.result]
        lines = await read_view(
            session,
            Trail.name,
            lambda c: {at: read_trail(c, page=PageRequest(1, at - 1))[0]["what"] for at in positions},
        )
    items = [one | {"what": lines.result[one["position"]]} for one in answer.result]
    columns = ("position", "what", "granted", "spent", "reserved", "remaining")
    rows = [(one["position"], one["what"], *(money_text(one[name]) for name in columns[2:])) for one in items]
    position, title = answer.progress.anchor.position, f"Events of the balance of {holder} in {period}"
    print_list(output, items, title, columns, rows, _BALANCE, numbers=(0, 2, 3, 4, 5), position=position)


def _missing_budget(holder: str, period: str, budgets: Sequence[Row]) -> str:
    """Return the sentence about a holder without a budget in a period; ``budgets`` are those of other periods."""
    if budgets:
        return f"{holder} has no budget in {period}: its periods are {', '.join(one['period'] for one in budgets)}"
    return (
        f"{holder} has no budget: `resolution-ledger report balances` lists the holders, which are agent:<id> or "
        "team:<id>"
    )


@click.option("--from", "start", help="First position, or first recorded time.")
@click.option("--to", "end", help="Last position, or last recorded time.")
@click.option("--as-stored", is_flag=True, help="Leave personal data encrypted, as in the log.")
@command(audit)
async def replay(settings: Settings, start: str | None, end: str | None, *, as_stored: bool, as_json: bool) -> None:
    """Print the events, one JSON document a line: the CloudEvent as recorded, plus its `position`.

    Personal data is decrypted as long as its person's key exists.
    """
    del as_json  # the output is JSON in any case
    async with Session(settings, reads_only=True) as session:
        last = await session.log.last_position()
        first = 1 if start is None else await position_of(session.log, start, last, first=True)
        until = last if end is None else min(last, await position_of(session.log, end, last))
        if first > until:
            return
        reader = await session.connection("replay")
        before = await session.log.at(first - 1) if first > 1 else None
        anchor = ReadCursor(first - 1, digest(before.data)) if before else ReadCursor()
        follower = Follower(reader, session.log, "replay", anchor)
        write, keys = sys.stdout.buffer.write, await Keyring.open(session.client)
        async for batch in follower.batches(until=until):
            for recorded in batch:
                data = recorded.data if as_stored else await keys.decrypt_fields(recorded.data)
                write(b'%s,"position":%d}\n' % (data[:-1], recorded.position))
        sys.stdout.buffer.flush()
