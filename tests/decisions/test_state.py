"""The decision state: pending actions are discarded once the log has them."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.runtime.session import Session
from consumers.decisions.service import DecisionService
from consumers.decisions.state import follower
from consumers.decisions.state.follower import DecisionState
from consumers.decisions.unit_of_work import stored_form
from domain.commands import action_id_of
from domain.events.decisions import ActionTaken
from domain.money import Money
from ledger.errors import LedgerError
from ledger.store import subscription
from ledger.store.event_id_index import EventIdEntry, EventIdIndex
from ledger.store.log import Draft, Recorded
from ledger.store.subscription import ReadCursor
from tests.support.builders import event
from tests.support.decision_company import company
from tests.support.decision_events import charged, linked, reported, taken
from tests.support.decision_scenarios import empty_index, given
from tests.support.organisations import BASIC_POLICY
from tests.support.policy_reference import all_scenarios, transcript_of
from tests.support.upstreams import Upstream


async def test_the_decision_state_discards_pending_actions_once_they_are_read_back(
    session: Session, tmp_path: Path
) -> None:
    reader = await session.connection("reader")
    service = DecisionService(session.url, session.client, reader, session.log, tmp_path)
    await service.start()
    upstream = Upstream(session, await session.upstream("test"))
    await upstream.ask("policy", request_id="p", policy=BASIC_POLICY | {"default_role": "agent"}, published_by="owner")
    await asyncio.gather(*(upstream.action(amount="0.10", agent_id=f"A-{n % 9}") for n in range(300)))
    assert await service.state.reach(await session.log.last_position())
    await service.state.write()
    assert not service.state._recent
    assert not service.state._own
    await service.stop()


async def test_an_action_with_an_id_that_the_ledger_never_gives_is_written_without_a_key(tmp_path: Path) -> None:
    """Such an id stands in a log only if the log was changed; the decider's index must not stop at it."""
    state = DecisionState(EventIdIndex(tmp_path / "state.sqlite"))
    events = given(company(), taken("5.00", action_id="act-of-nobody")).recorded
    state.apply(events)
    await state.write()
    assert state.index.head("*").position == len(events)
    assert state.actions.action("act-of-nobody") is None
    await state.close()


async def test_events_before_an_error_are_told_once_they_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The retry begins with the event that failed, so nobody would tell those before it to the cached budgets."""
    state, told, failed = DecisionState(empty_index()), list[int](), list[int]()
    events = given(company(), taken("5.00")).recorded
    state.on_read = lambda batch: told.extend(one.position for one in batch)
    apply_one, last = DecisionState._apply_one, events[-1].position

    def fails_once(self: DecisionState, recorded: Recorded, originals: Mapping[int, Recorded]) -> None:
        if recorded.position == last and not failed:
            failed.append(last)
            raise OSError("disk I/O error")
        apply_one(self, recorded, originals)

    monkeypatch.setattr(DecisionState, "_apply_one", fails_once)
    with pytest.raises(OSError, match="disk I/O error"):
        state.apply(events)
    state.apply(events[-1:])
    assert set(told) == {one.position for one in events}


@pytest.mark.parametrize("watched", ["before", "between", "after"])
async def test_an_action_that_is_read_before_its_storing_is_acknowledged_counts_once(watched: str) -> None:
    state, now = DecisionState(empty_index()), datetime(2026, 1, 5, 10, tzinfo=UTC)

    def total() -> int:
        return sum(gift.minor for gift in state.actions.to_group(frozenset({"C-1"})))

    if watched == "before":
        assert total() == 0
    row = state.actions.add_pending(TAKEN, now, "GBP")
    assert row is not None
    if watched == "between":
        assert total() == 500
    state.apply([Recorded(1, "ledger.budget.agent.GBP.2026-01", stored_form(TAKEN, now)[:-1] + STAMP)])
    assert total() == 500
    row.position = 1
    state.remember([], [row])
    assert total() == 500


async def test_an_action_that_is_not_stored_yet_counts_from_the_first_look_at_its_customer_on() -> None:
    state = DecisionState(empty_index())
    state.actions.add_pending(TAKEN, datetime(2026, 1, 5, 10, tzinfo=UTC), "GBP")
    assert [gift.minor for gift in state.actions.to_group(frozenset({"C-1"}))] == [500]


STAMP = b',"recordedtime":"2026-01-05T10:00:01.000000Z"}'
TAKEN = ActionTaken(
    source="crm",
    request_id="r-1",
    request_sha256="00" * 16,
    seen_position=0,
    action_id=action_id_of("crm", "r-1"),
    agent_id="A-1",
    role="agent",
    kind="refund",
    basis="goodwill",
    amount=Money(500, "GBP"),
    reason="late",
    holder="agent:A-1",
    period="2026-01",
    policy_version=1,
    training=(),
    limits=(),
    customer_id="C-1",
    authority="own",
)


def test_a_state_that_is_read_anew_knows_every_request_that_was_answered() -> None:
    """The scenarios answer every kind of request."""
    for scenario in all_scenarios():
        for shown in transcript_of(scenario)[-1:]:
            state = DecisionState(empty_index())
            state.apply([one for one in shown.log if b"fact.corrected" not in one.data])
            for recorded in shown.log:
                data = json.loads(recorded.data)["data"]
                if "request_sha256" in data:
                    key = bytes.fromhex(action_id_of(data["source"], data["request_id"])[4:])
                    assert state.find([key])[key].position == recorded.position, scenario.__name__


def test_an_index_of_another_layout_is_emptied_so_that_it_is_read_from_the_log_again(tmp_path: Path) -> None:
    old = EventIdIndex(tmp_path / "old.sqlite")
    old.commit([EventIdEntry(b"key", 7, b"content")], {"*": ReadCursor(7, "digest")})
    old.table("CREATE TABLE links (a TEXT, b TEXT, relation TEXT)")
    old.close()
    state = DecisionState(EventIdIndex(tmp_path / "old.sqlite"))
    assert (state.position, state.find([b"key"])) == (0, {})
    state.apply(given(company(), linked("C-1", "C-2")).recorded)
    assert state.actions.group_of("C-1") == {"C-1", "C-2"}


async def test_a_decider_that_is_killed_while_it_reads_a_long_log_goes_on_where_it_wrote(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "_BATCH_EVENTS", 10)
    monkeypatch.setattr(follower, "_WRITE_EVENTS", 20)
    joined = [event(f"j-{n}", "employee.joined", employee_id=f"A-{n}", role="agent", team_ids=["T"]) for n in range(95)]
    await session.log.append([Draft("ledger.fact.crm", json.dumps(one).encode()) for one in joined])
    reader, path = await session.connection("reader"), tmp_path / "state.sqlite"
    state = DecisionState(EventIdIndex(path))

    def killed(batch: Sequence[Recorded]) -> None:
        assert len(state._notes) <= 20, "what was read is in memory until it is written"
        if batch[-1].position == 70:
            raise LedgerError("killed")

    state.on_read = killed
    with pytest.raises(LedgerError, match="killed"):
        await state.follow(reader, session.log, until=95)
    state.index.close()
    state = DecisionState(EventIdIndex(path))
    assert state.position == 60
    await state.follow(reader, session.log, until=95)
    assert len(state.staff.everybody("agent")) == 95
    await state.close()


@pytest.mark.parametrize("order", ["decision first", "report first"])
@pytest.mark.parametrize("answers", [True, False], ids=["a request", "an approval"])
async def test_a_restarted_decider_knows_which_of_a_decision_and_its_report_counts(
    tmp_path: Path, order: str, answers: bool
) -> None:
    """The file finds the action of a request by the request, and that of an approval or a report by a key of its own."""
    action_id = action_id_of("crm", "r-1")
    sha256 = "00" * 16 if answers else None
    decided = taken("5.00", action_id=action_id, customer_id="C-1", request_id="r-1", request_sha256=sha256)
    told = reported("7.00", event_id="r-1", customer_id="C-1")
    pair = (decided, told) if order == "decision first" else (told, decided)
    scenario = given(company(), *pair)
    scenario = scenario.when_posted().then(charged("2.00", decided="5.00", reported="7.00"))
    start = len(given(company()).recorded)
    seen: list[tuple[str, int]] = []
    for recorded in scenario.recorded[start:]:
        state = DecisionState(EventIdIndex(tmp_path / "state.sqlite"))
        state.apply([one for one in scenario.recorded if state.position < one.position <= recorded.position])
        await state.write()
        await state.close()
        state = DecisionState(EventIdIndex(tmp_path / "state.sqlite"))
        found = state.actions.action(action_id)
        total = sum(gift.minor for gift in state.actions.to_group(frozenset({"C-1"})))
        seen.append((found.state if found else "unknown", total))
        await state.close()
    first = ("taken", 500) if order == "decision first" else ("reported", 700)
    assert seen[-3:] == [first, ("taken", 1200), ("taken", 700)]
