"""The auditor's account: replays with any NATS client, and can do nothing else."""

import asyncio
import json
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from app.runtime.session import Session
from config import topology
from ledger.store.log import Draft
from ledger.store.streams import js_api
from projections.access import record_reading
from tests.support.builders import event
from tests.support.organisations import BASIC_POLICY
from tests.support.upstreams import Upstream

EVENTS = 2500


async def filled(session: Session) -> Client:
    """Fill a ledger with events, and yield it with the auditor's connection."""
    data = [json.dumps(event(f"e-{n}", "interaction.opened", interaction_id=f"I-{n}")).encode() for n in range(EVENTS)]
    for at in range(0, EVENTS, 500):
        await session.log.append([Draft("ledger.fact.crm", one) for one in data[at : at + 500]])
    assert session._server is not None
    return await nats.connect(session._server.url("auditor"))


async def replayed(client: Client, start: int = 1) -> list[tuple[int, bytes]]:
    """Replay the log as docs/understand/auditing.md describes it."""
    found: list[tuple[int, bytes]] = []
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    while True:
        request = json.dumps({"seq": start, "batch": 1000}).encode()
        await client.publish("JS.LEDGER.API.DIRECT.GET.LEDGER", request, reply=inbox)
        while True:
            message = await answers.next_msg(timeout=10)
            headers = message.headers or {}
            if "Nats-Sequence" not in headers:
                break
            found.append((int(headers["Nats-Sequence"]), message.data))
        if "Nats-Num-Pending" not in headers or headers["Nats-Num-Pending"] == "0":
            return found
        start = found[-1][0] + 1


async def test_an_auditor_replays_with_a_plain_client(session: Session) -> None:
    client = await filled(session)
    events = await replayed(client)
    assert [position for position, _ in events] == list(range(1, EVENTS + 1))
    assert events[41][1] == (await session.log.read_batch(">", 41, 1))[0][0].data
    assert len(await replayed(client, 2400)) == 101
    info = json.loads((await client.request("JS.LEDGER.API.STREAM.INFO.LEDGER", b"")).data)
    assert info["state"]["messages"] == EVENTS
    await client.close()


PUSHING = {
    "name": "auditor",
    "ack_policy": "none",
    "deliver_policy": "all",
    "deliver_subject": "resolution.decide.crm.action",
}
DENIED: list[tuple[str, Any]] = [
    ("resolution.inbox.crm", event("x", "interaction.opened", interaction_id="I")),
    ("resolution.decide.crm.action", {"request_id": "r"}),
    ("resolution.decide.crm.policy", {"request_id": "r"}),
    ("resolution.read.crm.brief", {}),
    ("ledger.fact.crm", {"n": 1}),
    ("alarm.seal", {"reason": "x"}),
    ("$KV.ledger-keys.k.x.1", {}),
    (f"{topology.TOKENS_SUBJECT}.{'a' * 64}", {"name": "x", "role": "operator", "made": "2026-01-01T00:00:00Z"}),
    *(
        (f"{prefix}.{call}", body)
        for prefix in ("JS.LEDGER.API", "$JS.API")
        for call, body in [
            ("STREAM.UPDATE.LEDGER", {"name": "LEDGER", "max_msgs": 1}),
            ("STREAM.DELETE.LEDGER", {}),
            ("STREAM.PURGE.LEDGER", {}),
            ("STREAM.MSG.DELETE.LEDGER", {"seq": 1}),
            ("STREAM.SNAPSHOT.LEDGER", {}),
            ("STREAM.CREATE.EVIL", {"name": "EVIL", "subjects": ["evil"]}),
            ("STREAM.NAMES", {}),
            ("STREAM.INFO.INBOX", {}),
            ("STREAM.INFO.KV_ledger-keys", {}),
            ("DIRECT.GET.KV_ledger-keys", {"seq": 1}),
            ("STREAM.INFO.KV_ledger-tokens", {}),
            ("DIRECT.GET.KV_ledger-tokens", {"seq": 1}),
            ("STREAM.MSG.GET.KV_ledger-tokens", {"seq": 1}),
            ("DIRECT.GET.REJECTED", {"seq": 1}),
            ("CONSUMER.CREATE.LEDGER.auditor", {"stream_name": "LEDGER", "config": PUSHING, "action": "create"}),
            ("CONSUMER.DURABLE.CREATE.LEDGER.auditor", {"stream_name": "LEDGER", "config": PUSHING}),
            ("CONSUMER.DELETE.LEDGER.auditor", {}),
        ]
    ),
]


async def states(session: Session) -> Any:
    found = {}
    for stream in topology.stream_configs():
        info = await js_api(session.client, f"STREAM.INFO.{stream['name']}")
        found[stream["name"]] = info["state"]["last_seq"], info["state"]["messages"], info["state"]["consumer_count"]
    return found


async def test_an_auditor_has_no_other_permissions(session: Session) -> None:
    await js_api(session.client, "CONSUMER.DURABLE.CREATE.INBOX.intake", {})
    client = await filled(session)
    before = await states(session)
    for subject, body in DENIED:
        refused = False
        try:
            answer = json.loads((await client.request(subject, json.dumps(body).encode(), timeout=0.3)).data)
        except (nats.errors.Error, TimeoutError):
            refused = True
        else:
            refused = "error" in answer
        assert refused, subject
    assert await states(session) == before
    await client.close()


@pytest.mark.parametrize(
    "reply", ["resolution.inbox.crm", "resolution.decide.crm.action", "ledger.fact.crm", "$JS.API.STREAM.PURGE.INBOX"]
)
async def test_an_auditor_steers_nothing_by_reply_subjects(session: Session, reply: str) -> None:
    client = await filled(session)
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    ours = await session.connection("ours")
    await ours.subscribe(reply, cb=hear)
    await ours.flush()
    before = await states(session)
    for subject in ("JS.LEDGER.API.DIRECT.GET.LEDGER", "JS.LEDGER.API.STREAM.INFO.LEDGER"):
        await client.publish(subject, json.dumps({"seq": 1, "batch": 5}).encode(), reply=reply)
        await client.publish(subject, json.dumps({"seq": 1}).encode(), reply=reply)
    await client.flush()
    await asyncio.sleep(0.5)
    assert (heard, await states(session)) == ([], before)
    await client.close()


async def test_reads_of_a_named_trail_are_recorded_where_the_policy_says_so(upstream: Upstream) -> None:
    session = upstream.session
    await record_reading(session.log, ["agent:A-1"], 1, "M-1")
    await upstream.set_up_basics(BASIC_POLICY | {"privacy": {"record_reads": True}})
    await record_reading(session.log, ["agent:A-1"], 1, "M-1")
    await record_reading(session.log, [], 1, "M-1")  # nobody was named
    read = [one for one in await upstream.replay() if one["type"] == "resolution.trail.read.v1"]
    assert [one["data"] for one in read] == [{"read_by": "M-1", "about": ["agent:A-1"], "up_to": 1}]
