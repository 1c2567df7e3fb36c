"""The document of `report quality`, computed from views."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
import sqlalchemy as sa

from domain.analytics import service_quality
from domain.analytics.consistency import Consistency, HandledMatters, consistency
from domain.analytics.labels import Labels, numbers_of
from domain.analytics.satisfaction import FeedbackScore, Satisfaction, satisfaction
from domain.analytics.service_quality import (
    NOT_SAID,
    Evenness,
    InteractionColumns,
    QualityFigures,
)
from domain.events.decisions import LEDGER_SOURCE
from ledger.store.cloudevents import parse_time
from projections.engine.columns import seconds_of
from projections.engine.pages import PageRequest
from projections.engine.row_cache import plain_rows
from projections.engine.temporal_tables import as_of
from projections.reading import EVERYBODY
from projections.views.audit_trail import read_trail, recorded_until
from projections.views.casework import read_first_actions, read_given
from projections.views.journeys import journeys as table
from projections.views.journeys import read_feedback, read_incomplete, read_journey, read_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from domain.analytics.service_quality import Ints, ShareName
    from projections.engine.storage import Row
    from projections.reading import AccessScope, Reader

_COMPARED: tuple[ShareName, ...] = ("first_contact", "reopened")
CAVEATS = (
    (
        "first contact: resolved without a transfer, not reopened, and the customer not back in the same matter until "
        f"{service_quality.REPEAT_DAYS} days after the first resolution; known for interactions with a customer, once "
        "these days are over"
    ),
    "a long interaction is not bad by itself: look at its outcome",
    "satisfaction covers only customers that answered, and does not measure loyalty",
    (
        "consistency describes (evidence level 1): groups outside their limits may have other customers; limits are "
        "adjusted for overdispersion"
    ),
)


class QualityReport(TypedDict):
    """The document of `report quality`."""

    overall: QualityFigures
    by_channel: list[QualityFigures]
    by_team: list[QualityFigures]
    by_line: list[QualityFigures]
    by_reason: list[QualityFigures]
    evenness: list[Evenness]
    consistency: list[Consistency]
    satisfaction: list[Satisfaction]
    incomplete: int
    """Interactions whose opening was not reported; no other figure counts them."""
    window_days: int
    caveats: Sequence[str]
    rung: int
    """The evidence level of all figures: 1, a description."""
    by_time: str
    """`recorded`: events count from their recorded time on."""
    position: int


class StoryStep(TypedDict):
    """A step of an interaction; ``later_seconds`` are the seconds since the step before it."""

    time: str
    later_seconds: float
    who: str | None
    what: str
    type: str
    position: int


class InteractionStory(TypedDict):
    """The steps of one interaction in order of event time, with a summary."""

    interaction_id: str
    steps: list[StoryStep]
    in_short: str
    position: int


async def quality_report(read: Reader, at: int | None = None, scope: AccessScope = EVERYBODY) -> QualityReport:
    """Return service quality; shares with Wilson's interval, hours as median and 90th percentile.

    It is as of position ``at``; a ``scope`` limits it to interactions that began in one of its teams.
    """
    acted, given = (await read("casework", lambda c: (read_first_actions(c, at), read_given(c, at)))).result
    answer = await read("journeys", lambda c: (_columns(c, at, acted), read_feedback(c, at), read_incomplete(c, at)))
    (ids, journeys), said, incomplete = answer.result
    where = dict(zip(ids, journeys.team.texts(), strict=True)) if said else {}
    recorded = await recorded_until(read, answer.progress, at)
    some = service_quality.judged(journeys, parse_time(recorded).timestamp() if recorded else 0.0)
    if scope.people is not None:  # filtered after judging, because a return to another team counts, too
        mine = np.array([team in scope.teams for team in journeys.team.names], bool)[journeys.team.numbers]
        some, ids = some.some(mine), [one for one, shown in zip(ids, mine, strict=True) if shown]
    groups = service_quality.groups(some)
    answers = [
        FeedbackScore(
            row["instrument"],
            row["score"],
            row["worst"],
            row["best"],
            row["interaction_id"] if row["interaction_id"] in where else None,
        )
        for row in said
        if scope.people is None or where.get(row["interaction_id"]) in scope.teams
    ]
    even = [service_quality.evenness(groups[by], by, what) for by in ("channel", "team") for what in _COMPARED]
    position, of = answer.progress.anchor.position if at is None else at, some.journeys
    return {
        "overall": service_quality.line(some),
        "by_channel": [{"channel": label, **figures} for label, figures in groups["channel"]],
        "by_team": [{"team": label, **figures} for label, figures in groups["team"]],
        "by_line": [{"line": label, **figures} for label, figures in groups["line"]],
        "by_reason": [{"reason": label, **figures} for label, figures in groups["reason"]],
        "evenness": [one for one in even if one is not None],
        "consistency": consistency(handled_matters(ids, of.channel, of.team, of.reason, given)),
        "satisfaction": satisfaction(answers, some.back.size),
        "incomplete": incomplete,
        "window_days": service_quality.REPEAT_DAYS,
        "caveats": CAVEATS,
        "rung": 1,
        "by_time": "recorded",
        "position": position,
    }


def handled_matters(
    ids: Sequence[str], channel: Labels, team: Labels, reason: Labels, given: Sequence[tuple[str, str, str, int]]
) -> HandledMatters:
    """Return interactions by id, channel, team and reason, with the goodwill that was given in them.

    ``given`` has a sum for each interaction, kind and currency, in minor units. Others are left out.
    """
    places = {one: place for place, one in enumerate(ids)}
    known = [one for one in given if one[0] in places]
    matters, kinds, currencies, minors = zip(*known, strict=True) if known else [()] * 4
    return HandledMatters(
        channel,
        team,
        reason,
        numbers_of(matters, places),
        Labels.of(kinds, ""),
        Labels.of(currencies, ""),
        np.array(minors, np.int64),
    )


async def interaction_story(read: Reader, interaction_id: str, at: int | None = None) -> InteractionStory | None:
    """Return the story of one interaction, or ``None`` if it is unknown."""
    named = [("interaction", interaction_id)]
    answer = await read("audit_trail", lambda c: read_trail(c, named, PageRequest(at=at)))
    order = (await read("journeys", lambda c: read_order(c, interaction_id))).result
    places = {position: place for place, position in enumerate(order)}
    found = sorted(answer.result, key=lambda item: (item["time"], *_place(item, places)))
    if not found:
        return None
    times = [parse_time(item["time"]) for item in found]
    steps: list[StoryStep] = [
        {
            "time": item["time"],
            "later_seconds": (now - before).total_seconds(),
            "who": item["who"],
            "what": item["what"],
            "type": item["type"],
            "position": item["position"],
        }
        for item, now, before in zip(found, times, [times[0], *times], strict=False)
    ]
    journey = (await read("journeys", lambda c: read_journey(c, interaction_id, at))).result
    position = answer.progress.anchor.position if at is None else at
    return {
        "interaction_id": interaction_id,
        "steps": steps,
        "in_short": _in_short(journey, times, steps),
        "position": position,
    }


def _place(line: Row, places: Mapping[int, int]) -> tuple[int, int, str, str]:
    """Return the place of an event among those of its time: the path, other facts, decisions as they were made."""
    is_decision = line["source"] == LEDGER_SOURCE
    path = places.get(line["position"], len(places) + is_decision)
    return path, line["position"] if is_decision else 0, line["source"], line["event_id"]


def _in_short(journey: Row | None, times: list[datetime], steps: list[StoryStep]) -> str:
    hours = (times[-1] - times[0]).total_seconds() / 3600
    if journey is None:
        return f"{len(steps)} steps in {hours:,.1f} h; its opening was not reported."
    parts = [f"{len(steps)} steps in {hours:,.1f} h", f"passed on {journey['transfers'] or 0} times"]
    if journey["repeated_stories"]:
        parts.append(f"told their story again {journey['repeated_stories']} times")
    if journey["came_back"]:
        parts.append("came back to a team they had left")
    if journey["reopened"]:
        parts.append(f"reopened {journey['reopened']} times")
    parts.append("resolved" if journey["resolved"] else "not resolved yet")
    return "; ".join(parts) + "."


_TEXTS = ("channel", "first_team", "reason")
_TIMES = ("opened", "first_resolved", "resolved")
_NUMBERS = ("highest_line", "moved_up", "transfers", "came_back", "repeated_stories", "reopened")


def _columns(
    connection: sa.Connection, at: int | None, acted: Mapping[str, str]
) -> tuple[list[str], InteractionColumns]:
    """Return interactions by id and as columns; the driver's tuples make it fast (100,000 in less than a second)."""
    source = as_of(table, at)
    names = ("interaction_id", "customer_id", "order_id", *_TEXTS, *_TIMES, *_NUMBERS)
    query = sa.select(*(source.c[name] for name in names)).where(source.c.opened.is_not(None))
    rows = plain_rows(connection, query)
    columns = [*zip(*rows, strict=True)] if rows else [()] * len(names)
    of = dict(zip(names, columns, strict=True))
    customer, order, matter = (_numbered(of[name]) for name in ("customer_id", "order_id", "reason"))
    channel, team, reason = (Labels.of(of[name], NOT_SAID) for name in _TEXTS)
    opened, first_resolved, resolved = (seconds_of(of[name]) for name in _TIMES)
    first_action = seconds_of([acted.get(one) for one in of["interaction_id"]])
    line, moved_up, transfers, came_back, repeated, reopened = (np.array(of[name], float) for name in _NUMBERS)
    return list(of["interaction_id"]), InteractionColumns(
        customer,
        channel,
        team,
        reason,
        order,
        matter,
        opened,
        first_resolved,
        resolved,
        first_action,
        line,
        moved_up == 1,
        np.nan_to_num(transfers).astype(np.int64),
        came_back == 1,
        repeated,
        np.nan_to_num(reopened).astype(np.int64),
    )


def _numbered(texts: Sequence[str | None]) -> Ints:
    """Return equal texts as equal numbers from 0, and -1 for ``None``."""
    known = dict.fromkeys((None, *texts))
    return numbers_of(texts, {text: place for place, text in enumerate(known, -1)})
