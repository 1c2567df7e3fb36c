"""Decisions made again: an honest history differs nowhere, and each forged decision is found without a key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.runtime.redecide import redecide_log
from domain.events.causes import RULES_VERSION
from ledger.store.log import Recorded
from tests.support.builders import gbp
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.redecisions import ForgedLog, record_every_kind_of_decision, redecide
from tests.support.upstreams import Upstream, upstream_of

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def honest(request: pytest.FixtureRequest) -> ForgedLog:
    """The log of a history with every kind of decision."""
    from app.runtime.session import Session
    from config.settings import load_settings

    async def record() -> ForgedLog:
        with tempfile.TemporaryDirectory() as folder:
            async with Session(load_settings({"data_dir": folder}, {})) as session, upstream_of(session) as upstream:
                await record_every_kind_of_decision(upstream)
                return await ForgedLog.copy_of(session.log)

    return asyncio.run(record())


def event_of(log: ForgedLog, name: str, request_id: str) -> tuple[int, Document]:
    for one in log.events:
        document = json.loads(one.data)
        if document["type"] == f"resolution.{name}.v1" and document["data"].get("request_id") == request_id:
            return one.position, document
    raise AssertionError(name, request_id)


async def test_an_honest_history_comes_out_as_it_was_recorded(honest: ForgedLog, tmp_path: Path) -> None:
    found = await redecide(honest, tmp_path)
    assert found.differences == []
    assert found.out_of_reach == 0
    kinds = {json.loads(one.data)["type"] for one in honest.events}
    assert found.decisions > 25
    assert {"resolution.action.charged.v1", "resolution.budget.drawn.v1", "resolution.escalation.forwarded.v1"} <= kinds


def set_to(name: str, value: Any) -> Callable[[Document], None]:
    return lambda event: event["data"].__setitem__(name, value)


def with_new_hash(change: Callable[[Document], None]) -> Callable[[Document], None]:
    """Forge an action and the hash of its request, as an intruder who knows the product would."""

    def forge(event: Document) -> None:
        change(event)
        data = event["data"]
        names = ("agent_id", "kind", "amount", "reason", "request_id", "customer_id", "interaction_id", "order_id")
        body = {name: data[name] for name in names if name in data}
        if data.get("escalate"):
            body["escalate"] = True
        text = json.dumps(body, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
        data["request_sha256"] = hashlib.sha256(text).hexdigest()[:32]

    return forge


def drop_reason(event: Document) -> None:
    event["data"]["reasons"] = []


FORGERIES: dict[str, tuple[str, str, Callable[[Document], None]]] = {
    "a larger amount": ("action.taken", "taken", set_to("amount", gbp("49.00"))),
    "more than the limit, with a new hash": ("action.taken", "taken", with_new_hash(set_to("amount", gbp("51.00")))),
    "another agent, with a new hash": ("action.taken", "taken", with_new_hash(set_to("agent_id", "A-2"))),
    "another customer": ("action.taken", "second", set_to("customer_id", "C-7")),
    "another order": ("action.taken", "taken", set_to("order_id", "O-2")),
    "another reason": ("action.taken", "taken", set_to("reason", "a gesture")),
    "another limit": (
        "action.taken",
        "second",
        lambda event: event["data"]["limits"][0].__setitem__("limit", gbp("500.00")),
    ),
    "another amount used before": (
        "action.taken",
        "second",
        lambda event: event["data"]["limits"][-1].__setitem__("used", gbp("1.00")),
    ),
    "another policy version": ("action.taken", "after", set_to("policy_version", 1)),
    "another period": ("action.taken", "taken", set_to("period", "2020-01")),
    "another role": ("action.taken", "taken", set_to("role", "manager")),
    "an approval by another person": ("escalation.approved", "decide-0", set_to("decided_by", "M-2")),
    "an approval of more": ("escalation.approved", "decide-0", set_to("amount", gbp("90.00"))),
    "a denial for another reason": ("escalation.denied", "decide-1", set_to("reason", "too late")),
    "a refusal without a reason": ("authority.fell_short", "short", drop_reason),
    "an escalation told as a refusal": ("authority.fell_short", "short", set_to("outcome", "refused")),
    "another time": ("action.taken", "taken", lambda event: event.__setitem__("time", "2026-01-02T10:00:00.000000Z")),
    "a larger grant": ("budget.granted", "grant", set_to("amount", gbp("300.00"))),
    "a larger reversal": ("action.reversed", "reverse", set_to("amount", gbp("12.00"))),
    "less settled": ("action.settled", "settle", set_to("amount", gbp("1.00"))),
    "a posting of less": ("action.charged", "reported", set_to("amount", gbp("0.70"))),
    "a policy without limits": (
        "policy.published",
        "policy-2",
        lambda event: event["data"]["policy"]["roles"]["agent"]["limits"].__setitem__("refund", "unlimited"),
    ),
    "a state that it cannot have seen": ("action.taken", "taken", set_to("seen_position", 100_000)),
    "an older state than the decider had": ("action.taken", "second", set_to("seen_position", 2)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_decision_is_found(honest: ForgedLog, tmp_path: Path, forgery: str) -> None:
    name, request_id, change = FORGERIES[forgery]
    position, _ = event_of(honest, name, request_id)
    found = await redecide(honest.forged(position, change), tmp_path)
    assert request_id in {one.request_id for one in found.differences}
    assert found.decisions > 25


async def test_a_forged_decision_that_the_rules_allow_contradicts_later_ones(honest: ForgedLog, tmp_path: Path) -> None:
    position, _ = event_of(honest, "action.taken", "taken")
    forged = honest.forged(position, with_new_hash(set_to("amount", gbp("49.00"))))
    assert min(one.position for one in (await redecide(forged, tmp_path)).differences) > position


async def test_two_decisions_that_changed_places_are_found(honest: ForgedLog, tmp_path: Path) -> None:
    first, _ = event_of(honest, "action.taken", "taken")
    later, _ = event_of(honest, "action.taken", "noted")
    assert (await redecide(honest.reordered(first, later), tmp_path)).differences


async def test_a_second_decision_on_one_request_is_found(honest: ForgedLog, tmp_path: Path) -> None:
    position, _ = event_of(honest, "action.taken", "noted")
    stored = next(one for one in honest.events if one.position == position)
    end = honest.events[-1].position
    again = json.loads(stored.data)
    again["data"]["seen_position"] = end
    forged = stored._replace(position=end + 1, data=json.dumps(again, separators=(",", ":")).encode())
    found = await redecide(ForgedLog([*honest.events, forged]), tmp_path)
    assert [one.rule for one in found.differences] == ["request_id"]


async def test_a_decision_of_an_earlier_version_is_out_of_reach(honest: ForgedLog, tmp_path: Path) -> None:
    position, _ = event_of(honest, "action.taken", "noted")
    found = await redecide(honest.forged(position, lambda event: event["data"].pop("rules_version")), tmp_path)
    assert (found.differences, found.out_of_reach) == ([], 1)


@pytest.mark.parametrize("version", range(1, RULES_VERSION + 1))
async def test_decisions_by_each_version_of_the_rules_come_out_as_they_were(version: int, tmp_path: Path) -> None:
    """A change that turns this red needs another ``RULES_VERSION``, a golden file of its own, and the rules as they were."""
    text = (ROOT / "tests" / "golden" / f"decisions_by_rules_{version}.jsonl").read_text()
    stored = [json.loads(line) for line in text.splitlines()]
    log = ForgedLog([Recorded(position, subject, data.encode()) for position, subject, data in stored])
    found = await redecide(log, tmp_path)
    assert (found.differences, found.out_of_reach) == ([], 0)
    assert found.decisions > 25


async def test_a_range_may_end_within_a_decision(upstream: Upstream, tmp_path: Path) -> None:
    await upstream.set_up_basics()
    await upstream.action("first")  # it opens the budget, so it has two events
    end = await upstream.session.log.last_position()
    for until in range(1, end + 1):
        folder = tmp_path / str(until)
        folder.mkdir()
        session = upstream.session
        found = await redecide_log(session.client, session.log, folder, 1, until, lambda _done, _of: None)
        assert (found.differences, found.decisions) == ([], 1 if until < end - 1 else 2)
