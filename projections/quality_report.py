"""`report quality`: its document, from views."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from domain import quality
from domain.quality import NOT_SAID, Answer, Journey
from ledger.cloudevents import parse_time
from projections.journeys import read_feedback, read_journeys
from projections.trail import read_trail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from projections.answers import Reader

CAVEATS = (
    f"first contact: resolved without a transfer, not reopened, not back within {quality.REPEAT_DAYS} days",
    "long is not bad by itself: see what came of it",
    "satisfaction is of those who answered, and says nothing of loyalty",
)


async def quality_report(read: Reader, at: int | None = None) -> dict[str, Any]:
    """Service quality; shares with Wilson's interval, hours as median and 90th percentile."""
    answer = await read("journeys", lambda c: (read_journeys(c, at), read_feedback(c, at)))
    rows, said = answer.result
    where = {row["interaction_id"]: row for row in rows}
    times = [row[name] for row in rows for name in ("opened", "resolved") if row[name]]
    now = parse_time(max(times)).timestamp() if times else datetime.now(UTC).timestamp()
    some = quality.judged([_journey(row) for row in rows], now)
    groups = quality.groups(some)
    answers = [_answer(row, where.get(row["interaction_id"] or "", {})) for row in said]
    even = [
        quality.evenness(groups[by], by, what) for by in ("channel", "team") for what in ("first_contact", "reopened")
    ]
    position = answer.progress.anchor.position if at is None else at
    return {
        "overall": quality.line(some), **{f"by_{name}": lines for name, lines in groups.items()},
        "evenness": [one for one in even if one is not None],
        "satisfaction": quality.satisfaction(answers, len(some)),
        "window_days": quality.REPEAT_DAYS, "caveats": CAVEATS, "position": position,
    }  # fmt: skip


async def interaction_story(read: Reader, interaction_id: str, at: int | None = None) -> dict[str, Any] | None:
    """One interaction's way, step by step in the order in which it happened, and in short; none where there is none.

    A step's ``later_seconds`` are those since the step before it.
    """
    named = [("interaction", interaction_id)]
    answer = await read("audit_trail", lambda c: read_trail(c, named, until=at))
    found = sorted(answer.result, key=lambda item: (item["time"], item["position"]))
    if not found:
        return None
    times = [parse_time(item["time"]) for item in found]
    steps = [
        {"time": item["time"], "later_seconds": (now - before).total_seconds(), "who": item["who"],
         "what": item["what"], "type": item["type"], "position": item["position"]}
        for item, now, before in zip(found, times, [times[0], *times], strict=False)
    ]  # fmt: skip
    rows = (await read("journeys", lambda c: read_journeys(c, at))).result
    journey = next((row for row in rows if row["interaction_id"] == interaction_id), None)
    position = answer.progress.anchor.position if at is None else at
    return {"interaction_id": interaction_id, "steps": steps, "in_short": _in_short(journey, times, steps),
            "position": position}  # fmt: skip


def _in_short(journey: Mapping[str, Any] | None, times: list[datetime], steps: list[dict[str, Any]]) -> str:
    hours = (times[-1] - times[0]).total_seconds() / 3600
    if journey is None:
        return f"{len(steps)} steps in {hours:,.1f} h; nobody told how it began."
    parts = [f"{len(steps)} steps in {hours:,.1f} h", f"passed on {journey['transfers'] or 0} times"]
    if journey["repeated_stories"]:
        parts.append(f"told their story again {journey['repeated_stories']} times")
    if journey["came_back"]:
        parts.append("came back to a team they had left")
    if journey["reopened"]:
        parts.append(f"reopened {journey['reopened']} times")
    parts.append("resolved" if journey["resolved"] else "not resolved yet")
    return "; ".join(parts) + "."


def _journey(row: Mapping[str, Any]) -> Journey:
    return Journey(
        row["customer_id"], row["channel"] or NOT_SAID, row["first_team"] or NOT_SAID, row["reason"] or NOT_SAID,
        parse_time(row["opened"]).timestamp(), _moment(row["resolved"]), _moment(row["first_action"]),
        row["highest_line"], bool(row["moved_up"]), row["transfers"] or 0, bool(row["came_back"]),
        row["repeated_stories"], row["reopened"] or 0,
    )  # fmt: skip


def _moment(text: str | None) -> float | None:
    return parse_time(text).timestamp() if text else None


def _answer(row: Mapping[str, Any], journey: Mapping[str, Any]) -> Answer:
    span = row["best"] - row["worst"]
    score = (row["score"] - row["worst"]) / span if span else 0.0
    return Answer(row["instrument"], score, journey.get("channel") or NOT_SAID, journey.get("first_team") or NOT_SAID)
