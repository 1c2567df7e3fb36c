"""Properties of decisions in random histories: no limit is passed, no budget overspent, no preview breaks its word."""

import json
from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from domain import commands
from domain.decisions.decision import Decision
from domain.decisions.recorded_commands import command_of
from domain.events.causes import Caused
from domain.events.decisions import AuthorityFellShort, BudgetClosed, BudgetOpened
from domain.money import Money
from domain.serialization import encode_sorted
from tests.support.decision_commands import action, preview
from tests.support.decision_histories import AGENTS, History, Step, amounts, requests, steps
from tests.support.documents import Document

EXAMPLES = settings(max_examples=20)


def history_of(told: list[Step], **options: bool) -> History:
    """Return the history after these steps."""
    past = History(**options)
    for step in told:
        past.take(step)
    return past


def decided(past: History, command: commands.Preview) -> Decision | None:
    """Return the decision of a command at the end of a history; ``None`` for an error."""
    result = past.scenario.when(command, at=past.now).result
    return result if isinstance(result, Decision) else None


@EXAMPLES
@given(steps, st.booleans())
def test_no_decision_overspends_a_budget(told: list[Step], team_pays: bool) -> None:
    """The independent books refuse an overspent budget, a change of a closed one, and a second answer."""
    past = history_of(told, team_pays=team_pays)
    for (holder, period, currency), sums in past.books.books.items():
        budget = past.scenario.budget(holder, currency)
        if budget.period == period:
            found = {"granted": budget.granted_minor, "spent": budget.spent_minor, "reserved": budget.reserved_minor}
            assert sums == found
    assert min(past.remaining().values(), default=0) >= 0


@EXAMPLES
@given(st.lists(st.tuples(st.sampled_from(AGENTS), amounts), min_size=1, max_size=6), steps)
def test_only_reported_actions_overdraw_a_budget(offline: list[tuple[str, str]], told: list[Step]) -> None:
    """A decision never takes an overdrawn budget further below zero."""
    past = History()
    for number, (agent_id, amount) in enumerate(offline):
        past.report(amount, agent_id, f"till-{number}")
    for step in told:
        before = past.remaining()
        past.take(step)
        after = past.remaining()
        assert all(after[holder] >= min(0, before.get(holder, 0)) for holder in after)


@EXAMPLES
@given(steps)
def test_a_command_that_records_nothing_changes_nothing(told: list[Step]) -> None:
    """Scenarios decide each command twice and compare results, state and budgets; here they do so in random histories."""
    past = History()
    for step in told:
        _, decision = past.take(step)
        assert decision is None or bool(decision.events) == bool(decision.changed)


@EXAMPLES
@given(steps)
def test_exactly_one_event_answers_a_request_and_says_the_whole_command(told: list[Step]) -> None:
    past = History()
    for step in told:
        command, decision = past.take(step)
        if decision is None:
            continue
        answers = [event.record for event in decision.events if event.record.request_sha256 is not None]
        if type(command) is commands.Preview:
            assert answers == []
            continue
        assert answers == [decision.answering]
        assert isinstance(answers[0], Caused)
        said, _ = command_of(answers[0])
        assert type(said) is type(command)
        asked = json.loads(encode_sorted(command)) | {"request_id": decision.cause.request_id}
        assert json.loads(encode_sorted(said)) == asked


@EXAMPLES
@given(steps, requests, amounts)
def test_a_preview_records_at_most_one_shortfall_and_only_once(told: list[Step], fields: Document, amount: str) -> None:
    past = history_of(told)
    asked = preview(amount, **fields)
    decision = decided(past, asked)
    if decision is None:
        return
    records = [event.record for event in decision.events]
    noted = [record for record in records if isinstance(record, AuthorityFellShort)]
    assert len(noted) <= 1
    assert all(record.preview for record in noted)
    assert all(isinstance(record, BudgetOpened | BudgetClosed) for record in records if record not in noted)
    assert noted or not records
    past.scenario.record(decision)
    again = decided(past, asked)
    assert again is not None
    assert again.events == []


@EXAMPLES
@given(steps, requests, amounts)
def test_an_action_has_the_outcome_that_its_preview_foretold(told: list[Step], fields: Document, amount: str) -> None:
    past = history_of(told)
    foretold, taken = decided(past, preview(amount, **fields)), decided(past, action(amount, **fields))
    assert (foretold is None) == (taken is None)
    if foretold is not None and taken is not None:
        for name in ("outcome", "policy_version"):
            assert foretold.answer[name] == taken.answer[name]
        assert tuple(reasons_of(foretold)) == tuple(reasons_of(taken))


def reasons_of(decision: Decision) -> Any:
    """Return the reasons of an answer."""
    return decision.answer["reasons"]


@EXAMPLES
@given(steps, requests)
def test_exactly_the_amount_available_may_be_given(told: list[Step], fields: Document) -> None:
    past = history_of(told)
    asked = fields | {"basis": "goodwill"}
    found = decided(past, preview(None, **asked))
    assert found is not None
    if found.answer["outcome"] != "taken":
        return
    available: Any = found.answer["available"]
    minor = Money.parse(available["amount"], "GBP").minor
    for amount, may in ((minor, True), (minor + 1, False)):
        decision = decided(past, action(Money(amount, "GBP").text, **asked))
        assert decision is not None
        assert (decision.answer["outcome"] in ("taken", "held")) is may


@EXAMPLES
@given(steps)
def test_no_history_passes_a_cap_by_agents_own_authority(told: list[Step]) -> None:
    """The sums are taken over the events alone, and count neither what was voided nor what was recovered."""
    given_on: dict[str, int] = defaultdict(int)
    for data, minor in own_goodwill(history_of(told, soon_empty=False)):
        customer = "C-1" if data.get("customer_id") == "C-2" else data.get("customer_id")  # these two are linked
        given_on[f"interaction {data.get('interaction_id')}"] += minor
        given_on[f"customer {customer}"] += minor
    given_on["interaction None"] = given_on["customer None"] = 0
    assert all(minor <= (6_000 if name.startswith("interaction") else 10_000) for name, minor in given_on.items())


def own_goodwill(past: History) -> list[tuple[Document, int]]:
    """Return the goodwill that agents gave by their own authority: each action with the amount that counts."""
    found: dict[str, tuple[Document, int]] = {}
    for recorded in past.scenario.recorded:
        event = json.loads(recorded.data)
        name, data = event["type"][11:-3], event["data"]
        minor = Money.parse(**data["amount"]).minor if "amount" in data else 0
        if name in ("action.taken", "action.held"):
            if data["basis"] == "goodwill" and data["role"] == "agent" and "escalation_id" not in data:
                found[data["action_id"]] = data, minor
        elif data.get("action_id") in found:
            first, before = found[data["action_id"]]
            after = {"action.voided": 0, "action.settled": minor}
            if name == "action.reversed":
                after[name] = before - (minor if data["recovered"] else 0)
            found[data["action_id"]] = first, after.get(name, before)
    return list(found.values())
