"""`report gap`: the authority gap, that is, remedies that staff had to ask for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

import click

from app.cli.as_of import as_of_option
from app.cli.commands.report_views import at_of, report
from app.cli.comparison import compare_option, print_comparison
from app.cli.figures import caveats_text, quantile_text, share_text
from app.cli.main import command
from app.output import console, print_json, print_list, print_table
from app.runtime.session import Session
from app.runtime.views import read_view
from domain.money import money_text
from domain.serialization import encode
from ledger.encryption.keyring import Keyring
from projections.policy_history import published_policies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.output import OutputFormat
    from config.settings import Settings
    from domain.analytics.empowerment_gap import Figures, Waiting
    from domain.analytics.procedure_cost import ProcedureCost
    from projections.reports.empowerment_gap import GapReport, RecommendedLimit, RequestMinutes

type _Group = Literal["kind", "band", "role", "agent_kind", "team", "reason"]
_ROWS = 15


@click.option("--agent-hour", help="Cost of an agent's hour, if the policy has none, e.g. 24.00.")
@click.option("--manager-hour", help="Cost of an approver's hour, if the policy has none, e.g. 45.00.")
@as_of_option
@compare_option
@command(report)
async def gap(
    settings: Settings,
    as_of: str | None,
    compare: str | None,
    agent_hour: str | None,
    manager_hour: str | None,
    *,
    as_json: bool,
) -> None:
    """Escalations and their approvals, the cost of asking, and limits that would cost less."""
    from projections.reports.empowerment_gap import gap_report

    async with Session(settings, reads_only=True) as session:
        hours = {"agent_hour": agent_hour, "manager_hour": manager_hour}
        keys = await Keyring.open(session.client)

        async def make(at: int | None) -> GapReport:
            published = await published_policies(session.log, at)
            try:
                encrypted = await gap_report(partial(read_view, session), published, hours, at)
            except ValueError as error:
                raise click.UsageError(f"--{str(error).replace('_', '-', 1)}") from None
            found: GapReport = json.loads(await keys.decrypt_fields(encode(encrypted)))
            return found

        if compare is not None:
            await print_comparison(session, make, as_of, compare, as_json=as_json)
            return
        found = await make(await at_of(session, as_of))
    if as_json:
        print_json(found)
        return
    _print(found)


@click.option("--period", help="2026-11-21, 2026-W47, 2026-11 or 2026-Q4. [default: the last one that has ended]")
@command(report, lists=True)
async def unused_authority(settings: Settings, period: str | None, *, output: OutputFormat) -> None:
    """Employees with less than a tenth of their budget spent in a period, by kind of action."""
    from projections.reports import unused_authority as unused

    async with Session(settings, reads_only=True) as session:
        published = await published_policies(session.log)
        try:
            found = await unused.unused_authority(partial(read_view, session), published, datetime.now(UTC), period)
        except LookupError as error:
            raise click.UsageError(f"--period: {error}") from None
    more = {name: value for name, value in found.items() if name != "items"}
    rows = [
        (
            *(one[name] for name in ("employee_id", "role", "kind")),
            money_text(one["limit"]) or "unlimited",
            *(money_text(one["used"]), one["actions"], one["last_used"] or "never"),
            *(money_text(one["spent"]), money_text(one["granted"])),
        )
        for one in found["items"]
    ]
    print_list(
        output,
        found["items"],
        f"Unused authority in {found['period'] or 'no period'}, of {found['employees']} employees",
        ("employee", "role", "kind", "limit", "used", "actions", "last used", "spent", "of"),
        rows,
        "employee_id role kind limit$ used$ actions last_used granted$ spent$ contacts",
        numbers=(3, 4, 5, 7, 8),
        **more,
    )


def _print(found: GapReport) -> None:
    position, overall = found["position"], found["overall"]
    if not overall["asked"] and not found["silent_gap"]["fell_short"]:
        console.print(f"No escalation is recorded yet (position {position}).")
        return
    wait = overall["waiting"]
    n = wait["n_to_approval"]
    console.print(
        f"Asked {overall['asked']:,} times; approved as asked {share_text(overall['approved_anyway'])} of those "
        f"decided, {share_text(overall['of_all_asked'])} of all. To approval: median "
        f"{quantile_text(wait['median_hours_to_approval'], wait['median_hours_to_approval_interval'], n)}, "
        f"90th percentile {quantile_text(wait['p90_hours_to_approval'], wait['p90_hours_to_approval_interval'], n)}; "
        f"given up {wait['abandoned']:,}, still waiting "
        f"{wait['undecided']:,}."
    )
    print_table(
        "Actions that the front line cannot take",
        ("", ""),
        [(place, one["text"]) for place, one in enumerate(found["cannot_do"][:10], 1)],
    )
    _print_groups("kind", found["by_kind"], position)
    _print_groups("band", found["by_band"], position)
    _print_groups("role", found["by_role"], position)
    _print_groups("agent_kind", found["by_agent_kind"], position)
    _print_groups("team", found["by_team"], position)
    _print_groups("reason", found["by_reason"], position)
    for limit in found["recommended_limits"]:
        _print_limit(limit, found["asking_minutes"])
    short = found["silent_gap"]
    console.print(
        f"Blocked, not escalated: {share_text(short['never_asked'])} of the matters beyond an agent's authority; no "
        f"escalation followed within 7 days. {short['pending']:,} may still be escalated."
    )
    for stamp in found["rubber_stamps"]:
        ends = stamp["median_seconds_interval"]
        interval = "" if ends is None else f"{ends[0]:.0f} s to {ends[1]:.0f} s, "
        console.print(
            f"{stamp['kind']} for {stamp['role']} is decided in {stamp['median_seconds']:.0f} s (median; "
            f"{interval}n = {stamp['n']}): the limit may be too low."
        )
    unused = found["unused"]
    if unused["budgets"]:
        low, high = unused["interval"] or (None, None)
        used = "" if low is None or high is None else f" ({low:.1%} to {high:.1%})"
        console.print(
            f"Unused authority: of agents' closed budgets, {unused['mean_use'] or 0:.1%}{used} was spent on "
            f"average; {share_text(unused['hardly_touched'])} were hardly used, out of fear or missing training."
        )
    _print_procedure(found["procedure"])
    console.print(f"{len(found['obstacles'])} obstacles reported by staff (--json shows them).")
    if found["incomplete"]:
        console.print(f"Incomplete, and not counted: {found['incomplete']:,} outcomes without their request.")
    console.print(caveats_text(found["rung"], found["caveats"]))


def _print_procedure(lines: Sequence[ProcedureCost]) -> None:
    rows = [
        (
            one["kind"],
            one["n"],
            money_text(one["given"]),
            money_text(one["long_way_each"]),
            money_text(one["long_way"]),
            one["cheaper_than_asking"],
        )
        for one in lines
        if one["long_way"]
    ]
    if rows:
        columns = ("given at once", "times", "cost", "asking costs, each", "together", "cost less than asking")
        print_table("Cost of procedure: estimated cost of asking", columns, rows, numbers=(1, 2, 3, 4, 5))


def _print_groups(name: _Group, lines: Sequence[Figures], position: int) -> None:
    if len(lines) < 2:  # noqa: PLR2004 - one group equals the total
        return
    rows = [
        (
            line[name],
            line["asked"],
            share_text(line["approved_anyway"]),
            _waited(line["waiting"], "median_hours", "median_hours_interval"),
            _waited(line["waiting"], "p90_hours", "p90_hours_interval"),
            line["waiting"]["abandoned"],
        )
        for line in lines[:12]
    ]
    columns = (name, "asked", "approved anyway", "waited, median", "90th percentile", "given up")
    print_table(f"By {name.replace('_', ' ')}, at position {position}", columns, rows, numbers=(1, 2, 3, 4, 5))


def _waited(
    wait: Waiting,
    name: Literal["median_hours", "p90_hours"],
    interval: Literal["median_hours_interval", "p90_hours_interval"],
) -> str:
    return quantile_text(wait[name], wait[interval], wait["n"])


def _print_limit(one: RecommendedLimit, asking: RequestMinutes) -> None:
    what = f"{one['kind']} for {one['role']}, {one['currency']}"
    if one["limit"] is None:
        console.print(f"Recommended limit, {what}: none; {one['why']}.")
        return
    today = f", today {money_text(one['today'])}" if one["today"] else ""
    console.print(
        f"Recommended limit, {what}: {money_text(one['limit'])}{today}. Asking costs "
        f"{money_text(one['cost_of_asking'])} ({asking['agent']:g} min of the agent, {asking['approver']:g} of the "
        f"approver); {one['why']}. "
        f"Approved anyway up to there: {share_text(one['approved'])}. A hypothesis: it holds if people ask the same."
    )
    rows = [
        (
            money_text(point["up_to"]),
            point["n"],
            f"{point['approved'] / point['n']:.1%}",
            f"{point['lower']:.1%}",
            money_text(point["risk"]),
            "yes" if point.get("asking_costs_more") else "",
        )
        for place, point in enumerate(one["curve"])
        if place % (len(one["curve"]) // _ROWS + 1) == 0 or point["up_to"] in (one["limit"], one["without_step"])
    ]
    columns = ("up to", "decided", "approved", "at least (95 %)", "(1 - a) x", "asking costs more")
    print_table("", columns, rows, numbers=(0, 1, 2, 3, 4))
    for case in one["cases"]:
        change = f"asking costs {case['cost_factor']:g} times as much"
        if case["drift"]:
            change = f"people ask for {case['drift']:.0%} more"
        console.print(f"  If {change}: {money_text(case['limit']) if case['limit'] else 'no higher limit'}.")
    if (effect := one["simulated"]) is None:
        console.print("  Not simulated: it is not a limit of the policy in force.")
        return
    saved = f" and {money_text(effect['would_have_saved'])}" if effect["would_have_saved"] else ""
    monthly = "" if effect["monthly"] is None else f" ({effect['monthly']:,.1f} a month)"
    console.print(
        f"  Simulated over {effect['days']:,.0f} days: {effect['given_at_once']} given at once. It would have saved "
        f"{effect['escalations_spared']} escalations{monthly}{saved}, and {effect['hours_not_waited']:,.1f} h of "
        f"waiting; {money_text(effect['not_approved'])} of it was not approved in history."
    )
