"""Random histories are decided again from their log alone: nothing differs, and no changed decision goes unnoticed."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.runtime.redecide import RecordedEvents
from consumers.decisions.redecision import Redecider, RedecisionDifference
from consumers.decisions.state.follower import DecisionState
from domain.decisions.decision import Decision
from ledger.store.log import Recorded
from tests.support.decision_commands import action
from tests.support.decision_company import company
from tests.support.decision_histories import History, Step, steps
from tests.support.decision_scenarios import empty_index
from tests.support.decision_scenarios import given as given_events
from tests.support.policy_reference import all_scenarios, transcript_of

_BEFORE = 11
"""The events before the first decision: the policy, the staff, two links and a course."""
_UNSEEN = {"seen_position", "decider_id", "rules_version"}
"""Fields that say how a decision was made. Another value may lead to the same decision."""


class OpenState(DecisionState):
    """A decision state on an index that others share, so that closing does nothing."""

    async def close(self) -> None:
        """Keep the index open."""


async def redecided(events: list[Recorded], first: int = 1) -> tuple[int, list[RedecisionDifference]]:
    """Decide all events from a position on again; return the number of decisions, and the differences."""
    log = RecordedEvents(events)
    redecider = Redecider(log, lambda: OpenState(empty_index()), log.replay, first)
    await redecider.read(events)
    await redecider.end()
    told = [one for one in redecider.differences if one.request_id.startswith("given-")]  # policies without a request
    return redecider.decisions - len(told), [one for one in redecider.differences if one not in told]


def recorded_by(told: list[Step]) -> list[Recorded]:
    """Return the log of a history."""
    past = History()
    for step in told:
        past.take(step)
    return past.scenario.recorded


@settings(max_examples=10)
@given(steps)
def test_a_history_is_decided_again_from_its_log_alone(told: list[Step]) -> None:
    events = recorded_by(told)
    decisions, differences = asyncio.run(redecided(events))
    assert differences == []
    assert (decisions > 0) == (len(events) > _BEFORE)


def test_every_scenario_is_decided_again_from_its_log_alone() -> None:
    """The scenarios have every command and every rule; random histories have not."""
    decisions = 0
    for scenario in all_scenarios():
        for shown in transcript_of(scenario)[-1:]:
            found, differences = asyncio.run(redecided(list(shown.log)))
            assert differences == [], scenario.__name__
            decisions += found
    assert decisions > 200


def test_a_budget_that_a_fast_clock_closed_comes_out_again_from_any_position_on() -> None:
    """A clock that ran ahead opens the period after next; then the right period is opened again."""
    scenario = given_events(company())
    times = ("2026-03-10", "2026-05-10", "2026-03-11", "2026-03-12")
    for number, day in enumerate(times):
        request = action("5.00", request_id=f"r-{number}")
        result = scenario.when(request, at=f"{day}T10:00:00Z", request_id=f"r-{number}").result
        assert isinstance(result, Decision)
        scenario.record(result)
    events = scenario.recorded
    assert sum(b'"reopened":true' in one.data and b"budget.opened" in one.data for one in events) == 1
    for first in range(1, len(events) + 1):  # the decisions before it are only read
        assert asyncio.run(redecided(events, first))[1] == [], first


def changed(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return "2027-01-01T00:00:00Z" if value[10:11] == "T" and value.endswith("Z") else f"{value}x"
    if isinstance(value, list):
        return [changed(value[0]), *value[1:]] if value else ["A-8"]
    if isinstance(value, dict) and "currency" in value:
        return value | {"amount": "1.23" if value["amount"] != "1.23" else "1.24"}
    if isinstance(value, dict):
        return value | {name: changed(value[name]) for name in [max(value)]}
    return value + 1


@settings(max_examples=25)
@given(steps, st.data())
def test_a_decision_with_another_value_is_found(told: list[Step], data: st.DataObject) -> None:
    """One field of one event is changed in the log, and every key is at hand."""
    events = recorded_by(told)
    if len(events) <= _BEFORE:
        return
    index = data.draw(st.integers(_BEFORE, len(events) - 1), label="event")
    event = json.loads(events[index].data)
    if event["data"].get("preview"):
        return  # a preview is no request that is answered for ever, so no hash holds its fields
    name = data.draw(st.sampled_from(sorted(event["data"].keys() - _UNSEEN)), label="field")
    event["data"][name] = changed(event["data"][name])
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
    events[index] = events[index]._replace(data=text)
    _, differences = asyncio.run(redecided(events))
    assert differences, (event["type"], name, event["data"][name])


TWO_ACTIONS = [Step("action", {"agent_id": "A-7", "kind": "refund", "basis": "goodwill"}, "5.00", 0, 1)] * 2


@pytest.mark.parametrize(
    ("position", "name", "value"),
    [
        (12, "period", "March"),
        (12, "granted", {"amount": "a lot", "currency": "GBP"}),
        (13, "request_sha256", "not hexadecimal"),
        (13, "kind", "bribe"),
        (13, "amount", 5),
    ],
)
def test_a_changed_event_that_cannot_be_read_any_more_is_found(position: int, name: str, value: object) -> None:
    """The budget's opening is at position 12, and the first action after it."""
    events = recorded_by(TWO_ACTIONS)
    event = json.loads(events[position - 1].data)
    assert name in event["data"]
    event["data"][name] = value
    events[position - 1] = events[position - 1]._replace(data=json.dumps(event, separators=(",", ":")).encode())
    _, differences = asyncio.run(redecided(events))
    assert position in {one.position for one in differences}
