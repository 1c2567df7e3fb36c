"""`publish`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from app.cli.main import CommandFinding, cli, command
from app.output import counting_progress, print_json, print_table
from app.publisher import Outcome, Outgoing, Publisher, dry_run, publish_all, read_lines
from app.runtime.roles import ensure_roles
from app.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from config.settings import Settings


@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", "dry", is_flag=True, help="Show rejections with their reasons; publish nothing.")
@command(cli)
async def publish(settings: Settings, file: Iterable[bytes], *, dry: bool, as_json: bool) -> None:
    """Publish CloudEvents from FILE, one JSON document a line; `-` is standard input."""
    outcome = Outcome()
    events = read_lines(file)
    if dry:
        dry_run(_counted(events, outcome), outcome)
    else:
        async with Session(settings) as session, ensure_roles(session, "intake"):
            with counting_progress("publishing", None, shown=not as_json and sys.stderr.isatty()) as sent:
                await publish_all(await Publisher.open(session, outcome, sent), events)
    _report(outcome, dry=dry, as_json=as_json)


def _counted(events: Iterable[Outgoing], outcome: Outcome) -> Iterator[Outgoing]:
    for event in events:
        outcome.read += 1
        yield event


def _report(outcome: Outcome, *, dry: bool, as_json: bool) -> None:
    if as_json:
        print_json(outcome.wire() | ({"dry_run": True} if dry else {}))
    else:
        rows: list[tuple[str, object]] = [("read", outcome.read)]
        rows += [] if dry else [("recorded", outcome.recorded), ("duplicate", outcome.duplicate)]
        rows.append(("rejected", outcome.rejected_count))
        rows += [(f"skipped: {reason}", count) for reason, count in sorted(outcome.skipped.items())]
        print_table("Outcome", ("", "events"), rows, numbers=(1,))
        if outcome.rejected_count:
            columns = ("line", "id", "code", "field", "what to do")
            print_table("Rejected", columns, [one[:-1] for one in outcome.rejected[:50]], numbers=(0,))
    if outcome.rejected_count:
        raise CommandFinding("" if as_json else f"{outcome.rejected_count} events were rejected")
