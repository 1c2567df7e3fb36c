"""Each step of an escalation is told to the source that filed it, and kept for a listener that was away."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from nats.aio.msg import Msg

from app.runtime.session import Session
from config import topology
from consumers.decisions.notifications import Notifications
from domain.decisions.notices import EscalationNotice
from domain.serialization import decode
from ledger.nats.client import connect
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api, stream_config
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation, two_at_work, upstream_of
from tests.support.waiting import eventually


async def kept(upstream: Upstream, **fields: Any) -> Document:
    """Return the answer to a request for this source's kept notifications."""
    subject = f"resolution.read.{upstream.source}.notifications"
    reply = await upstream.client.request(subject, json.dumps(fields).encode(), timeout=10)
    answer: Document = json.loads(reply.data)
    return answer


async def told(upstream: Upstream, number: int) -> list[Document]:
    """Return the kept notifications, once there are at least so many."""

    async def items() -> list[Document]:
        found: list[Document] = (await kept(upstream))["items"]
        return found

    return await eventually(items, lambda found: len(found) >= number)


async def filed(upstream: Upstream, request_id: str, agent_id: str = "A-1") -> str:
    """File an escalation; return its id."""
    answer = await upstream.action(request_id, "90.00", agent_id=agent_id, kind="refund", reason="late", escalate=True)
    escalation_id: str = answer["escalation_id"]
    return escalation_id


async def decide(upstream: Upstream, operation: str, escalation_id: str, by: str, **fields: Any) -> None:
    """Decide an escalation as another system than the one that filed it."""
    approver = Upstream(upstream.session, upstream.client, "approver")
    request = {"operation": operation, "escalation_id": escalation_id, "decided_by": by, **fields}
    answer = await approver.ask("escalation", request_id=f"{operation} {escalation_id}", **request)
    assert answer["outcome"] == "done", answer


async def test_every_outcome_is_told_to_the_source_that_filed_the_escalation(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    heard: list[Document] = []

    async def hear(message: Msg) -> None:
        heard.append(json.loads(message.data))

    await upstream.client.subscribe("resolution.notify.escalation.crm", cb=hear)
    await upstream.client.flush()
    approved, lowered, denied, withdrawn = [await filed(upstream, f"r-{number}") for number in range(4)]
    ended = await filed(upstream, "r-4", "D-1")
    await decide(upstream, "forward", approved, "M-1")
    await decide(upstream, "approve", approved, "X-1")
    await decide(upstream, "approve", lowered, "M-1", amount=gbp("60.00"), reason="a part")
    await decide(upstream, "deny", denied, "M-1", reason="no")
    await decide(upstream, "withdraw", withdrawn, "A-1")
    await upstream.record(event("bye", "employee.left", employee_id="D-1"))

    items = await told(upstream, 11)
    steps = [(one["escalation_id"], one["status"]) for one in items]
    assert steps == [
        *((one, "requested") for one in (approved, lowered, denied, withdrawn, ended)),
        (approved, "forwarded"),
        (approved, "approved"),
        (lowered, "approved"),
        (denied, "denied"),
        (withdrawn, "withdrawn"),
        (ended, "expired"),
    ]
    by_step = dict(zip(steps, items, strict=True))
    assert {one["source"] for one in items} == {"crm"}
    assert by_step[ended, "requested"]["team_id"] == "doorstep"
    assert by_step[approved, "forwarded"]["to"] == ["X-1"]
    part = by_step[lowered, "approved"]
    assert (part["amount"], part["asked"], part["decided_by"]) == (gbp("60.00"), gbp("90.00"), "M-1")
    assert by_step[denied, "denied"]["reason"] == "no"
    assert by_step[ended, "expired"]["reason"] == "the requester has left the company"
    assert await eventually(lambda: asyncio.sleep(0, len(heard)), lambda number: number == 11)
    assert heard == [{name: value for name, value in one.items() if name != "seq"} for one in items]


async def test_an_unanswered_escalation_tells_that_it_expired(upstream: Upstream) -> None:
    soon = {"payer": "approver", "after_hours": 0.0003, "then": "expire"}
    await set_up_organisation(upstream, FULL_POLICY | {"escalation": soon})
    await filed(upstream, "r-1")
    assert [one["status"] for one in await told(upstream, 2)] == ["requested", "expired"]


async def test_a_notification_has_the_documented_form(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await filed(upstream, "r-1")
    [item] = await told(upstream, 1)
    assert item.keys() == {
        *("seq", "id", "position", "time", "source", "status", "escalation_id", "requested_by", "amount", "team_id"),
        *("to", "due", "reason"),
    } - ({"team_id"} if "team_id" not in item else set())
    recorded = await upstream.session.log.at(item["position"])
    assert recorded is not None
    assert json.loads(recorded.data)["id"] == item["id"]


async def test_a_listener_that_was_away_reads_on_from_its_last_sequence(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    for number in range(3):
        await filed(upstream, f"r-{number}")
    await told(upstream, 3)
    first = await kept(upstream, limit=2)
    assert (len(first["items"]), first["complete"]) == (2, False)
    rest = await kept(upstream, after=first["next"])
    assert (len(rest["items"]), rest["complete"]) == (1, True)
    end = await kept(upstream, after=rest["next"])
    assert (end["items"], end["next"], end["complete"]) == ([], rest["next"], True)


async def test_an_unknown_field_of_a_query_is_refused(upstream: Upstream) -> None:
    assert (await kept(upstream, since=3))["error"]["code"] == "unknown_field"


async def test_notifications_are_kept_for_seven_days(session: Session) -> None:
    reply = await session.client.request(f"$JS.API.STREAM.INFO.{topology.NOTIFY}", b"", timeout=10)
    info: Document = json.loads(reply.data)
    assert timedelta(microseconds=info["config"]["max_age"] / 1000) == timedelta(days=7)


@pytest.mark.parametrize("index", ["kept", "lost"])
async def test_a_crash_between_a_decision_and_its_notification_loses_none(
    session: Session, monkeypatch: pytest.MonkeyPatch, index: str
) -> None:
    """The decider ends after the answer, before it stores the notification; its index may be lost, too."""
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream)
        await filed(upstream, "r-1")
        await told(upstream, 1)
    with monkeypatch.context() as dying:
        dying.setattr(Notifications, "run", _never)
        async with upstream_of(session) as upstream:
            second = await filed(upstream, "r-2")
            await upstream.action("later", "1.00")  # so that the log goes on behind it
            await upstream.wait_for_decider()
    if index == "lost":
        for path in (session.data_dir / "index").glob("decisions*"):
            path.unlink()
    async with upstream_of(session) as upstream:
        items = await told(upstream, 2)
    assert [one["escalation_id"] for one in items][1:] == [second]


async def test_two_deciders_store_one_copy(session: Session) -> None:
    async with two_at_work(session) as upstream:
        await set_up_organisation(upstream)
        for number in range(5):
            await filed(upstream, f"r-{number}")
        await told(upstream, 5)
        await asyncio.sleep(0.3)  # a second copy would be there by now
        assert len((await kept(upstream))["items"]) == 5


async def test_a_notification_is_stored_once_the_stream_is_there_again(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    folder = upstream.session.data_dir / "server"
    password = json.loads((folder / "passwords.json").read_text())["operator"]
    port = json.loads((folder / "address.json").read_text())["port"]
    operator = await connect(f"nats://operator:{password}@127.0.0.1:{port}", "operator")
    config = await stream_config(operator, topology.NOTIFY)
    await js_api(operator, f"STREAM.DELETE.{topology.NOTIFY}")
    await filed(upstream, "r-1")
    await js_api(operator, f"STREAM.CREATE.{topology.NOTIFY}", config)
    await operator.close()
    assert [one["status"] for one in await told(upstream, 1)] == ["requested"]


async def test_the_dedupe_id_drops_a_second_copy(session: Session) -> None:
    log = await Log.unstamped(session.client, topology.NOTIFY)
    draft = Draft("resolution.notify.escalation.crm", b"{}", headers=(("Nats-Msg-Id", "escalation.denied-1"),))
    assert await log.append([draft]) == await log.append([draft])


async def test_a_kept_notification_is_a_notice_with_its_sequence(upstream: Upstream) -> None:
    await set_up_organisation(upstream)
    await filed(upstream, "r-1")
    [item] = await told(upstream, 1)
    notice = decode(EscalationNotice, json.dumps(item).encode())
    assert (notice.status, notice.requested_by) == ("requested", "A-1")


async def _never(_self: Notifications) -> None:
    await asyncio.Event().wait()
