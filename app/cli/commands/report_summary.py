"""`report summary` and `report weekly`: totals of a range of days, with the range before beside them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from app.cli.commands.report_views import report
from app.cli.figures import caveats_text, quantile_text, satisfaction_text, share_text
from app.cli.main import command
from app.output import console, print_json, print_table
from app.runtime.session import Session
from app.runtime.views import read_view
from domain.money import money_text
from projections.date_ranges import RangeError, read_range, zone_named
from projections.policy_history import policy_in_force
from projections.views.totals import By

if TYPE_CHECKING:
    from config.settings import Settings
    from projections.reports.summary import Figures, Summary

_WHEN = "A day, a period (2026-11, 2026-W47, 2026-Q4) or a time."
_SPENT = ("", "actions", "net amount", "of budget", "escalations", "approved", "waited, median")
_SHARES: tuple[Literal["resolved", "first_contact", "transferred", "reopened"], ...] = (
    "resolved",
    "first_contact",
    "transferred",
    "reopened",
)
_HANDLED = ("", "interactions", "goodwill given", *(name.replace("_", " ") for name in _SHARES))


@click.option("--from", "begin", metavar="WHEN", help=f"The begin of the range of event times. {_WHEN}")
@click.option("--to", "end", metavar="WHEN", help="The end of the range; a day or a period belongs to it.")
@click.option("--by", type=click.Choice(get_args(By.__value__)), help="Divide the totals.")
@click.option("--tz", help="Time zone of days. [default: the policy's]")
@command(report)
async def summary(
    settings: Settings, begin: str | None, end: str | None, by: By | None, tz: str | None, *, as_json: bool
) -> None:
    """Totals of a range of days, with the range before: spending, actions, escalations, outcomes, satisfaction."""
    from projections.reports.summary import summary as summarise

    async with Session(settings, reads_only=True) as session:
        policy = await policy_in_force(session.log)
        try:
            times = read_range(begin, end, zone_named(tz or (policy.time_zone if policy is not None else "UTC")))
        except RangeError as error:
            raise click.UsageError(f"--{error.field}: {error}") from None
        found = await summarise(partial(read_view, session), times, by)
    if as_json:
        print_json(found)
        return
    _print(found)


@click.option("--week", metavar="WEEK", help="A week of ISO 8601, e.g. 2026-W07. [default: the last whole week]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The HTML file. [default: weekly-WEEK.html]"
)
@click.option("--tz", help="Time zone of days. [default: the policy's]")
@command(report)
async def weekly(settings: Settings, week: str | None, out: Path | None, tz: str | None, *, as_json: bool) -> None:
    """Write the report of a week as one HTML file, to read, print or send, with the week before beside it.

    The file holds goodwill and budgets, service, satisfaction, escalations, reasons, and the matters that wait. It
    names no customer and no agent; reasons are as recorded. With --json the document is printed, and a file is written
    only where --out names one.
    """
    from projections.reports.weekly_page import weekly_page
    from projections.reports.weekly_report import last_week, weekly_report

    async with Session(settings, reads_only=True) as session:
        now = datetime.now(UTC)
        policy = await policy_in_force(session.log)
        try:
            zone = zone_named(tz or (policy.time_zone if policy is not None else "UTC"))
            found = await weekly_report(partial(read_view, session), week or last_week(now, zone), zone, now)
        except RangeError as error:
            raise click.UsageError(f"--{error.field}: {error}") from None
    file = out or (None if as_json else Path(f"weekly-{found['week']}.html"))
    if file is not None:
        file.write_text(weekly_page(found), encoding="utf-8")
    if as_json:
        print_json(found)
    else:
        console.print(f"{file}: week {found['week']}, at position {found['position']}", markup=False)


def _print(found: Summary) -> None:
    begin, end = found["from"], found["to"]
    lines: list[tuple[str, Figures]] = [("all", found["total"])]
    if found["total"]["before"] is not None:
        lines.append(("all, the range before", found["total"]["before"]))
    for one in found["groups"]:
        lines.append((one["group"], one))
        if one["before"] is not None:
            lines.append((f"{one['group']}, before", one["before"]))
    title = f"From {begin or 'the begin'} to {end or 'the end'} (event times), at position {found['position']}"
    print_table(title, _SPENT, [_spent(*one) for one in lines], numbers=range(1, len(_SPENT)))
    handled = [_handled(*one) for one in lines if one[1]["interactions"] is not None]
    print_table("Interactions", _HANDLED, handled, numbers=range(1, len(_HANDLED)))
    said = [
        (label, f"{one['instrument']}, {one['worst']:g} to {one['best']:g}", satisfaction_text(one))
        for label, figures in lines
        for one in figures["satisfaction"] or ()
    ]
    if said:
        print_table("Satisfaction", ("", "", ""), said)
    console.print(f"Days are those of {found['time_zone']}. {caveats_text(found['rung'], found['caveats'])}")


def _spent(label: str, figures: Figures) -> list[object]:
    actions, escalations = figures["actions"], figures["escalations"]
    waited = escalations["hours_waited"]
    amounts = [money_text(one["net"]) for one in actions["by_currency"]]
    budgets = [
        f"{one['spent_share']:.0%} {one['currency']}"
        for one in figures["budgets"] or ()
        if one["spent_share"] is not None
    ]
    return [
        label,
        f"{actions['given']:,}",
        ", ".join(amounts),
        ", ".join(budgets),
        f"{escalations['requested']:,}",
        share_text(escalations["approved"]),
        quantile_text(waited["median"], waited["median_interval"], waited["n"]),
    ]


def _handled(label: str, figures: Figures) -> list[object]:
    handled, given = figures["interactions"], figures["consistency"]
    assert handled is not None
    assert given is not None
    shares = (given, *(handled[name] for name in _SHARES))
    return [label, f"{handled['opened']:,}", *map(share_text, shares)]
