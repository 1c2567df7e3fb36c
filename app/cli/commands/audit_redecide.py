"""`audit redecide`: the decisions of the log made again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.commands.audit_trail import audit
from app.cli.main import CommandFinding, command
from app.output import fail, print_result, print_table, showing_progress
from app.runtime.redecide import redecide_case, redecide_log
from app.runtime.session import Session
from ledger.files import read_bounded
from ledger.store.log import Recorded
from ledger.transparency.proofs import read_proof
from ledger.transparency.sealer import decode_entry
from projections.reports.case_file import CASE_BYTES, read_case

if TYPE_CHECKING:
    from config.settings import Settings
    from consumers.decisions.redecision import Redecider

_SHOWN = 100
"""Differences in the table; ``--json`` has all."""


@click.option("--from", "first", type=click.IntRange(1), default=1, help="The position of the first decision.")
@click.option("--until", type=click.IntRange(1), help="The position of the last decision.")
@click.option("--case", "file", type=click.Path(path_type=Path), metavar="FILE", help="A case file's decision.")
@command(audit)
async def redecide(settings: Settings, first: int, until: int | None, file: Path | None, *, as_json: bool) -> None:
    """Make every decision again from the log alone, and compare it with the recorded one.

    Exit code 1 says that a decision comes out otherwise: the log or the rules were changed.
    """
    with tempfile.TemporaryDirectory(prefix="redecide-") as folder:
        if file is not None:
            first, until, found = await _case(file, Path(folder), as_json=as_json)
        else:
            async with Session(settings, reads_only=True) as session:
                last = await session.log.last_position()
                until = last if until is None else min(until, last)
                with showing_progress("deciding again", "events", quiet=as_json) as progressed:
                    found = await redecide_log(session.client, session.log, Path(folder), first, until, progressed)
    _report(found, first, until, as_json=as_json)


async def _case(file: Path, folder: Path, *, as_json: bool) -> tuple[int, int, Redecider]:
    try:
        content = read_case(read_bounded(file, CASE_BYTES).decode())
        entries = [decode_entry(read_proof(text).entry) for text in content.proofs]
    except (ValueError, OSError, RecursionError) as error:
        fail(f"{file}: {error}", code="case", as_json=as_json)
    if content.decision is None:
        fail(f"{file}: a reported action was not decided by the ledger", code="case", as_json=as_json)
    first, last = content.decision
    events = [Recorded(entry.position, entry.subject, entry.data) for entry in entries if not entry.is_gap]
    return first, last, await redecide_case(events, folder, first, last)


def _report(found: Redecider, first: int, until: int, *, as_json: bool) -> None:
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
