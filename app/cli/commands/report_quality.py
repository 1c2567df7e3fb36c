"""`report quality`: service quality, and the story of one interaction."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import click

from app.cli.as_of import as_of_option
from app.cli.commands.report_views import at_of, report
from app.cli.comparison import compare_option, print_comparison
from app.cli.figures import caveats_text, hours_text, quantile_text, satisfaction_text, share_text
from app.cli.main import command
from app.output import console, fail, print_json, print_table
from app.runtime.session import Session
from app.runtime.views import read_view
from domain.money import money_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from config.settings import Settings
    from domain.analytics.consistency import Consistency, GivenGroup, MedianInterval
    from domain.analytics.service_quality import Hours, QualityFigures, ShareName
    from projections.reports.service_quality import InteractionStory


@click.option("--interaction", help="Instead: the story of one interaction.")
@as_of_option
@compare_option
@command(report)
async def quality(
    settings: Settings, as_of: str | None, compare: str | None, interaction: str | None, *, as_json: bool
) -> None:
    """Service quality: first-contact resolution, transfers, repeated stories, waiting, satisfaction, evenness."""
    from projections.reports.service_quality import interaction_story, quality_report

    async with Session(settings, reads_only=True) as session:
        if interaction is not None:
            read = partial(read_view, session)
            story = await interaction_story(read, interaction, await at_of(session, as_of))
            _print_story(story, as_json=as_json)
            return
        if compare is not None:
            make = partial(quality_report, partial(read_view, session))
            await print_comparison(session, make, as_of, compare, as_json=as_json)
            return
        found = await quality_report(partial(read_view, session), await at_of(session, as_of))
    if as_json:
        print_json(found)
        return
    whole = found["overall"]
    if not whole["interactions"]:
        console.print(f"No interaction is recorded yet (position {found['position']}).")
    if found["incomplete"]:
        console.print(f"Incomplete, and not counted: {found['incomplete']:,} interactions without their opening.")
    if not whole["interactions"] and not found["satisfaction"]:
        return
    rows = [(words, share_text(whole[name])) for name, words in _QUALITY.items() if whole[name]["n"]]
    waits = ((whole["hours_to_first_action"], "to the first action"), (whole["hours_to_resolution"], "to resolution"))
    for hours, words in waits:
        if hours["n"]:
            middle = _median_text(hours)
            most = quantile_text(hours["p90"], hours["p90_interval"], hours["n"])
            rows.append((words, f"median {middle}, 90th percentile {most}"))
    rows += [
        (f"{one['instrument']}, {one['worst']:g} to {one['best']:g}", satisfaction_text(one))
        for one in found["satisfaction"]
    ]
    print_table(f"Quality of {whole['interactions']:,} interactions, at position {found['position']}", ("", ""), rows)
    _print_groups("channel", found["by_channel"])
    _print_groups("team", found["by_team"])
    _print_groups("line", found["by_line"])
    _print_groups("reason", found["by_reason"])
    for test in found["evenness"]:
        low, high = test["lowest"], test["highest"]
        console.print(
            f"{_QUALITY[test['what']]} by {test['by']}: from {low[1]['share']:.1%} ({low[0]}) "
            f"to {high[1]['share']:.1%} ({high[0]}); probability of such a difference by chance: p = {test['p']:.2g}."
        )
    _print_consistency(found["consistency"])
    console.print(caveats_text(found["rung"], found["caveats"]))


def _print_consistency(lines: Sequence[Consistency]) -> None:
    """Print the groups outside the limits of 95 % that an equal group keeps."""
    rows = [
        (
            one["what"] if one["what"] == "any" else f"{one['what']} {one['label']}",
            f"{one['by']} {group['group']}",
            share_text(group["given"]),
            f"{group['limits'][0]:.1%} to {group['limits'][1]:.1%}",
            ", ".join(map(_middle_text, group["medians"], group["median_intervals"])),
            "99.8 %" if group["given"]["share"] != _within(group, "wide_limits") else "95 %",
        )
        for one in lines
        for group in one["groups"]
        if group["given"]["share"] != _within(group, "limits")
    ]
    columns = ("given", "group", "share of its matters", "limits of 95 %", "median", "outside")
    if rows:
        print_table("Consistency (level 1): groups outside the limits of equal groups", columns, rows[:_ROWS])
    elif lines:
        console.print("Consistency (level 1): no channel or team gives more or less often than its limits allow.")


def _middle_text(median: dict[str, str], one: MedianInterval) -> str:
    """Return a median amount with its interval, if any, e.g. ``5.00 GBP (4.00 GBP to 6.00 GBP, n = 40)``."""
    ends = "" if one["interval"] is None else f"{' to '.join(map(money_text, one['interval']))}, "
    return f"{money_text(median)} ({ends}n = {one['n']:,})"


def _within(group: GivenGroup, limits: Literal["limits", "wide_limits"]) -> float:
    """Return a group's share, moved to the nearer limit if it is outside of the limits."""
    low, high = group[limits]
    return min(max(group["given"]["share"] or 0.0, low), high)


_ROWS = 15


def _print_groups(name: _Group, lines: Sequence[QualityFigures]) -> None:
    if len(lines) < 2:  # noqa: PLR2004 - one group equals the total
        return
    rows = [
        (
            one[name],
            one["interactions"],
            share_text(one["first_contact"]),
            share_text(one["transferred"]),
            share_text(one["reopened"]),
            _median_text(one["hours_to_resolution"]),
        )
        for one in lines[:12]
    ]
    columns = (name, "interactions", "first contact", "transferred", "reopened", "to resolution, median")
    print_table(f"By {name}", columns, rows, numbers=(1, 2, 3, 4, 5))


def _median_text(hours: Hours) -> str:
    return quantile_text(hours["median"], hours["median_interval"], hours["n"])


def _print_story(story: InteractionStory | None, *, as_json: bool) -> None:
    if story is None:
        fail("no such interaction is recorded", code="unknown_interaction", as_json=as_json)
    if as_json:
        print_json(story)
        return
    rows = [(step["time"][:19], _later(step["later_seconds"]), step["who"], step["what"]) for step in story["steps"]]
    print_table(f"{story['interaction_id']}, at position {story['position']}", ("when", "", "who", "what"), rows)
    console.print(story["in_short"])


def _later(seconds: float) -> str:
    return f"{hours_text(seconds / 3600)} later" if seconds >= _A_MINUTE else ""


type _Group = Literal["channel", "team", "line", "reason"]
_A_MINUTE = 60


_QUALITY: dict[ShareName, str] = {
    "resolved": "resolved",
    "first_contact": "resolved on the first contact",
    "one_touch": "resolved in one touch",
    "transferred": "transferred",
    "came_back_to_a_team": "returned to an earlier team",
    "stories_repeated": "customer repeated the story",
    "first_line_only": "never left the first line",
    "moved_up": "moved up a line",
    "reopened": "reopened",
    "repeat_contact": "customer back for any reason",
}
