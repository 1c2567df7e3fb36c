"""`audit cases`: flags about one subject, joined and ranked for review."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.cli.as_of import as_of_option, position_of
from app.cli.commands.audit_trail import audit
from app.cli.main import command
from app.output import print_list
from app.runtime.session import Session
from app.runtime.views import read_view
from ledger.encryption.keyring import Keyring
from projections.access import cases_without_names
from projections.csv_text import FIELDS
from projections.engine.pages import PageRequest
from projections.views.cases import read_cases

if TYPE_CHECKING:
    from app.output import OutputFormat
    from config.settings import Settings


@click.option("--below", is_flag=True, help="Those that wait below the line of the week's capacity.")
@click.option("--closed", is_flag=True, help="Those with all flags reviewed.")
@click.option("--subject", metavar="KIND:ID", help="agent:<id> or customer:<id>")
@as_of_option
@command(audit, lists=True)
async def cases(
    settings: Settings, subject: str | None, as_of: str | None, *, below: bool, closed: bool, output: OutputFormat
) -> None:
    """Cases of possible misuse: flags about one subject, best first, with the flag to look at first."""
    if below and closed:
        raise click.UsageError("--below and --closed name two kinds of cases: use one of them")
    status = "below" if below else "closed" if closed else "open"
    async with Session(settings, reads_only=True) as session:
        at = await position_of(session.log, as_of, await session.log.last_position()) if as_of else None
        answer = await read_view(session, "flags", lambda c: read_cases(c, status=status, page=PageRequest(at=at)))
        found = await cases_without_names(session.log, await Keyring.open(session.client), answer.result)
    # The filter comes after masking, so that it reveals no name.
    found.sort(key=lambda one: (-(one["score"] or 0.0), one["rank"]))
    found = [one | {"rank": place} for place, one in enumerate(found, 1) if subject in (None, one["subject"])]
    position = answer.progress.anchor.position if at is None else at
    rows = [
        (
            one["case_id"],
            one["rank"],
            one["subject"],
            ", ".join(one["rules"]),
            "" if one["expected_loss"] is None else " ".join(one["expected_loss"].values()),
            (one["opened"] or one["found"])[:16],
            one["explanation"],
        )
        for one in found
    ]
    columns = ("case", "rank", "subject", "rules", "expected loss", "since", "look at")
    title = {"open": "Open cases", "below": "Cases below the line", "closed": "Closed cases"}[status]
    print_list(output, found, f"{title} at position {position}", columns, rows, FIELDS["cases"], position=position)
