"""`report gap`, `quality`, `recognition`: what is withheld, how well it goes, who is thanked."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from app.cli.as_of import as_of_option
from app.cli.commands.report_views import at_of, report
from app.cli.main import command
from app.output import console, fail, print_json, print_table
from app.runtime.session import Session
from app.runtime.views import read_view
from domain.money import money_text
from domain.serialization import encode
from ledger.encryption.keyring import Keyring
from projections.policy_history import policy_in_force

if TYPE_CHECKING:
    from config.settings import Settings


_ROWS = 15


@click.option("--agent-hour", help="What an hour of an agent costs, where the policy in force does not say: 24.00.")
@click.option("--manager-hour", help="The same of who approves: 45.00.")
@as_of_option
@command(report)
async def gap(
    settings: Settings, as_of: str | None, agent_hour: str | None, manager_hour: str | None, *, as_json: bool
) -> None:
    """What the front line may not do and is approved anyway, what asking costs, which limits would be worth more."""
    from projections.reports.empowerment_gap import gap_report

    async with Session(settings, reads_only=True) as session:
        hours = {"agent_hour": agent_hour, "manager_hour": manager_hour}
        at = await at_of(session, as_of)
        policy = await policy_in_force(session.log, at)
        try:
            found = await gap_report(partial(read_view, session), policy, hours, at)
        except ValueError as error:
            raise click.UsageError(f"--{str(error).replace('_', '-', 1)}") from None
        found = json.loads(await (await Keyring.open(session.client)).reveal(encode(found)))
    if as_json:
        print_json(found)
        return
    position, overall = found["position"], found["overall"]
    if not overall["asked"] and not found["silent_gap"]["fell_short"]:
        console.print(f"Nobody has asked for authority yet (position {position}).")
        return
    wait = overall["waiting"]
    console.print(
        f"Asked {overall['asked']:,} times; approved as asked {share_text(overall['approved_anyway'])} of those "
        f"decided, {share_text(overall['of_all_asked'])} of all. To approval: median "
        f"{hours_text(wait['median_hours_to_approval'])}, 90th percentile "
        f"{hours_text(wait['p90_hours_to_approval'])}; given up {wait['abandoned']:,}, still waiting "
        f"{wait['undecided']:,}."
    )
    print_table(
        "What the front line cannot do",
        ("", ""),
        [(n, one["text"]) for n, one in enumerate(found["cannot_do"][:10], 1)],
    )
    for name in ("kind", "band", "role", "team", "reason"):
        _print_groups(name, found[f"by_{name}"], position)
    for one in found["recommended_limits"]:
        _print_limit(one)
    short = found["silent_gap"]
    console.print(f"Silent gap: {share_text(short['never_asked'])} of what fell short was never asked for.")
    for one in found["rubber_stamps"]:
        console.print(
            f"{one['kind']} for {one['role']} is decided in {one['median_seconds']:.0f} s (median of {one['n']}): a "
            "limit too low, not a sin."
        )
    unused = found["unused"]
    if unused["budgets"]:
        console.print(
            f"Unused authority: {share_text(unused['hardly_touched'])} of agents' closed budgets were hardly touched; "
            "it may be fear or training that lacks."
        )
    _print_procedure(found["procedure"])
    console.print(f"{len(found['obstacles'])} obstacles in staff's own words (--json shows them).")
    console.print("Know: " + "; ".join(found["caveats"]) + ".")


def _print_procedure(lines: list[dict[str, Any]]) -> None:
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
        print_table("The cost of procedure: what the long way would have cost", columns, rows, numbers=(1, 2, 3, 4, 5))


def _print_groups(name: str, lines: list[dict[str, Any]], position: int) -> None:
    if len(lines) < 2:  # noqa: PLR2004 - one group says what the whole says
        return
    rows = [
        (
            line[name],
            line["asked"],
            share_text(line["approved_anyway"]),
            hours_text(line["waiting"]["median_hours"]),
            hours_text(line["waiting"]["p90_hours"]),
            line["waiting"]["abandoned"],
        )
        for line in lines[:12]
    ]
    columns = (name, "asked", "approved anyway", "waited, median", "90th percentile", "given up")
    print_table(f"By {name}, at position {position}", columns, rows, numbers=(1, 2, 3, 4, 5))


def _print_limit(one: dict[str, Any]) -> None:
    what = f"{one['kind']} for {one['role']}"
    if one["limit"] is None:
        console.print(f"Recommended limit, {what}: none; {one['why']}.")
        return
    today = f", today {money_text(one['today'])}" if one["today"] else ""
    console.print(
        f"Recommended limit, {what}: {money_text(one['limit'])}{today}. Asking costs "
        f"{money_text(one['cost_of_asking'])} (waiting of agent and approver); {one['why']}."
    )
    rows = [
        (
            money_text(point["up_to"]),
            point["n"],
            f"{point['approved'] / point['n']:.1%}",
            f"{point['lower']:.1%}",
            money_text(point["risk"]),
            "yes" if point["asking_costs_more"] else "",
        )
        for place, point in enumerate(one["curve"])
        if place % (len(one["curve"]) // _ROWS + 1) == 0 or point["up_to"] in (one["limit"], one["without_step"])
    ]
    columns = ("up to", "decided", "approved", "at least (95 %)", "(1 - a) x", "asking costs more")
    print_table("", columns, rows, numbers=(0, 1, 2, 3, 4))
    last = one["last_period"]
    console.print(
        f"In {last['period']} it would have saved {last['requests']} requests, {money_text(last['saved'])} and "
        f"{last['hours_not_waited']:,.1f} h of waiting, and risked {money_text(last['risked'])} that were not approved."
    )


def share_text(share: dict[str, Any] | None) -> str:
    """``93.3 % (92.6-93.8)``."""
    if share is None or share["share"] is None:
        return "none"
    low, high = share["interval"]
    return f"{share['share']:.1%} ({low:.1%} to {high:.1%}, n = {share['n']:,})"


def hours_text(hours: float | None) -> str:
    """``48.6 h``, ``12 min``."""
    return "" if hours is None else f"{hours:,.1f} h" if hours >= 2 else f"{hours * 60:.0f} min"  # noqa: PLR2004


@click.option("--interaction", help="Instead: the way of one interaction, as a story.")
@as_of_option
@command(report)
async def quality(settings: Settings, as_of: str | None, interaction: str | None, *, as_json: bool) -> None:
    """How well it goes: solved on the first contact, transfers, repeated stories, waiting, satisfaction, how evenly."""
    from projections.reports.service_quality import interaction_story, quality_report

    async with Session(settings, reads_only=True) as session:
        if interaction is not None:
            read = partial(read_view, session)
            story = await interaction_story(read, interaction, await at_of(session, as_of))
            _print_story(story, as_json=as_json)
            return
        found = await quality_report(partial(read_view, session), await at_of(session, as_of))
    if as_json:
        print_json(found)
        return
    whole = found["overall"]
    if not whole["interactions"]:
        console.print(f"No interaction is recorded yet (position {found['position']}).")
        return
    rows = [(words, share_text(whole[name])) for name, words in _QUALITY.items() if whole[name]["n"]]
    for name, words in (("hours_to_first_action", "to the first action"), ("hours_to_resolution", "to resolution")):
        hours = whole[name]
        if hours["n"]:
            rows.append((words, f"median {hours_text(hours['median'])}, 90th percentile {hours_text(hours['p90'])}"))
    for one in found["satisfaction"]:
        answered = f"n = {one['n']}, {one['response']['share']:.1%} answered"
        rows.append((f"satisfaction, {one['instrument']}", f"{one['mean']:.0%} of best ({answered})"))
    print_table(f"Quality of {whole['interactions']:,} interactions, at position {found['position']}", ("", ""), rows)
    for name in ("channel", "team", "line", "reason"):
        lines = found[f"by_{name}"]
        if len(lines) > 1:
            columns = (name, "interactions", "first contact", "transferred", "reopened", "to resolution, median")
            print_table(
                f"By {name}",
                columns,
                [
                    (
                        one[name],
                        one["interactions"],
                        share_text(one["first_contact"]),
                        share_text(one["transferred"]),
                        share_text(one["reopened"]),
                        hours_text(one["hours_to_resolution"]["median"]),
                    )
                    for one in lines[:12]
                ],
                numbers=(1, 2, 3, 4, 5),
            )
    for one in found["evenness"]:
        low, high = one["lowest"], one["highest"]
        console.print(
            f"{_QUALITY[one['what']]} by {one['by']}: from {low[1]['share']:.1%} ({low[0]}) to {high[1]['share']:.1%} "
            f"({high[0]}); as much by luck: p = {one['p']:.2g}."
        )
    console.print("Know: " + "; ".join(found["caveats"]) + ".")


def _print_story(story: dict[str, Any] | None, *, as_json: bool) -> None:
    if story is None:
        fail("no such interaction is recorded", code="unknown_interaction", as_json=as_json)
        return
    if as_json:
        print_json(story)
        return
    rows = [(step["time"][:19], _later(step["later_seconds"]), step["who"], step["what"]) for step in story["steps"]]
    print_table(f"{story['interaction_id']}, at position {story['position']}", ("when", "", "who", "what"), rows)
    console.print(story["in_short"])


def _later(seconds: float) -> str:
    return f"{hours_text(seconds / 3600)} later" if seconds >= _A_MINUTE else ""


_A_MINUTE = 60


_QUALITY = {
    "resolved": "resolved",
    "first_contact": "resolved on the first contact",
    "transferred": "transferred",
    "came_back_to_a_team": "came back to a team they had left",
    "stories_repeated": "told their story again",
    "first_line_only": "never left the first line",
    "moved_up": "moved up a line",
    "reopened": "reopened",
    "repeat_contact": "the customer was back soon",
}


@as_of_option
@command(report)
async def recognition(settings: Settings, as_of: str | None, *, as_json: bool) -> None:
    """Thanks, what followed training, ideas and obstacles, morale by team, who stays. Nobody is ranked."""
    from projections.reports.recognition import recognition_report

    async with Session(settings, reads_only=True) as session:
        at = await at_of(session, as_of)
        found = await recognition_report(partial(read_view, session), await policy_in_force(session.log, at), at)
    if as_json:
        print_json(found)
        return
    thanks = found["thanks"]
    praised = ", ".join(f"{number} {kind}" for kind, number in thanks["actions_praised"].items())
    console.print(
        f"Thanks given {thanks['given']:,} times to {thanks['people_thanked']:,} people (position {found['position']})"
        + (f"; what they had done: {praised}." if praised else ".")
    )
    tables: tuple[tuple[str, tuple[str, ...], list[tuple[object, ...]]], ...] = (
        ("Thanks by", ("giver", "times"), list(thanks["by_giver"].items())),
        (
            "Training",
            ("course", "people", "opens", "used in 90 days before", "after"),
            [
                (one["course"], one["people"], ", ".join(one["opens"]), one["used_before"], one["used_after"])
                for one in found["training"]
            ],
        ),
        (
            "Careers",
            ("from", "to", "people", "gave in 90 days before", "after"),
            [
                (
                    one["from"],
                    one["to"],
                    "fewer than 5" if one["suppressed"] else one["people"],
                    one["used_before"],
                    one["used_after"],
                )
                for one in found["careers"]
            ],
        ),
        (
            "Ideas and obstacles",
            ("", "said", "answered", "days to the answer, median", "fate"),
            [
                (
                    one["what"],
                    one["said"],
                    one["answered"],
                    _number(one["median_days_to_answer"]),
                    ", ".join(f"{fate} {number}" for fate, number in one["fates"].items()),
                )
                for one in found["voices"]
            ],
        ),
        (
            "Morale",
            ("period", "team", "answered", "score, of best"),
            [
                (
                    one["period"],
                    one["team"],
                    "fewer than 5, or beside them"
                    if one["suppressed"]
                    else f"{one['respondents']} of {one['invited']}",
                    "" if one["suppressed"] else f"{one['score']:.0%}",
                )
                for one in found["morale"]
            ],
        ),
        (
            "Who stays",
            ("role", "people", "left", "still here after"),
            [(one["role"], one["n"] or "fewer than 5", one["left"], _curve(one["curve"])) for one in found["staying"]],
        ),
    )
    for title, columns, rows in tables:
        if rows:
            print_table(title, columns, rows)
    console.print("Know: " + "; ".join(found["caveats"]) + ".")


def _curve(points: list[dict[str, Any]]) -> str:
    return ", ".join(f"{at['months']} months {at['staying']:.0%}" for at in points)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
