"""`audit redecide`: the decisions of the log made again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.commands.audit_trail import audit
from app.cli.main import CommandFinding, command
from app.output import print_result, print_table, showing_progress
from app.runtime.redecide import redecide_log
from app.runtime.session import Session

if TYPE_CHECKING:
    from config.settings import Settings

_SHOWN = 100
"""Differences in the table; ``--json`` has all."""


@click.option("--from", "first", type=click.IntRange(1), default=1, help="The position of the first decision.")
@click.option("--until", type=click.IntRange(1), help="The position of the last decision.")
@command(audit)
async def redecide(settings: Settings, first: int, until: int | None, *, as_json: bool) -> None:
    """Make every decision again from the log alone, and compare it with the recorded one.

    Exit code 1 says that a decision comes out otherwise: the log or the rules were changed.
    """
    with tempfile.TemporaryDirectory(prefix="redecide-") as folder:
        async with Session(settings, reads_only=True) as session:
            last = await session.log.last_position()
            until = last if until is None else min(until, last)
            with showing_progress("deciding again", "events", quiet=as_json) as progressed:
                found = await redecide_log(session.client, session.log, Path(folder), first, until, progressed)
    shown = [one._asdict() for one in found.differences]
    if shown and not as_json:
        rows = [tuple(one.values()) for one in shown[:_SHOWN]]
        columns = ("position", "source", "request", "rule", "recorded", "made again")
        print_table("Decisions that come out otherwise", columns, rows, numbers=(0,))
    result = {
        "decisions": found.decisions,
        "differences": shown,
        "out_of_reach": found.out_of_reach,
        "first": first,
        "until": until,
    }
    text = f"{found.decisions} decisions made again up to position {until}, {len(shown)} come out otherwise"
    if found.out_of_reach:
        text += f"; {found.out_of_reach} of other versions of the rules are out of reach"
    print_result(result, text, as_json=as_json)
    if shown:
        raise CommandFinding("" if as_json else f"{len(shown)} decisions come out otherwise")
