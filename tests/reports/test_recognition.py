"""The recognition report: thanks, training, answers, morale and retention, without figures of few people."""

import json
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.runtime.session import Session
from app.runtime.views import read_view
from domain.abuse.history import DAY
from domain.analytics import recognition
from domain.analytics.recognition import MONTH, Survey, TimeInRole, Voice
from projections.policy_history import policy_in_force
from projections.reports.recognition import recognition_report
from projections.views.people import read_careers
from tests.support.builders import event, reported_action
from tests.support.forked_cli import CommandLine
from tests.support.organisations import BASIC_POLICY
from tests.support.upstreams import upstream_of


def test_morale_of_a_few_is_suppressed_and_cannot_be_subtracted() -> None:
    small, middle, large = (
        Survey("A", "2026-01", 9, 4, 0.5),
        Survey("B", "2026-01", 9, 6, 0.6),
        Survey("C", "2026-01", 9, 9, 0.7),
    )
    shown = {one["team"]: one["score"] for one in recognition.morale([large, small, middle])}
    assert shown == {"A": None, "B": None, "C": 0.7}
    assert [one["suppressed"] for one in recognition.morale([middle, large])] == [False, False]
    two_small = [small, Survey("D", "2026-01", 4, 1, 0.1), middle]
    assert [one["team"] for one in recognition.morale(two_small) if not one["suppressed"]] == ["B"]


def test_staying_is_the_product_limit_of_kaplan_and_meier() -> None:
    """Ten people: left after 4, 8 and 10 months, one moved to another role after 6: 0.9 x (1 - 1/8) x (1 - 1/7)."""
    people = [TimeInRole(f"L{months}", "agent", 0, left=months * MONTH) for months in (4, 8, 10)]
    people += [TimeInRole("M", "agent", 0, moved=6 * MONTH)]
    people += [TimeInRole(f"S{number}", "agent", 0) for number in range(6)]
    (found,) = recognition.staying(people, 12 * MONTH)
    at = {one["months"]: one for one in found["curve"]}
    assert at[3]["staying"] == 1.0
    assert at[6]["staying"] == pytest.approx(0.9)
    assert at[12]["staying"] == pytest.approx(0.9 * (1 - 1 / 8) * (1 - 1 / 7))
    assert (interval := at[12]["interval"]) is not None
    assert interval[0] < at[12]["staying"] < interval[1]
    assert 24 not in at
    (few,) = recognition.staying(people[:4], 12 * MONTH)
    assert (few["suppressed"], few["n"], few["curve"]) == (True, None, [])
    (all_here,) = recognition.staying(people[4:], 12 * MONTH)
    assert {one["staying"] for one in all_here["curve"]} == {1.0}


def test_steps_of_a_career_are_shown_for_five() -> None:
    acts = {
        f"P{n}": [(-5 * DAY, "refund"), (5 * DAY, "refund"), (6 * DAY, "refund"), (95 * DAY, "refund")]
        for n in range(5)
    }
    moves = [(f"P{n}", "agent", "senior", 0.0) for n in range(5)]
    (found,) = recognition.careers(moves, acts)
    assert (found["people"], found["used_before"], found["used_after"]) == (5, 5, 10)
    (few,) = recognition.careers(moves[:4], acts)
    assert (few["suppressed"], few["people"], few["used_after"]) == (True, None, None)


async def test_careers_are_read_from_facts(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics(BASIC_POLICY)
        steps = (("joined", "agent", ["A"]), ("changed", "agent", ["B"]), ("changed", "senior", ["B"]))
        for number, (what, role, teams) in enumerate(steps):
            await upstream.record(
                event(
                    f"e-{number}",
                    f"employee.{what}",
                    time=f"2026-01-0{number + 1}T00:00:00Z",
                    employee_id="P",
                    role=role,
                    team_ids=teams,
                )
            )
    moves = (await read_view(session, "people", read_careers)).result
    assert moves == [("P", "agent", "senior", "2026-01-03T00:00:00.000000Z")]
    assert (await read_view(session, "people", lambda c: read_careers(c, 3))).result == []


def test_courses_and_answers_to_obstacles_are_measured() -> None:
    acts = {
        "A": [
            (-10 * DAY, "refund"),
            (10 * DAY, "refund"),
            (20 * DAY, "refund"),
            (5 * DAY, "fix"),
            (200 * DAY, "refund"),
        ]
    }
    (found,) = recognition.followed([("A", "goodwill", 0.0)], acts, {"goodwill": ["refund"]})
    assert (found["used_before"], found["used_after"], found["opens"]) == (1, 2, ["refund"])
    voices = [Voice("idea", 0, 2 * DAY, "adopted"), Voice("idea", 0, None, None), Voice("obstacle", 0, DAY, "x")]
    idea, obstacle = recognition.answers(voices)
    assert (idea["said"], idea["answered"], idea["median_days_to_answer"], idea["fates"]) == (2, 1, 2.0, {"adopted": 1})
    assert (obstacle["answered"], obstacle["fates"]) == (1, {})


async def test_the_recognition_report(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics(BASIC_POLICY | {"default_role": "agent"})
        for number in range(6):
            await upstream.record(
                event(
                    f"j-{number}",
                    "employee.joined",
                    time="2026-01-05T10:30:00Z",
                    employee_id=f"A-{number}",
                    role="agent",
                    team_ids=["T"],
                )
            )
        await upstream.record(event("o", "interaction.opened", interaction_id="I"))
        assert (await upstream.action("r", interaction_id="I"))["outcome"] == "taken"
        await upstream.record(
            event(
                "t",
                "recognition.given",
                recognition_id="R",
                giver_id="C",
                receiver_id="A-1",
                reason="kind",
                points=5,
                interaction_id="I",
                giver_kind="customer",
            )
        )
        await upstream.record(event("i", "idea.submitted", idea_id="I-1", employee_id="A-1", text="vouchers"))
        await upstream.record(event("d", "idea.decided", idea_id="I-1", decision="adopted", decided_by="M"))
        await upstream.record(
            event(
                "m",
                "morale.surveyed",
                team_id="T",
                period="2026-01",
                invited=6,
                respondents=6,
                score=4,
                best=5,
                worst=1,
            )
        )
    found = await recognition_report(partial(read_view, session), await policy_in_force(session.log))
    assert (found["thanks"]["given"], found["thanks"]["points"]) == (1, 5)
    assert found["thanks"]["by_team"] == {"T": 1}
    assert found["thanks"]["actions_praised"] == {"refund": 1}
    assert found["voices"][0]["fates"] == {"adopted": 1}
    assert found["morale"][0]["score"] == 0.75
    assert found["staying"][0]["n"] == 6
    assert "A-1" not in json.dumps(found)  # nobody is named, nobody ranked


_ANY = st.floats(allow_nan=False, allow_infinity=False)


@given(_ANY, _ANY, _ANY)
@example(1e308, -1e308, 1e308)
@example(1e308, 0, 1e-300)
def test_any_score_has_a_place_on_its_scale(score: float, worst: float, best: float) -> None:
    assert 0 <= recognition.place_on_scale(score, worst, best) <= 1
    assert recognition.place_on_scale(worst, worst, best) == 0
    assert recognition.place_on_scale(best, worst, best) == (1 if best / 2 != worst / 2 else 0)


@pytest.mark.parametrize(("score", "place"), [(4, 0.75), (2, 0.25), (9, 1), (-3, 0)])
def test_a_place_on_a_scale_of_five(score: float, place: float) -> None:
    assert recognition.place_on_scale(score, 1, 5) == place
    assert recognition.place_on_scale(6 - score, 5, 1) == place


def test_the_recognition_command_prints_the_report(command: CommandLine) -> None:
    fact = event("t", "recognition.given", recognition_id="R", giver_id="A-2", receiver_id="A-1", reason="kind")
    refund = reported_action("a", "4.00", request_id="q")
    assert command("publish", "-", stdin=f"{json.dumps(fact)}\n{json.dumps(refund)}").returncode == 0
    assert "Thanks given 1 times to 1 people" in command("report", "recognition").stdout
    assert json.loads(command("report", "recognition", "--json").stdout)["thanks"]["given"] == 1
    assert "No interaction is recorded yet" in command("report", "quality").stdout
    assert "No escalation is recorded yet" in command("report", "gap").stdout
