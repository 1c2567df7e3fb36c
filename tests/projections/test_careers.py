"""Reported actions and escalations belong to the role and the team that their employee had when they happened."""

from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from consumers.decisions.state.follower import DecisionState
from domain.commands import action_id_of
from projections.engine.temporal_tables import as_of
from projections.views import authority, casework
from projections.views.people import read_standing
from tests.support.any_order import DECISIONS, OPENED
from tests.support.builders import event, gbp
from tests.support.decision_scenarios import empty_index
from tests.support.documents import Document
from tests.support.view_histories import Views, recorded

type Places = dict[str, tuple[object, object]]


def moved(name: str, day: int, role: str, *teams: str, kind: str = "changed", employee: str = "A-1") -> Document:
    time = f"2026-01-{day:02d}T09:00:00Z"
    return event(name, f"employee.{kind}", "hr", time, employee_id=employee, role=role, team_ids=list(teams))


def left(name: str, day: int) -> Document:
    return event(name, "employee.left", "hr", f"2026-01-{day:02d}T09:00:00Z", employee_id="A-1")


def acted(name: str, day: int, agent: str = "A-1", time: str = "10:00:00", **data: Any) -> Document:
    told: Document = {"agent_id": agent, "kind": "refund", "amount": gbp("5.00"), "reason": name}
    return event(name, "action.reported", "till", f"2026-01-{day:02d}T{time}Z", **told, **data)


def asked(name: str, day: int, agent: str | None = "A-1", escalation: str | None = None) -> Document:
    told: Document = {"escalation_id": escalation or name, "amount": gbp("30.00"), "reason": name}
    told |= {} if agent is None else {"requested_by": agent}
    return event(name, "escalation.reported", "desk", f"2026-01-{day:02d}T10:00:00Z", **told)


def corrected(name: str, wrong: Document, data: Document | None) -> Document:
    told = {"source_of": wrong["source"], "id_of": wrong["id"], "reason": "typed wrongly", "data": data}
    return event(name, "fact.corrected", wrong["source"], **told)


def places(folder: Path, *history: Document | tuple[str, bytes], batch: int = 1, at: int | None = None) -> Places:
    """Return the role and the team of each reported action and escalation, by its reason; both views must agree."""
    views = Views(folder, ["casework", "authority"]).take(recorded(history), batch)
    found = [_places(views, "casework", table, at) for table in (casework.actions, casework.escalations)]
    assert found[1] == _places(views, "authority", authority.asked, at)
    views.close()
    return found[0] | found[1]


def _places(views: Views, name: str, table: sa.Table, at: int | None) -> Places:
    source = as_of(table, at)
    with views._engines[name].begin() as connection:
        rows = connection.execute(sa.select(source.c.reason, source.c.role, source.c.team_id))
        return {row.reason: (row.role, row.team_id) for row in rows if row.reason is not None}


JOINED, RAISED = moved("j", 2, "agent", "phone", "mail", kind="joined"), moved("r", 10, "senior", "phone")
TEAM, LEFT = moved("t", 15, "senior", "chat"), left("l", 20)
REPORTS = (acted("before", 1), acted("first", 5), asked("raised", 12), acted("there", 16), asked("gone", 25))
EXPECTED: Places = {
    "before": (None, None),
    "first": ("agent", "phone"),
    "raised": ("senior", "phone"),
    "there": ("senior", "chat"),
    "gone": (None, None),
}


@pytest.mark.parametrize("moves", list(permutations((JOINED, RAISED, TEAM, LEFT)))[::5])
@pytest.mark.parametrize("batch", [1, 99])
def test_any_order_of_moves_gives_the_post_at_the_time(tmp_path: Path, moves: tuple[Document, ...], batch: int) -> None:
    mixed = Random(1).sample([*REPORTS, *moves], 9)
    for number, facts in enumerate(([*REPORTS, *moves], [*moves, *REPORTS], mixed)):
        assert places(tmp_path / f"{number}", *facts, batch=batch) == EXPECTED


@pytest.mark.parametrize("batch", [1, 99])
def test_a_late_move_counts_from_its_position_on(tmp_path: Path, batch: int) -> None:
    """As of a position, a row shows the career that was recorded up to there, also within one commit."""
    facts = (acted("a", 12), asked("b", 12), RAISED, JOINED, moved("m", 11, "lead", "chat"))
    for at, post in ((2, (None, None)), (3, ("senior", "phone")), (4, ("senior", "phone")), (5, ("lead", "chat"))):
        assert places(tmp_path / f"{at}", *facts, batch=batch, at=at) == {"a": post, "b": post}


def test_a_post_begins_at_the_instant_of_its_fact(tmp_path: Path) -> None:
    facts = (JOINED, acted("at", 10, time="09:00:00"), acted("just before", 10, time="08:59:59.999999"), RAISED)
    assert places(tmp_path, *facts) == {"at": ("senior", "phone"), "just before": ("agent", "phone")}


@pytest.mark.parametrize("batch", [1, 99])
def test_a_corrected_move_moves_the_rows_of_its_time(tmp_path: Path, batch: int) -> None:
    right = {"employee_id": "A-1", "role": "lead", "team_ids": ["door"]}
    told = (JOINED, RAISED, acted("a", 5), asked("b", 12))
    one = places(tmp_path / "1", *told, corrected("c", RAISED, right), batch=batch)
    assert one == {"a": ("agent", "phone"), "b": ("lead", "door")}
    none = places(tmp_path / "2", *told, corrected("c", RAISED, None), batch=batch)
    assert none == {"a": ("agent", "phone"), "b": ("agent", "phone")}
    other = places(tmp_path / "3", *told, corrected("c", JOINED, right | {"employee_id": "A-2"}), batch=batch)
    assert other == {"a": (None, None), "b": ("senior", "phone")}


@pytest.mark.parametrize("batch", [1, 99])
def test_a_corrected_report_belongs_to_its_new_employee(tmp_path: Path, batch: int) -> None:
    action, request = acted("a", 12), asked("b", 12)
    other = moved("o", 3, "lead", "door", kind="joined", employee="A-2")
    now = [corrected("c", action, action["data"] | {"agent_id": "A-2"})]
    now.append(corrected("d", request, request["data"] | {"requested_by": "A-2"}))
    for number, facts in enumerate(((JOINED, other, action, request, *now), (action, request, *now, other, RAISED))):
        found = places(tmp_path / f"{number}", *facts, batch=batch)
        assert found == {"a": ("lead", "door"), "b": ("lead", "door")}


@pytest.mark.parametrize("batch", [1, 99])
def test_a_request_may_name_its_employee_later(tmp_path: Path, batch: int) -> None:
    """The row begins at the earliest report of the request, and a later report names the requester."""
    facts = (JOINED, RAISED, asked("b", 12, None, "E"), asked("a", 5, None, "E"), asked("c", 13, "A-1", "E"))
    found = places(tmp_path, *facts, batch=batch)
    assert list(found.values()) == [("agent", "phone")]


def test_a_team_that_a_report_names_stays(tmp_path: Path) -> None:
    facts = (acted("a", 5, team_id="night"), JOINED, RAISED, TEAM)
    assert places(tmp_path, *facts) == {"a": ("agent", "night")}


def test_decisions_keep_the_role_and_team_that_the_decider_knew(tmp_path: Path) -> None:
    """They are in the event; a fact about the employee that comes later changes nothing."""
    late = event("x", "employee.joined", "hr", "2025-01-01T00:00:00Z", employee_id="A-1", role="lead", team_ids=["z"])
    assert set(places(tmp_path, OPENED, DECISIONS[0], DECISIONS[2], late).values()) == {("agent", None)}


@pytest.mark.parametrize("order", ["as they happened", "reversed", "shuffled"])
@pytest.mark.parametrize("batch", [7, 999])
def test_more_posts_of_one_employee_than_are_folded_at_once(tmp_path: Path, order: str, batch: int) -> None:
    facts: list[Document] = []
    expected: Places = {}
    for number in range(70):
        hour = f"{1 + number // 24:02d}T{number % 24:02d}"
        data = {"employee_id": "A-1", "role": f"role-{number}", "team_ids": [f"team-{number % 7}"]}
        facts.append(event(f"m-{number}", "employee.changed", "hr", f"2026-01-{hour}:00:00Z", **data))
        told: Document = {"agent_id": "A-1", "kind": "refund", "amount": gbp("5.00"), "reason": f"{number}"}
        facts.append(event(f"a-{number}", "action.reported", "till", f"2026-01-{hour}:30:00Z", **told))
        expected[f"{number}"] = (f"role-{number}", f"team-{number % 7}")
    if order == "reversed":
        facts.reverse()
    elif order == "shuffled":
        Random(5).shuffle(facts)
    assert places(tmp_path, *facts, batch=batch) == expected


async def test_escalations_up_to_an_event_time_have_the_post_of_their_time(tmp_path: Path) -> None:
    views = Views(tmp_path, ["casework"]).take(recorded((asked("raised", 12), TEAM, RAISED)))
    found = await views.read(
        "casework", lambda connection: casework.read_escalations_happened(connection, "2026-01-13T00:00:00.000000Z")
    )
    assert [one["team_id"] for one in found.result] == ["phone"]


async def test_actions_up_to_an_event_time_have_the_post_of_their_time(tmp_path: Path) -> None:
    """Also where the action was changed after that time, and the move came last."""
    action = acted("a", 12)
    paid = event("p", "refund.settled", "psp", "2026-01-20T10:00:00Z", total=gbp("5.00"), action_id=_id_of(action))
    views = Views(tmp_path, ["casework"]).take(recorded((action, paid, RAISED)))
    found = await views.read(
        "casework", lambda connection: casework.read_actions_happened(connection, "2026-01-13T00:00:00.000000Z")
    )
    assert [(one["role"], one["team_id"]) for one in found.result] == [("senior", "phone")]


@pytest.mark.parametrize("is_late", [False, True])
def test_a_post_that_is_told_again_each_day_is_kept_once(tmp_path: Path, is_late: bool) -> None:
    told = [JOINED, *(moved(f"m-{day}", day, "agent", "phone") for day in range(3, 20)), acted("a", 30)]
    views = Views(tmp_path, ["authority"]).take(recorded(told[::-1] if is_late else told))
    (row,) = views.rows("authority")["careers"]
    assert row["posts"] == '[["2026-01-02T09:00:00.000000Z","agent","phone"]]'


def _id_of(action: Document) -> str:
    return action_id_of(action["source"], action["id"])


BACK = moved("back", 28, "agent", "phone", kind="joined")


@pytest.mark.parametrize("order", list(permutations((TEAM, LEFT, moved("later", 25, "senior", "chat")))))
@pytest.mark.parametrize("end", [(), (BACK,)], ids=["left", "back"])
async def test_the_decider_and_the_view_agree_on_a_leaver(
    tmp_path: Path, order: tuple[Document, ...], end: tuple[Document, ...]
) -> None:
    """A change before or after the departure, told before or after it, brings no leaver back; a new joining does."""
    told = recorded([JOINED, *order, *end])
    state, views = DecisionState(empty_index()), Views(tmp_path, ["people"]).take(told)
    state.apply(told)
    standing = (await views.read("people", lambda connection: read_standing(connection, "A-1"))).result
    assert standing.has_left is state.staff.has_left("A-1") is (not end)
    views.close()
