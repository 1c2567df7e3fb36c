"""`report loyalty`: the customer value of actions, by evidence level."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from app.cli.as_of import as_of_option, happened_option, moment_of
from app.cli.commands.report_views import at_of, report
from app.cli.figures import share_text
from app.cli.main import command
from app.output import console, print_list, print_table
from app.runtime.session import Session
from app.runtime.views import read_view
from domain.money import money_text
from projections.policy_history import published_policies
from projections.views.loyalty import read_effects

if TYPE_CHECKING:
    from config.settings import Settings

_ROWS = 8


@click.option(
    "--limit", default=100, show_default=True, help="Actions that --json and --csv list; the figures use all."
)
@as_of_option
@happened_option
@command(report, lists=True)
async def loyalty(
    settings: Settings, as_of: str | None, limit: int, *, happened: bool, as_json: bool, as_csv: bool
) -> None:
    """Customer value of actions: before and after, matched, quasi-experiment, trials; each by evidence level."""
    from projections.reports.loyalty import loyalty_report

    moment = moment_of(as_of) if happened else None
    async with Session(settings, reads_only=True) as session:
        at = None if happened else await at_of(session, as_of)
        read = partial(read_view, session)
        found = await loyalty_report(read, await published_policies(session.log), at, moment)
        if as_json or as_csv:
            listed = await read("loyalty_effects", lambda c: read_effects(c, limit, position=at, until=moment))
            fields = "action_id customer_id agent_id kind basis time cost$ windows position"
            print_list(listed.result, "", (), (), fields=fields, as_json=as_json, as_csv=as_csv, **found)
            return
    if not found["currencies"]:
        console.print(f"No action with a customer is recorded yet (position {found['position']}).")
    for one in found["currencies"]:
        _print(one, found["position"])
    if found["drawn_customers"]:
        console.print(f"Estimates are from {found['drawn_customers']:,} randomly sampled customers.")


def _print(one: dict[str, Any], position: int) -> None:
    title = f"{one['currency']}: {one['treated']:,} customers, position {position:,}"
    if not one["ladder"]:
        console.print(f"{title}. {one['why'].capitalize()}.")
        return
    if one["told_by_sales"]:
        console.print("No action is recorded: refunds in sales data are used instead.")
    for rung in one["ladder"]:
        rows: list[tuple[object, ...]] = [
            (
                line["rung"],
                line["method"],
                line["n"],
                _value(line, in_money=in_money),
                _interval(line, in_money=in_money),
                line["called"],
            )
            for name, in_money in (("spending", True), ("coming_back", False))
            for line in rung[name]
            if line["value"] is not None
        ]
        if rows:
            columns = ("level", "", "n", "", "95 % interval", "")
            print_table(f"{title}, {rung['days']} days", columns, rows, numbers=(0, 2, 3))
    main = next(rung for rung in one["ladder"] if rung["days"] == _MAIN_DAYS)
    for line in (*main["spending"], *main["coming_back"]):
        console.print(f"Level {line['rung']}, {line['method']}: {'; '.join(line['caveats'])}.")
    console.print(f"Controls: {one['controls']}.")
    for name, lines in one["groups"].items():
        rows = [
            (line[name], line["treated"], _value(line), _interval(line))
            for line in lines[:_ROWS]
            if line["value"] is not None
        ]
        if len(rows) > 1:
            print_table(
                f"Matched (level 2), by {name}", (name, "treated", "points more", "95 % interval"), rows, numbers=(1, 2)
            )
    rows = [
        (f"{line['days']} days", share_text(line), share_text(repeat))
        for line, repeat in zip(one["return_rates"], one["repeat_claims"], strict=True)
    ]
    print_table("Customers with an action", ("within", "bought again", "had another action"), rows)
    _print_sides(one)


def _print_sides(one: dict[str, Any]) -> None:
    payback = one["payback"]
    if payback["day"] is not None:
        console.print(f"Payback (level 2): day {payback['day']}, n = {payback['n']}; {payback['why']}.")
    else:
        console.print(f"Payback (level 2): none; {payback['why']}.")
    for name, (first, second) in _SIDES.items():
        sides = one[name]
        if sides["difference"] is None:
            continue
        low, high = sides["interval"]
        console.print(
            f"{first.replace('_', ' ').capitalize()}: {share_text(sides[first])} bought again; "
            f"{second.replace('_', ' ')}: {share_text(sides[second])}; {_points(sides['difference'])} "
            f"({_points(low)} to {_points(high)}). {sides['caveats'][0].capitalize()}."
        )


_MAIN_DAYS = 90
_SIDES = {"keep_item": ("kept", "returned"), "waiting": ("at_once", "after_waiting")}


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"


def _value(line: dict[str, Any], *, in_money: bool = False) -> str:
    return money_text(line["value"]) if in_money else _points(line["value"])


def _interval(line: dict[str, Any], *, in_money: bool = False) -> str:
    if line["interval"] is None:
        return ""
    low, high = (money_text(edge) if in_money else _points(edge) for edge in line["interval"])
    return f"{low} to {high}"
