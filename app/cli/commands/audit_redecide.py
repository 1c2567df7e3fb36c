"""`audit redecide`: the decisions of the log made again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from app.cli.as_of import position_of
from app.cli.commands.audit_trail import audit
from app.cli.main import CommandFinding, command
from app.output import fail, print_result, print_table, showing_progress
from app.runtime.redecide import redecide_case, redecide_log
from app.runtime.session import Session
from app.runtime.views import open_view
from consumers.decisions.redecision import Redecider
from ledger.files import read_bounded
from ledger.store.log import Recorded
from ledger.transparency.proofs import read_proof
from ledger.transparency.sealer import decode_entry
from projections.reports.case_file import CASE_BYTES, read_case
from projections.reports.decision_foundation import foundation_of
from projections.reports.explanation import explain
from projections.views.audit_trail import Trail

if TYPE_CHECKING:
    from config.settings import Settings

_REPORTED = "this action was reported after it was taken, so the ledger decided nothing"
_SHOWN = 100
"""Differences in the table; ``--json`` has all."""


@click.option("--from", "first", metavar="X", help="The first decision: its position, or a recorded time.")
@click.option("--to", "last", metavar="X", help="The last decision: its position, or a recorded time.")
@click.option("--case", "file", type=click.Path(path_type=Path), metavar="FILE", help="A case file's decision.")
@click.argument("action", required=False)
@command(audit)
async def redecide(
    settings: Settings, action: str | None, first: str | None, last: str | None, file: Path | None, *, as_json: bool
) -> None:
    """Make decisions again from the log alone, and compare each with the recorded one: all, a range, or an ACTION's.

    Exit code 1 says that a decision comes out otherwise: the log or the rules were changed.
    """
    if (action is not None) + (file is not None) + (first is not None or last is not None) > 1:
        raise click.UsageError("name an ACTION, a range, or a case file")
    with tempfile.TemporaryDirectory(prefix="redecide-") as name:
        folder = Path(name)
        if file is not None:
            made = await _case(file, folder, as_json=as_json)
        else:
            async with Session(settings, reads_only=True) as session:
                if action is not None:
                    made = await _action(session, action, folder, as_json=as_json)
                else:
                    made = await _range(session, first, last, folder, as_json=as_json)
    _report(made, as_json=as_json)


class _Made(NamedTuple):
    """Decisions that were made again, and the range of positions where they begin."""

    found: Redecider
    first: int
    last: int


async def _range(session: Session, first: str | None, last: str | None, folder: Path, *, as_json: bool) -> _Made:
    end = await session.log.last_position()
    begin = 1 if first is None else await position_of(session.log, first, end, first=True)
    until = end if last is None else await position_of(session.log, last, end)
    with showing_progress("deciding again", "events", quiet=as_json) as progressed:
        found = await redecide_log(session.client, session.log, folder, begin, until, progressed)
    return _Made(found, begin, until)


async def _action(session: Session, action: str, folder: Path, *, as_json: bool) -> _Made:
    """Make the decision on an action again, from the events that it rests on."""
    async with open_view(session, Trail.name) as connection:
        explained = await explain(session.log, connection, action)
        if explained is None:
            fail(f"no action {action} is recorded", code="unknown_action", as_json=as_json)
        foundation = await foundation_of(session.log, connection, explained["position"])
    if foundation is None:
        fail(_REPORTED, code="not_decided", as_json=as_json)
    events = [one for position in foundation.positions if (one := await session.log.at(position)) is not None]
    found = await redecide_case(events, folder, foundation.first, foundation.last)
    return _Made(found, foundation.first, foundation.last)


async def _case(file: Path, folder: Path, *, as_json: bool) -> _Made:
    try:
        content = read_case(read_bounded(file, CASE_BYTES).decode())
        entries = [decode_entry(read_proof(text).entry) for text in content.proofs]
    except (ValueError, OSError, RecursionError) as error:
        fail(f"{file}: {error}", code="case", as_json=as_json)
    if content.decision is None:
        fail(f"{file}: {_REPORTED}", code="not_decided", as_json=as_json)
    first, last = content.decision
    events = [Recorded(entry.position, entry.subject, entry.data) for entry in entries if not entry.is_gap]
    return _Made(await redecide_case(events, folder, first, last), first, last)


def _report(made: _Made, *, as_json: bool) -> None:
    found = made.found
    shown = [one._asdict() for one in found.differences]
    if shown and not as_json:
        rows = [tuple(one.values()) for one in shown[:_SHOWN]]
        columns = ("position", "source", "request", "rule", "recorded", "made again")
        print_table("Decisions that come out otherwise", columns, rows, numbers=(0,))
    result = {
        "decisions": found.decisions,
        "differences": shown,
        "out_of_reach": found.out_of_reach,
        "from": made.first,
        "to": made.last,
    }
    text = f"{found.decisions} decisions made again up to position {made.last}, {len(shown)} come out otherwise"
    if found.out_of_reach:
        text += f"; {found.out_of_reach} of other versions of the rules are out of reach"
    print_result(result, text, as_json=as_json)
    if shown:
        raise CommandFinding("" if as_json else f"{len(shown)} decisions come out otherwise")
