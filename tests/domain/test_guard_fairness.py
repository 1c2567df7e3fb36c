"""Fairness of the guard: a group that is flagged far above its share is named, a fair spread is not."""

import json
from math import comb

import pytest

from app.runtime.session import Session
from app.runtime.views import read_view
from domain.abuse.fairness import ReviewedAction, rates, shift_of, tenure_of
from projections.views.people import read_people, thanks
from tests.support.builders import event, reported_action
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.upstreams import upstream_of


def acts(night: int, day: int) -> list[ReviewedAction]:
    """Twenty people of the night and eighty of the day, ten actions each; so many of them are flagged by R6."""
    found = []
    for number in range(100):
        shift = "night (22-6)" if number < 20 else "early (6-14)"
        flagged = number < night or 20 <= number < 20 + day
        for turn in range(10):
            rules = frozenset({"R6"}) if flagged and turn < 3 else frozenset[str]()
            found.append(ReviewedAction(f"A-{number}", {"shift": shift, "team": f"T-{number % 4}"}, rules))
    return found


def test_a_rule_that_looks_at_the_night_is_named() -> None:
    found = rates(acts(night=8, day=2))
    (night,) = [rate for rate in found if rate.far_above]
    assert (night.rule, night.dimension, night.group) == ("R6", "shift", "night (22-6)")
    assert (night.actions, night.proving, night.people, night.concerned) == (200, 24, 20, 8)
    assert (night.rate, night.base_rate) == (24 / 200, 6 / 800)
    # Fisher's exact test: the hypergeometric tail of 8 or more among 10 concerned, 20 of 100 people at night.
    assert night.p == pytest.approx(sum(comb(10, k) * comb(90, 20 - k) for k in (8, 9, 10)) / comb(100, 20))


def test_a_fair_spread_and_two_people_are_not() -> None:
    assert not any(rate.far_above for rate in rates(acts(night=2, day=8)))
    assert not any(rate.far_above for rate in rates(acts(night=2, day=0)))
    assert rates([]) == []


def test_shifts_and_tenure() -> None:
    assert [shift_of(hour) for hour in (5, 6, 13, 14, 21, 22)] == [
        "night (22-6)",
        "early (6-14)",
        "early (6-14)",
        "late (14-22)",
        "late (14-22)",
        "night (22-6)",
    ]
    assert [tenure_of(days * 86_400) for days in (1, 100, 400, 2000)] == [
        "under 3 months",
        "3 to 12 months",
        "1 to 3 years",
        "3 years or more",
    ]
    assert tenure_of(None) == "not known"


async def test_people_as_they_are_known_and_corrected(session: Session) -> None:
    async with upstream_of(session) as upstream:
        joined = event("j", "employee.joined", employee_id="A-1", role="agent", team_ids=["T"])
        given = event("t", "recognition.given", recognition_id="R-1", giver_id="A-2", receiver_id="A-1", reason="x")
        await upstream.record(joined)
        await upstream.record(given)
        await upstream.record(event("c", "employee.changed", employee_id="A-1", role="senior", team_ids=["T", "U"]))
        await upstream.record(
            event("f", "fact.corrected", source_of="crm", id_of="t", data=None, reason="typed wrongly")
        )
        await upstream.record(event("l", "employee.left", employee_id="A-1"))
    people: dict[str, Document] = (await read_view(session, "people", read_people)).result
    one = people["A-1"]
    assert (one["role"], json.loads(one["team_ids"]), one["joined"]) == ("senior", ["T", "U"], one["joined"])
    assert one["joined"] is not None
    assert one["left"] is not None
    withdrawn = (
        await read_view(session, "people", lambda c: [dict(r) for r in c.execute(thanks.select()).mappings()])
    ).result
    assert withdrawn[0]["receiver_id"] is None


def test_the_command(command: CommandLine) -> None:
    facts = [
        event(f"j-{n}", "employee.joined", employee_id=f"A-{n}", role="agent", team_ids=[f"T-{n % 2}"])
        for n in range(4)
    ]
    facts += [
        reported_action(f"a-{n}", "4.00", request_id=f"q-{n}", agent_id=f"A-{n % 4}", customer_id=f"C-{n}")
        for n in range(8)
    ]
    assert command("publish", "-", stdin="\n".join(map(json.dumps, facts))).returncode == 0
    assert json.loads(command("audit", "flags", "--rates", "--json").stdout)["items"] == []
