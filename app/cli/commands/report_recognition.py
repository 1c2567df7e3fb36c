"""`report recognition`: thanks, training, ideas, morale and turnover."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from app.cli.as_of import as_of_option
from app.cli.commands.report_views import at_of, report
from app.cli.comparison import compare_option, print_comparison
from app.cli.figures import caveats_text
from app.cli.main import command
from app.output import console, print_json, print_table
from app.runtime.session import Session
from app.runtime.views import read_view
from projections.policy_history import policy_in_force

if TYPE_CHECKING:
    from config.settings import Settings
    from domain.analytics.recognition import RetentionPoint, VoiceFigures
    from projections.reports.recognition import RecognitionReport


@as_of_option
@compare_option
@command(report)
async def recognition(settings: Settings, as_of: str | None, compare: str | None, *, as_json: bool) -> None:
    """Thanks, use of training, ideas and obstacles, morale by team, and retention. No ranking of people."""
    from projections.reports.recognition import recognition_report

    async with Session(settings, reads_only=True) as session:

        async def make(at: int | None) -> RecognitionReport:
            return await recognition_report(partial(read_view, session), await policy_in_force(session.log, at), at)

        if compare is not None:
            await print_comparison(session, make, as_of, compare, as_json=as_json)
            return
        found = await make(await at_of(session, as_of))
    if as_json:
        print_json(found)
        return
    thanks = found["thanks"]
    praised = ", ".join(f"{number} {kind}" for kind, number in thanks["actions_praised"].items())
    console.print(
        f"Thanks given {thanks['given']:,} times to {thanks['people_thanked']:,} people (position {found['position']})"
        + (f"; for these actions: {praised}." if praised else ".")
    )
    for title, columns, rows in _tables(found):
        if rows:
            print_table(title, columns, rows)
    console.print(caveats_text(found["rung"], found["caveats"]))


type Table = tuple[str, tuple[str, ...], list[tuple[object, ...]]]
_SUPPRESSED = "fewer than 5, or next to such a team"


def _days(one: VoiceFigures) -> str:
    """Return the median of days to the answer with its interval, if any, e.g. ``2.0 (1.5 to 3.0, n = 12)``."""
    if one["median_days_to_answer"] is None:
        return ""
    ends = one["median_days_to_answer_interval"]
    interval = "" if ends is None else f"{ends[0]:.1f} to {ends[1]:.1f}, "
    return f"{one['median_days_to_answer']:.1f} ({interval}n = {one['answered']:,})"


def _tables(found: RecognitionReport) -> tuple[Table, ...]:
    """Return title, columns and rows of each table."""
    thanks = found["thanks"]
    return (
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
                (one["from"], one["to"], one["people"] or "fewer than 5", one["used_before"], one["used_after"])
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
                    _days(one),
                    ", ".join(f"{fate} {number}" for fate, number in one["fates"].items()),
                )
                for one in found["voices"]
            ],
        ),
        (
            "Morale",
            ("period", "team", "answered", "score, of best", "of the whole team"),
            [
                (
                    one["period"],
                    one["team"],
                    _SUPPRESSED if one["suppressed"] else f"{one['respondents']} of {one['invited']}",
                    "" if one["suppressed"] else f"{one['score']:.0%}",
                    "" if one["interval"] is None else "{:.0%} to {:.0%}".format(*one["interval"]),
                )
                for one in found["morale"]
            ],
        ),
        (
            "Retention",
            ("role", "people", "left", "still employed after"),
            [(one["role"], one["n"] or "fewer than 5", one["left"], _curve(one["curve"])) for one in found["staying"]],
        ),
    )


def _curve(points: list[RetentionPoint]) -> str:
    return ", ".join(
        f"{at['months']} months {at['staying']:.0%}"
        + ("" if at["interval"] is None else " ({:.0%} to {:.0%})".format(*at["interval"]))
        for at in points
    )
