"""The document of `report recognition`, computed from views."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypedDict

import sqlalchemy as sa

from domain.analytics import recognition
from domain.analytics.recognition import (
    CareerStep,
    CourseFigures,
    Retention,
    Survey,
    TeamMorale,
    TimeInRole,
    Voice,
    VoiceFigures,
)
from ledger.store.cloudevents import parse_time
from projections.engine.row_cache import plain_rows
from projections.engine.temporal_tables import as_of
from projections.reading import EVERYBODY
from projections.views.audit_trail import recorded_until
from projections.views.casework import actions
from projections.views.people import read_careers, read_people, read_table, read_voices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from domain.policy.model import Policy
    from projections.engine.storage import Row
    from projections.reading import AccessScope, Reader

NOT_SAID = "not said"
CAVEATS = (
    "results after a course, and retention, may have other causes: training and promotion are not random",
    f"figures of fewer than {recognition.FEW} people are not shown",
)


class ReasonCount(TypedDict):
    """A reason for recognition, and how often it was given."""

    reason: str
    times: int


class RecognitionFigures(TypedDict):
    """Counts of recognition, and of the actions in interactions that were praised."""

    given: int
    people_thanked: int
    points: int
    by_giver: dict[str, int]
    by_team: dict[str, int]
    reasons: list[ReasonCount]
    with_interaction: int
    actions_praised: dict[str, int]


class RecognitionReport(TypedDict):
    """The document of `report recognition`."""

    thanks: RecognitionFigures
    training: list[CourseFigures]
    careers: list[CareerStep]
    voices: list[VoiceFigures]
    morale: list[TeamMorale]
    staying: list[Retention]
    caveats: Sequence[str]
    rung: int
    """The evidence level of all figures: 1, a description."""
    by_time: str
    """`recorded`: events count from their recorded time on."""
    position: int


async def recognition_report(
    read: Reader, policy: Policy | None, at: int | None = None, scope: AccessScope = EVERYBODY
) -> RecognitionReport:
    """Return recognition, courses, ideas and obstacles, morale and retention, without names or ranks.

    It covers the people in ``scope``, as of position ``at``.
    """
    answer = await read("people", lambda c: _read(c, at))
    (thanks, courses, surveys), voices, people, moves = answer.result
    thanks = [one for one in thanks if scope.shows(one["receiver_id"])]
    courses = [one for one in courses if scope.shows(one["employee_id"])]
    surveys = [one for one in surveys if scope.shows(None, one["team_id"])]
    voices = [one for one in voices if scope.shows(one["employee_id"])]
    moves = [one for one in moves if scope.shows(one[0])]
    people = {name: one for name, one in people.items() if scope.shows(name)}
    done = (await read("casework", lambda c: _done(c, at))).result
    opens = _opens(policy)
    learning = {one["employee_id"] for one in courses} | {who for who, *_ in moves}
    praised = {one["interaction_id"] for one in thanks}
    acts = defaultdict[str, list[tuple[float, str]]](list)
    kinds_on = defaultdict[str, list[str]](list)
    for agent_id, time, kind, interaction_id in done:
        if agent_id in learning:
            acts[agent_id].append((_moment(time), kind))
        if interaction_id in praised:
            kinds_on[interaction_id].append(kind)
    position = answer.progress.anchor.position if at is None else at
    recorded = await recorded_until(read, answer.progress, at)
    return {
        "thanks": _thanks([one for one in thanks if one["receiver_id"]], people, kinds_on),
        "training": recognition.followed(
            [(one["employee_id"], one["course_id"], _moment(one["completed"])) for one in courses if one["completed"]],
            acts,
            opens,
        ),
        "careers": recognition.careers([(who, old, new, _moment(time)) for who, old, new, time in moves], acts),
        "voices": recognition.answers(_voice(one) for one in voices),
        "morale": recognition.morale(_survey(one) for one in surveys if one["team_id"]),
        "staying": recognition.staying(_times_in_role(people, moves), _moment(recorded) if recorded else 0.0),
        "caveats": CAVEATS,
        "rung": 1,
        "by_time": "recorded",
        "position": position,
    }


def _read(
    connection: sa.Connection, at: int | None
) -> tuple[list[list[Row]], list[Row], dict[str, Row], list[tuple[str, str, str, str]]]:
    tables = [read_table(connection, name, at) for name in ("thanks", "courses", "morale")]
    return tables, read_voices(connection, at), read_people(connection, at), read_careers(connection, at)


def _done(connection: sa.Connection, at: int | None) -> list[tuple[str, str, str, str]]:
    """Return agent, time, kind and interaction of every action."""
    source = as_of(actions, at)
    query = sa.select(source.c.agent_id, source.c.time, source.c.kind, source.c.interaction_id)
    return plain_rows(connection, query.where(source.c.position.is_not(None)))


def _voice(row: Row) -> Voice:
    answered = _moment(row["answered"]) if row["answered"] else None
    return Voice(row["what"], _moment(row["said"]), answered, row["answer"])


def _moment(text: str) -> float:
    return parse_time(text).timestamp()


def _opens(policy: Policy | None) -> dict[str, list[str]]:
    """Return, by course, the kinds that it opens under the policy in force."""
    found = defaultdict[str, set[str]](set)
    if policy is not None:
        for role in policy.roles.values():
            for kind, needed in role.requires.items():
                for course in needed:
                    found[course].add(kind)
    return {course: sorted(kinds) for course, kinds in found.items()}


def _thanks(
    given: Sequence[Row], people: Mapping[str, Row], kinds_on: Mapping[str, Sequence[str]]
) -> RecognitionFigures:
    """Return counts of recognition by giver, team and reason, and the actions in interactions that were praised."""
    teams = Counter(
        team for one in given for team in json.loads(people.get(one["receiver_id"], {}).get("team_ids") or "[]")
    )
    sizes = Counter(team for one in people.values() for team in json.loads(one["team_ids"] or "[]"))
    reasons = Counter(one["reason"] for one in given)
    praised = Counter(kind for one in given for kind in kinds_on.get(one["interaction_id"] or "", ()))
    return {
        "given": len(given),
        "people_thanked": len({one["receiver_id"] for one in given}),
        "points": sum(one["points"] or 0 for one in given),
        "by_giver": dict(sorted(Counter(one["giver_kind"] or "not said" for one in given).items())),
        "by_team": {team: number for team, number in sorted(teams.items()) if sizes[team] >= recognition.FEW},
        "reasons": [{"reason": reason, "times": times} for reason, times in reasons.most_common(10)],
        "with_interaction": sum(one["interaction_id"] is not None for one in given),
        "actions_praised": dict(sorted(praised.items())),
    }


def _survey(row: Row) -> Survey:
    score = recognition.place_on_scale(row["score"], row["worst"], row["best"])
    return Survey(row["team_id"], row["period"], row["invited"], row["respondents"], score)


def _times_in_role(people: Mapping[str, Row], moves: Sequence[tuple[str, str, str, str]]) -> list[TimeInRole]:
    """Return employees' times in each of their roles, from their joining and their changes of role."""
    changes = defaultdict[str, list[tuple[str, str, str]]](list)
    for employee, old, new, time in moves:
        changes[employee].append((old, new, time))
    found: list[TimeInRole] = []
    for employee, row in people.items():
        if not row["joined"]:
            continue
        began = _moment(row["joined"])
        for old, _, time in changes[employee]:
            found.append(TimeInRole(employee, old or NOT_SAID, began, moved=_moment(time)))
            began = _moment(time)
        left = _moment(row["left"]) if row["left"] else None
        found.append(TimeInRole(employee, row["role"] or NOT_SAID, began, left=left))
    return found
