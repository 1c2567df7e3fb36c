"""Tokens of sources: each source has its own, old ones are taken while they are clear, and nothing is recorded twice."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.runtime.session import Session
from config import topology
from consumers.intake.inbox_message import Message
from consumers.intake.lanes import IntakeLanes
from consumers.intake.places import places_gone
from consumers.intake.recorder import Intake
from consumers.runtime.source_watch import SourceWatch
from ledger.encryption.keyring import Keyring
from ledger.store.event_id_index import EventIdIndex
from ledger.store.log import Draft, Log
from tests.support.builders import purchase
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY
from tests.support.upstreams import Upstream, upstream_of


async def known_to_an_earlier_version(session: Session, *sources: str) -> None:
    """Record facts of these sources like an earlier version, which gave all of them the token `a_b`."""
    for source in sources:
        await session.log.append([Draft("ledger.fact.a_b", json.dumps(purchase("old", source)).encode())])


async def receipt(upstream: Upstream, token: str, **asked: Any) -> Document:
    """Ask for a receipt under a token until it is neither pending nor unknown; return it after 2 seconds anyway."""
    answer: Document = {}
    for _ in range(100):
        reply = await upstream.client.request(
            f"resolution.read.{token}.receipt", json.dumps(asked).encode(), timeout=10
        )
        answer = json.loads(reply.data)
        if answer.get("status") not in {"pending", "unknown"}:
            break
        await asyncio.sleep(0.02)
    return answer


async def test_sources_that_shared_an_old_token_are_apart(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        for token, source in (("a%2Eb", "a.b"), ("a%20b", "a b"), ("a_b", "a_b")):
            await upstream.publish(purchase(1, source), subject=f"resolution.inbox.{token}")
            assert (await upstream.receipt("p-1", source))["status"] == "recorded"
        positions = [(await receipt(upstream, token, id="p-1"))["position"] for token in ("a%2Eb", "a%20b", "a_b")]
        assert positions == [1, 2, 3]
        await upstream.publish(purchase(2, "a b"), subject="resolution.inbox.a%2Eb")
        assert (await upstream.receipt("p-2", "a.b"))["error"]["code"] == "source_mismatch"
        assert (await receipt(upstream, "a%20b", id="p-2"))["status"] in {"pending", "unknown"}


async def test_an_old_token_is_taken_while_one_known_source_has_it(session: Session) -> None:
    await known_to_an_earlier_version(session, "a.b")
    async with upstream_of(session, "intake") as upstream:
        await upstream.publish(purchase(1, "a.b"), subject="resolution.inbox.a_b")
        await upstream.publish(purchase(2, "a.b"))
        await upstream.publish(purchase(1, "a.b"))  # the same again, under its new token
        assert (await upstream.receipt("p-2", "a.b"))["status"] == "recorded"
        assert (await receipt(upstream, "a_b", id="p-1"))["position"] == 2
        assert (await receipt(upstream, "a%2Eb", id="p-1"))["position"] == 2
        assert (await receipt(upstream, "a_b", id="p-1", source="a.b"))["position"] == 2
        await upstream.publish(purchase(1, "a_b"))  # from now on it is the token of `a_b` alone
        assert (await upstream.receipt("p-1", "a_b"))["status"] in {"recorded", "rejected"}
        await upstream.publish(purchase(3, "a.b"), subject="resolution.inbox.a_b")
        await upstream.publish(purchase(4, "a_b"))
        assert (await upstream.receipt("p-4", "a_b"))["status"] == "recorded"
        answer = await receipt(upstream, "a_b", id="p-3")
        assert (answer["status"], answer["error"]["code"]) == ("rejected", "source_mismatch")
        assert "a%2Eb" in answer["error"]["message"]
        ids = [(one["source"], one["id"]) for one in await upstream.replay()]
        assert ids == [("a.b", "p-old"), ("a.b", "p-1"), ("a.b", "p-2"), ("a_b", "p-1"), ("a_b", "p-4")]


async def test_an_old_token_that_several_sources_have_is_refused_with_the_right_one(session: Session) -> None:
    await known_to_an_earlier_version(session, "a.b", "a b")
    async with upstream_of(session, "intake") as upstream:
        await upstream.publish(purchase(1, "a.b"), subject="resolution.inbox.a_b")
        await upstream.publish(purchase(2, "a.b"))
        assert (await upstream.receipt("p-2", "a.b"))["status"] == "recorded"
        answer = await receipt(upstream, "a_b", id="p-1")
        assert answer["error"]["code"] == "source_mismatch"
        assert (await receipt(upstream, "a_b", id="p-old", source="a b"))["position"] == 2
        assert (await receipt(upstream, "a_b", id="p-old", source="crm"))["error"]["code"] == "source_mismatch"
        assert (await receipt(upstream, "a%2Eb", id="p-old"))["position"] == 1


async def test_a_token_that_others_had_once_answers_its_own_source_first(session: Session) -> None:
    """`a_b` is the token of the source `a_b`, known or not, even if other sources had it in earlier versions."""
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase(1, "a.b"))
        await upstream.record(purchase(2, "a b"))
        assert (await receipt(upstream, "a_b", id="p-9"))["status"] == "unknown"
        await upstream.publish(purchase(3, "a_b") | {"type": "resolution.nothing.v1"})
        answer = await upstream.receipt("p-3", "a_b")
        assert (answer["status"], answer["error"]["code"]) == ("rejected", "unknown_type")


def messages(source: str, token: str, ids: range, first: int) -> list[Message]:
    return [
        Message(
            f"resolution.inbox.{token}",
            json.dumps(purchase(number, source)).encode(),
            (),
            b"$JS.ACK.INBOX.intake.1.%d.%d.1.0" % (first + n, first + n),
        )
        for n, number in enumerate(ids)
    ]


async def test_two_intakes_on_an_old_and_a_new_subject_never_both_record_one_id(
    session: Session, tmp_path: Path
) -> None:
    """Intakes of both versions append a source's facts to one subject and expect its sequence."""
    await known_to_an_earlier_version(session, "a.b")
    done: dict[str, int] = {"old": 0, "new": 0}
    lost: list[Exception] = []
    finished = asyncio.Event()

    async def intake(name: str, token: str) -> None:
        client = await session.connection(name)
        log, rejected = await Log.open(client, topology.LEDGER), await Log.open(client, topology.REJECTED)
        one = Intake(
            log, rejected, EventIdIndex(tmp_path / f"{name}.sqlite"), await Keyring.open(client), SourceWatch(log)
        )

        def count(taken: Any) -> None:
            done[name] += len(taken)
            if lost or min(done.values()) >= 300:
                finished.set()

        lanes = IntakeLanes(one, count, lost.append, partial(places_gone, client))
        for start in range(0, 300, 10):
            await lanes.take(messages("a.b", token, range(start, start + 10), start))
        await finished.wait()
        await lanes.stop()

    async with asyncio.timeout(60):
        await asyncio.gather(intake("old", "a_b"), intake("new", "a%2Eb"))
    assert not lost
    ids: list[str] = []
    for position in range(1, await session.log.last_position() + 1):
        recorded = await session.log.at(position)
        assert recorded
        assert recorded.subject == "ledger.fact.a_b"
        ids.append(json.loads(recorded.data)["id"])
    assert sorted(ids) == sorted(["p-old", *(f"p-{number}" for number in range(300))])


async def ask(upstream: Upstream, token: str, request_id: str, **fields: Any) -> Document:
    upstream.source = token
    return await upstream.action(request_id, **fields)


async def test_requests_of_sources_that_shared_an_old_token_are_apart(upstream: Upstream) -> None:
    await upstream.set_up_basics(BASIC_POLICY)
    answers = [await ask(upstream, token, "r-1") for token in ("a%2Eb", "a_b", "a%20b")]
    assert [answer["outcome"] for answer in answers] == ["taken"] * 3
    assert len({answer["action_id"] for answer in answers}) == 3
    assert [await ask(upstream, token, "r-1") for token in ("a%2Eb", "a_b", "a%20b")] == answers
    taken = [one["data"]["source"] for one in await upstream.replay() if one["type"] == "resolution.action.taken.v1"]
    assert taken == ["a.b", "a_b", "a b"]


@pytest.mark.parametrize("note", [None, "a note that is sealed"])
async def test_a_request_answered_under_the_old_token_keeps_its_answer_under_the_new_one(
    session: Session, note: str | None
) -> None:
    from app.runtime.roles import create_service

    more = {"note": note} if note else {}
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics(BASIC_POLICY)
        first = await ask(upstream, "a_b", "r-1", **more)
    end = await session.log.last_position()
    service: Any = await create_service(session, "decisions")
    await service.start()
    service.pipeline.old_keys_until = end
    try:
        upstream = Upstream(session, await session.upstream("again"))
        assert await ask(upstream, "a_b", "r-1", **more) == first
        if note is None:
            assert await ask(upstream, "a%2Eb", "r-1") == first
        other = await ask(upstream, "a%2Eb", "r-1", amount="6.00")  # another's request, or another request
        assert (other["outcome"], other["action_id"] != first["action_id"]) == ("taken", True)
        assert (await ask(upstream, "a_b", "r-2"))["outcome"] == "taken"
        assert (await ask(upstream, "a%2Eb", "r-2"))["action_id"] != first["action_id"]
    finally:
        await service.stop()
