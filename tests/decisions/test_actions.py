"""Decisions through NATS: answered once and for ever, never overspent, explained."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats.errors
import pytest

from app.runtime.session import Session
from consumers.decisions.service import DecisionService
from ledger.store.log import Log
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import eventually


async def test_an_action_is_taken_recorded_and_answered(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    answer = await upstream.action("r-1", customer_id="C-9", interaction_id="I-1", note="keep it")
    month = f"{datetime.now(UTC):%Y-%m}"
    assert answer["outcome"] == "taken"
    assert answer["reasons"] == []
    assert answer["policy_version"] == 1
    assert answer["budget"] == {
        "holder": "agent:A-1",
        "period": month,
        "granted": gbp("200.00"),
        "spent": gbp("5.00"),
        "reserved": gbp("0.00"),
        "remaining": gbp("195.00"),
    }
    stored = (await upstream.replay())[answer["position"] - 1]
    assert stored["type"] == "resolution.action.taken.v1"
    data = stored["data"]
    assert (data["action_id"], data["source"], data["request_id"]) == (answer["action_id"], "crm", "r-1")
    assert (data["holder"], data["period"], data["authority"]) == ("agent:A-1", month, "own")
    assert data["limits"][0] == {"name": "per_action", "limit": gbp("50.00"), "used": gbp("0.00")}


async def test_an_action_beyond_authority_is_escalated_with_reasons_and_recorded(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    answer = await upstream.action("r-1", "55.00")
    assert answer["outcome"] == "escalate"
    (reason,) = answer["reasons"]
    assert (reason["rule"], reason["limit"], reason["used"], reason["asked"]) == (
        "per_action",
        gbp("50.00"),
        gbp("0.00"),
        gbp("55.00"),
    )
    stored = (await upstream.replay())[answer["position"] - 1]
    assert (stored["type"], stored["data"]["preview"]) == ("resolution.authority.fell_short.v1", False)
    assert (await upstream.action("r-2", kind="gift"))["outcome"] == "refused"
    assert (await upstream.action("r-3", kind="credit"))["outcome"] == "escalate"
    assert (await upstream.action("r-4", customer_id="A-1"))["outcome"] == "refused"


async def test_a_request_before_the_first_policy_stays_refused(upstream: Upstream) -> None:
    first = await upstream.action("r-1")
    assert (first["outcome"], first["reasons"][0]["rule"]) == ("refused", "no_policy")
    await upstream.set_up_basics()
    assert await upstream.action("r-1") == first
    assert (await upstream.action("r-2"))["outcome"] == "taken"


async def test_a_repeated_request_gets_the_same_answer_and_records_once(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    first = await upstream.action("r-1")
    short = await upstream.action("r-2", "99.00")
    await upstream.action("r-3")
    before = await upstream.session.log.last_position()
    for _ in range(3):
        assert await upstream.action("r-1") == first
        assert await upstream.action("r-2", "99.00") == short
    together = await asyncio.gather(*(upstream.action("r-4") for _ in range(20)))
    assert all(answer == together[0] for answer in together)
    assert await upstream.session.log.last_position() == before + 1


async def test_another_body_under_a_used_request_id_is_an_error(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    await upstream.action("r-1")
    answer = await upstream.action("r-1", "6.00")
    assert answer["error"]["code"] == "request_id_reused"
    other = Upstream(upstream.session, upstream.client, "till")
    assert (await other.action("r-1", "6.00"))["outcome"] == "taken"  # another source's name


async def test_the_first_answer_is_given_after_a_restart_without_any_index(session: Session) -> None:
    grant_request: Document = {
        "request_id": "g",
        "operation": "grant",
        "holder": "agent:A-1",
        "amount": gbp("10.00"),
        "granted_by": "M-1",
        "reason": "busy",
    }
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        answers = [await upstream.action(f"r-{n}", "12.00") for n in range(5)]
        escalated = await upstream.action("r-e", "60.00")
        grant = await upstream.ask("budget", **grant_request)
    for keep in (True, False):
        if not keep:
            for path in (session.data_dir / "index").iterdir():
                path.unlink()
        async with upstream_of(session) as upstream:
            assert [await upstream.action(f"r-{n}", "12.00") for n in range(5)] == answers
            assert await upstream.action("r-e", "60.00") == escalated
            assert await upstream.ask("budget", **grant_request) == grant
            assert (await upstream.action("r-e", "61.00"))["error"]["code"] == "request_id_reused"


async def test_the_first_answer_is_given_in_the_next_period_and_books_close(session: Session) -> None:
    async with upstream_of(session, history=True) as upstream:
        await upstream.set_up_basics()
        january = await upstream.action("r-1", "30.00", time="2026-01-31T12:00:00Z")
        february = await upstream.action("r-2", time="2026-02-01T12:00:00Z")
        assert february["budget"]["granted"] == gbp("250.00")  # 50.00 carried over
        assert await upstream.action("r-1", "30.00", time="2026-01-31T12:00:00Z") == january
        late = await upstream.action("r-3", time="2026-01-31T13:00:00Z")
        assert (late["error"]["code"], late["error"]["field"]) == ("clock", "time")
        types = [stored["type"].split(".", 1)[1] for stored in await upstream.replay()]
        assert types[-3:] == ["budget.closed.v1", "budget.opened.v1", "action.taken.v1"]
        closed = (await upstream.replay())[-3]["data"]
        assert (closed["spent"], closed["carried_over"], closed["lapsed"]) == (
            gbp("30.00"),
            gbp("50.00"),
            gbp("120.00"),
        )


async def test_64_writers_on_one_budget_never_overspend_it(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    answers = await asyncio.gather(*(upstream.action(f"r-{n}", "7.00") for n in range(64)))
    taken = [answer for answer in answers if answer["outcome"] == "taken"]
    assert len(taken) == 28  # of 200.00
    assert min(float(answer["budget"]["remaining"]["amount"]) for answer in answers) == 4.0
    assert all(answer["reasons"][0]["rule"] == "budget" for answer in answers if answer["outcome"] == "escalate")


async def test_two_deciders_on_one_budget_never_overspend_it_or_answer_differently(
    session: Session, tmp_path: Path
) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        client, reader = await session.connection("second"), await session.connection("second")
        log = await Log.open(client, "LEDGER")
        second = DecisionService(session.url, client, reader, log, tmp_path / "second.sqlite")
        await second.start()
        asked = [f"r-{n % 64}" for n in range(128)]
        answers = await asyncio.gather(*(ask_until_decided(upstream, name) for name in asked))
        await second.stop()
        by_request: dict[str, Document] = {}
        for name, answer in zip(asked, answers, strict=True):
            assert by_request.setdefault(name, answer) == answer
        assert sum(answer["outcome"] == "taken" for answer in by_request.values()) == 28
        taken = [stored for stored in await upstream.replay() if stored["type"] == "resolution.action.taken.v1"]
        assert len(taken) == 28


async def ask_until_decided(upstream: Upstream, request_id: str) -> Document:
    """Repeat a request until its answer is neither `busy` nor `unavailable`."""
    return await eventually(
        lambda: upstream.action(request_id, "7.00"),
        lambda answer: answer.get("error", {}).get("code") not in {"busy", "unavailable"},
        every_seconds=0.05,
    )


# Fields of a request, and the code and field of the error.
BAD: list[tuple[Document, str, str | None]] = [
    ({"amount": {"amount": 5.0, "currency": "GBP"}}, "invalid", "amount.amount"),
    ({"amount": gbp("-5.00")}, "invalid", "amount.amount"),
    ({"amount": gbp("5.001")}, "invalid", "amount.amount"),
    ({"amount": {"amount": "5.00", "currency": "ABC"}}, "invalid", "amount.currency"),
    ({"amount": {"amount": "5.00", "currency": "EUR"}}, "currency", "amount.currency"),
    ({"amount": None}, "invalid", "amount"),
    ({"kind": "bribe"}, "invalid", "kind"),
    ({"agent_id": 7}, "invalid", "agent_id"),
    ({"agent_id": ""}, "invalid", "agent_id"),
    ({"agent_id": "jo@example.com"}, "invalid", "agent_id"),
    ({"agent_id": "nobody"}, "unknown_agent", "agent_id"),
    ({"basis": "kindness"}, "invalid", "basis"),
    ({"request_id": "x" * 129}, "invalid", "request_id"),
    ({"time": "2026-01-01T00:00:00"}, "invalid", "time"),
    ({"time": "2020-01-01T00:00:00Z"}, "clock", "time"),
]


async def test_an_invalid_field_is_an_error_that_names_it_and_records_nothing(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    refund = {"agent_id": "A-1", "kind": "refund", "reason": "x", "amount": gbp("5.00")}
    before = await upstream.session.log.last_position()
    for number, (fields, code, field) in enumerate(BAD):
        answer = await upstream.ask("action", **refund | {"request_id": f"bad-{number}"} | fields)
        error = answer["error"]
        assert (answer["outcome"], error["code"], error.get("field")) == ("error", code, field), fields
        assert error["message"]
    assert await upstream.session.log.last_position() == before


async def test_an_error_does_not_use_up_its_request_id(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    assert (await upstream.action("r-1", "-5.00"))["outcome"] == "error"

    assert (await upstream.action("r-1"))["outcome"] == "taken"


async def test_a_malformed_body_is_an_error_and_records_nothing(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    before = await upstream.session.log.last_position()
    for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"a":' + b"[" * 9999, b"x" * 60_000):
        reply = await upstream.client.request("resolution.decide.crm.action", body, timeout=10)
        assert json.loads(reply.data)["outcome"] == "error"
    for operation in ("hold", "reversal", "escalation", "budget"):
        error = (await upstream.ask(operation, request_id="x"))["error"]
        assert error["code"] == "invalid"
        assert error["field"]
    assert (await upstream.ask("flag", request_id="x", flag_id="f"))["error"]["field"] == "verdict"
    assert await upstream.session.log.last_position() == before


async def test_a_preview_records_nothing_and_predicts_the_decision(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    before = await upstream.session.log.last_position()
    fields = {"agent_id": "A-1", "kind": "refund", "reason": "late"}
    preview = await upstream.ask("preview", request_id="p", amount=gbp("30.00"), **fields)
    assert preview["outcome"] == "taken"
    assert (await upstream.ask("preview", amount=gbp("51.00"), **fields))["outcome"] == "escalate"
    assert (await upstream.ask("preview", **fields))["available"] == gbp("50.00")
    assert await upstream.session.log.last_position() == before
    await upstream.action("p", "30.00", interaction_id="I")  # a preview does not use up its name
    assert (await upstream.ask("preview", interaction_id="I", **fields))["available"] == gbp("30.00")


async def test_a_grant_is_added_to_the_present_budget(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    grant: Document = {"operation": "grant", "holder": "agent:A-1", "granted_by": "M-1", "reason": "busy"}
    answer = await upstream.ask("budget", request_id="g-1", amount=gbp("25.00"), **grant)
    assert (answer["outcome"], answer["budget"]["granted"]) == ("done", gbp("225.00"))
    assert (await upstream.action("r-1"))["budget"]["remaining"] == gbp("220.00")
    team = await upstream.ask("budget", request_id="g-2", amount=gbp("25.00"), **grant | {"holder": "team:t-1"})
    assert team["budget"]["remaining"] == gbp("25.00")
    wrong: list[tuple[Document, str]] = [
        ({"holder": "A-1"}, "holder"),
        ({"holder": "agent:ghost"}, "holder"),
        ({"amount": gbp("0")}, "amount.amount"),
        ({"amount": {"amount": "5", "currency": "JPY"}}, "amount.currency"),
        ({"operation": "give"}, "operation"),
    ]
    for number, (changes, field) in enumerate(wrong):
        answer = await upstream.ask("budget", **{"request_id": f"x-{number}", "amount": gbp("1.00")} | grant | changes)
        assert (answer["outcome"], answer["error"]["field"]) == ("error", field)


async def test_policies_are_versions_in_force_from_their_time_on(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    later = BASIC_POLICY | {"effective_from": soon, "default_role": "agent"}
    answer = await upstream.ask("policy", request_id="p-2", policy=later, published_by="owner")
    assert (answer["outcome"], answer["policy_version"]) == ("done", 2)
    assert (await upstream.action("r-1"))["policy_version"] == 1
    answer = await upstream.ask(
        "policy", request_id="p-3", policy=BASIC_POLICY | {"default_role": "agent"}, published_by="owner"
    )
    assert answer["policy_version"] == 3
    assert (await upstream.action("r-2", agent_id="newcomer"))["policy_version"] == 3
    bad = await upstream.ask("policy", request_id="p-4", policy=BASIC_POLICY | {"period": "year"}, published_by="owner")
    assert (bad["error"]["code"], bad["error"]["field"]) == ("invalid", "policy.period")
    shadow = await upstream.ask(
        "policy", request_id="p-5", policy=BASIC_POLICY | {"mode": "shadow"}, published_by="owner"
    )
    assert (shadow["outcome"], shadow["policy_version"]) == ("done", 4)
    assert (await upstream.action("r-3", agent_id="newcomer"))["policy_version"] == 3


async def test_facts_change_what_an_agent_may_do(upstream: Upstream) -> None:
    await upstream.set_up_basics()
    assert (await upstream.action("r-1", kind="keep_item"))["outcome"] == "escalate"
    await upstream.record(event("t", "training.completed", employee_id="A-1", course_id="goodwill-basics"))
    await upstream.wait_for_decider()
    assert (await upstream.action("r-2", kind="keep_item"))["outcome"] == "taken"
    await upstream.record(event("rel", "relationship.declared", employee_id="A-1", customer_id="C-7", nature="cousin"))
    await upstream.wait_for_decider()
    assert (await upstream.action("r-3", customer_id="C-7"))["outcome"] == "refused"
    await upstream.record(event("chg", "employee.changed", employee_id="A-1", role="manager", team_ids=[]))
    await upstream.wait_for_decider()
    assert (await upstream.action("r-4", "300.00"))["reasons"][0]["rule"] == "budget"  # limits at once, grants later
    await upstream.record(event("bye", "employee.left", employee_id="A-1"))
    await upstream.wait_for_decider()
    assert (await upstream.action("r-5"))["reasons"][0]["rule"] == "left"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("agent", ["a.b.*.>", "👩‍👩‍👧‍👦", "with space", "x" * 128, "%2E"])
async def test_holders_of_any_name_have_budgets_of_their_own(shared_upstream: Upstream, agent: str) -> None:
    upstream, another = shared_upstream, agent + "x" if len(agent) < 128 else "y"
    await upstream.ask("policy", request_id="p", policy=BASIC_POLICY | {"default_role": "agent"}, published_by="owner")
    answer = await upstream.action(agent_id=agent)
    assert answer["budget"]["holder"] == f"agent:{agent}"
    assert (await upstream.action(agent_id=agent))["budget"]["remaining"] == gbp("190.00")
    assert (await upstream.action(agent_id=another))["budget"]["remaining"] == gbp("195.00")


async def test_an_upstream_has_no_other_permissions(upstream: Upstream) -> None:
    for subject in (
        "ledger.fact.crm",
        "ledger.policy",
        "rejected.x.-.1",
        "$JS.API.STREAM.INFO.LEDGER",
        "resolution.views.x",
    ):
        try:
            reply = await upstream.client.request(subject, b"{}", timeout=0.3)
        except (nats.errors.Error, TimeoutError):
            continue
        assert b"error" in reply.data, subject  # the JetStream API of its own account, which has none
    assert await upstream.session.log.last_position() == 0
