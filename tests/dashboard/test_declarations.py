"""The signed-in person answers obstacles, decides ideas and thanks people over HTTP, in no other person's name."""

import json
from typing import Any

import httpx

from app.runtime.session import Session
from consumers.privacy.erasure import forget_employee
from dashboard.auth.tokens import Tokens
from ledger.encryption.keyring import Keyring
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.http_api import client_with_token, read_current, served_with_tokens
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import eventually

ANSWER = "From Monday on you may, Xanthippe"


async def reported(upstream: Upstream) -> None:
    """Record an obstacle and an idea of each of three people: A-1, A-1's manager M-1, and the manager M-2 of others."""
    for number, person in enumerate(("A-1", "M-1", "M-2")):
        said = {"employee_id": person, "text": f"the form of {person}"}
        await upstream.record(event(f"o-{person}", "obstacle.reported", obstacle_id=f"O-{number}", kind="form", **said))
        await upstream.record(event(f"i-{person}", "idea.submitted", idea_id=f"I-{number}", **said))


async def listed(client: httpx.AsyncClient, path: str, **query: Any) -> list[Document]:
    items: list[Document] = (await read_current(client, path, **query))["items"]
    return items


async def test_a_lead_answers_decides_and_thanks_as_themselves(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        await reported(upstream)
        async with client_with_token(address, tokens["manager"]) as client:
            assert [row["obstacle_id"] for row in await listed(client, "obstacles", answered=False)] == ["O-1", "O-0"]
            asked: dict[str, Document] = {
                "obstacles/O-0": {"text": ANSWER},
                "ideas/I-0": {"decision": "tried out"},
                "recognitions": {"receiver_id": "A-2", "reason": "good work", "interaction_id": "I-9"},
            }
            for path, body in asked.items():
                answer = await client.post(f"/api/v1/{path}", json=body)
                assert (answer.status_code, answer.json()["status"]) == (202, "pending"), answer.text
            (answered,) = await eventually(lambda: listed(client, "obstacles", answered=True), bool)
            (decided,) = await eventually(lambda: listed(client, "ideas", answered=True), bool)
            assert (answered["answered_by"], answered["answer"]) == ("M-1", ANSWER)
            assert (decided["decided_by"], decided["decision"]) == ("M-1", "tried out")
            assert [row["obstacle_id"] for row in await listed(client, "obstacles", answered=False)] == ["O-1"]
        (fact,) = await eventually(lambda: upstream.recorded("recognition.given"), bool)
        assert (fact["giver_id"], fact["giver_kind"], fact["receiver_id"]) == ("M-1", "manager", "A-2")
        declared = [one for one in await upstream.replay() if one["source"] == "signed-in"]
        assert [one["via"] for one in declared] == ["http"] * len(asked)
        async with client_with_token(address, tokens["agent"]) as client:
            (own,) = await listed(client, "obstacles")
            assert (own["text"], own["answer"]) == ("the form of A-1", ANSWER)


async def test_who_may_not_answer(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        await reported(upstream)
        async with client_with_token(address, tokens["manager"]) as client:
            await read_current(client, "obstacles")
            for path, body in (("obstacles/O", {"text": "yes"}), ("ideas/I", {"decision": "accepted"})):
                assert (await client.post(f"/api/v1/{path}-1", json=body)).status_code == 409  # the own one
                for hidden in ("2", "none"):
                    assert (await client.post(f"/api/v1/{path}-{hidden}", json=body)).status_code == 404
                other = await client.post(f"/api/v1/{path}-0", json=body | {"answered_by": "X-1", "decided_by": "X-1"})
                assert other.status_code == 422
            assert (await client.post("/api/v1/obstacles/O-0", json={"text": " \n"})).status_code == 422
            for receiver in ("M-1", "nobody"):
                thanks = {"receiver_id": receiver, "reason": "good work"}
                assert (await client.post("/api/v1/recognitions", json=thanks)).status_code == 422, receiver
        assert await upstream.recorded("obstacle.answered") == await upstream.recorded("idea.decided") == []


async def test_a_colleague_is_thanked_as_a_peer_and_a_repeated_request_once(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        other = await Tokens(session.client).make("other", "agent", "A-2", None)
        for token in (tokens["agent"], tokens["agent"], other):  # a request's id is each person's own
            async with client_with_token(address, token) as client:
                body = {"receiver_id": "M-2", "reason": "helped a colleague", "request_id": "t"}
                assert (await client.post("/api/v1/recognitions", json=body)).status_code == 202
        given = await eventually(lambda: upstream.recorded("recognition.given"), lambda found: len(found) == 2)
        assert {(one["giver_id"], one["giver_kind"]) for one in given} == {("A-1", "peer"), ("A-2", "peer")}


async def test_pages_of_obstacles_repeat_and_lose_none(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        for number in range(5):  # three of them at one time
            fact = event(f"o-{number}", "obstacle.reported", obstacle_id=f"O-{number}", employee_id="A-1", text="x")
            await upstream.record(fact | {"time": f"2026-01-0{max(1, number - 1)}T10:00:00Z"})
        async with client_with_token(address, tokens["operator"]) as client:
            for order, expected in (("asc", "01234"), ("desc", "43210")):
                found: list[str] = []
                query: Document = {"limit": 2, "order": order}
                while True:
                    page = await read_current(client, "obstacles", **query)
                    found += [row["obstacle_id"] for row in page["items"]]
                    if page["next"] is None:
                        break
                    query["after"] = page["next"]
                assert found == [f"O-{digit}" for digit in expected]
            some = await listed(client, "obstacles", **{"from": "2026-01-02", "to": "2026-01-02"})
            assert [row["obstacle_id"] for row in some] == ["O-3"]
            assert await listed(client, "obstacles", agent="A-2") == []
            assert (await client.get("/api/v1/obstacles", params={"after": "x"})).status_code == 422


async def test_an_answer_is_unreadable_once_its_writer_is_forgotten(session: Session) -> None:
    async with served_with_tokens(session) as (address, tokens), upstream_of(session) as upstream:
        await reported(upstream)
        async with client_with_token(address, tokens["manager"]) as client:
            await read_current(client, "obstacles")
            await client.post("/api/v1/obstacles/O-0", json={"text": ANSWER})
            await eventually(lambda: listed(client, "obstacles", answered=True), bool)
            keys = await Keyring.open(session.client)
            done = await forget_employee(session.log, session.rejected, keys, "M-1", "X-1", "asked for it")
            assert done.keys == 1
            (row,) = await eventually(
                lambda: listed(client, "obstacles", answered=True), lambda found: found[0]["answer"] is None
            )
            assert (row["answered_by"], row["text"]) == ("M-1", "the form of A-1")
        assert "Xanthippe" not in json.dumps(await upstream.replay())
