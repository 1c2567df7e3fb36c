"""`report loyalty`: the customer value of actions, by evidence level."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from app.cli.as_of import as_of_option, happened_option, moment_of
from app.cli.commands.report_views import at_of, report
from app.cli.comparison import compare_option, print_comparison
from app.cli.figures import share_text
from app.cli.main import command
from app.output import console, print_list, print_table
from app.runtime.session import Session
from app.runtime.views import read_view
from domain.money import money_text
from projections.engine.pages import PageRequest
from projections.policy_history import published_policies
from projections.views.loyalty import read_effects

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.output import OutputFormat
    from config.settings import Settings
    from domain.analytics.empowerment_gap import Share
    from domain.analytics.loyalty.estimators import EstimateFigures
    from domain.analytics.loyalty.evaluation import Sides
    from projections.reports.loyalty import KnownValue, UnknownValue

_ROWS = 8
_COHORTS = 13


@click.option(
    "--limit", default=100, show_default=True, help="Actions that --json and --csv list; the figures use all."
)
@as_of_option
@happened_option
@compare_option
@command(report, lists=True)
async def loyalty(
    settings: Settings, as_of: str | None, compare: str | None, limit: int, *, happened: bool, output: OutputFormat
) -> None:
    """Customer value of actions: before and after, matched, quasi-experiment, trials; each by evidence level."""
    from projections.reports.loyalty import loyalty_report

    moment = moment_of(as_of) if happened else None
    async with Session(settings, reads_only=True) as session:
        at = None if happened else await at_of(session, as_of)
        read = partial(read_view, session)
        if compare is not None:
            if happened or output == "csv":
                raise click.UsageError("--compare excludes --happened and --csv")
            make = partial(loyalty_report, read, await published_policies(session.log))
            await print_comparison(session, make, as_of, compare, as_json=output == "json")
            return
        found = await loyalty_report(read, await published_policies(session.log), at, moment)
        if output != "table":
            listed = await read("loyalty_effects", lambda c: read_effects(c, PageRequest(limit, at=at), until=moment))
            fields = "action_id customer_id agent_id kind basis time cost$ windows position"
            print_list(output, listed.result, "", (), (), fields, **found)
            return
    if not found["currencies"]:
        console.print(f"No action with a customer is recorded yet (position {found['position']}).")
    for one in found["currencies"]:
        _print(one, found["position"])
    if found["drawn_customers"]:
        console.print(f"Estimates are from {found['drawn_customers']:,} randomly sampled customers.")


def _print(one: UnknownValue | KnownValue, position: int) -> None:
    title = f"{one['currency']}: {one['treated']:,} customers, position {position:,}"
    if "why" in one:
        console.print(f"{title}. {one['why'].capitalize()}.")
        _print_retention(one)
        return
    if one["told_by_sales"]:
        console.print("No action is recorded: refunds in sales data are used instead.")
    for rung in one["ladder"]:
        rows: list[tuple[object, ...]] = [
            *(_row(line, money_text) for line in rung["spending"] if line["value"] is not None),
            *(_row(line, _points) for line in rung["coming_back"] if line["value"] is not None),
        ]
        if rows:
            columns = ("level", "", "n", "", "95 % interval", "")
            print_table(f"{title}, {rung['days']} days", columns, rows, numbers=(0, 2, 3))
    main = next(rung for rung in one["ladder"] if rung["days"] == _MAIN_DAYS)
    lines: tuple[EstimateFigures[Any], ...] = (*main["spending"], *main["coming_back"])
    for line in lines:
        console.print(f"Level {line['rung']}, {line['method']}: {'; '.join(line['caveats'])}.")
    console.print(f"Controls: {one['controls']}.")
    for name, groups in one["groups"].items():
        rows = [
            (group[name], group["treated"], _points(group["value"]), _interval(group["interval"], _points))
            for group in groups[:_ROWS]
            if group["value"] is not None
        ]
        if len(rows) > 1:
            print_table(
                f"Matched (level 2), by {name}", (name, "treated", "points more", "95 % interval"), rows, numbers=(1, 2)
            )
    rows = [
        (f"{rate['days']} days", share_text(rate), share_text(repeat))
        for rate, repeat in zip(one["return_rates"], one["repeat_claims"], strict=True)
    ]
    print_table("Customers with an action", ("within", "bought again", "had another action"), rows)
    _print_retention(one)
    _print_sides(one)


def _print_retention(one: UnknownValue | KnownValue) -> None:
    """Print the share of all customers that bought again, by month of first purchase."""
    rows = [
        (cohort["cohort"], cohort["customers"], *(share_text(again) for again in cohort["bought_again"]))
        for cohort in one["retention"][-_COHORTS:]
    ]
    if rows:
        days = tuple(f"within {again['days']} days" for again in one["retention"][0]["bought_again"])
        title = f"{one['currency']}: all customers that bought again (level 1), by month of first purchase"
        print_table(title, ("first purchase", "customers", *days), rows, numbers=(1,))


def _print_sides(one: KnownValue) -> None:
    payback = one["payback"]
    if payback["day"] is not None:
        console.print(f"Payback (level 2): day {payback['day']}, n = {payback['n']}; {payback['why']}.")
    else:
        console.print(f"Payback (level 2): none; {payback['why']}.")
    kept, waited = one["keep_item"], one["waiting"]
    _print_difference("Kept", kept["kept"], "returned", kept["returned"], kept)
    _print_difference("At once", waited["at_once"], "after waiting", waited["after_waiting"], waited)


def _print_difference(first: str, ours: Share, second: str, theirs: Share, sides: Sides) -> None:
    if sides["difference"] is None or sides["interval"] is None:
        return
    low, high = sides["interval"]
    console.print(
        f"{first}: {share_text(ours)} bought again; {second}: {share_text(theirs)}; {_points(sides['difference'])} "
        f"({_points(low)} to {_points(high)}). {sides['caveats'][0].capitalize()}."
    )


_MAIN_DAYS = 90


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"


def _row[Value](line: EstimateFigures[Value], text: Callable[[Value], str]) -> tuple[object, ...]:
    assert line["value"] is not None
    interval = _interval(line["interval"], text)
    return line["rung"], line["method"], line["n"], text(line["value"]), interval, line["called"]


def _interval[Value](edges: list[Value] | None, text: Callable[[Value], str]) -> str:
    return "" if edges is None else " to ".join(text(edge) for edge in edges)
