"""Arbitrary bytes in subjects, replies, headers and bodies: roles keep running and report the error."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress

import nats.errors
import pytest

from app.runtime.session import Session
from config import topology
from consumers.rejections import RejectedEntry
from ledger.encryption.keyring import Keyring
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.raw_nats import RawNats, published
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import eventually, wait_until

SUBJECT_TOKENS = [
    b"\xff\xfe",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"a\x00b",
    b"a\x0bb",
    b"a\x0cb",
    b"a\rb",
    b"\r",
    b"a\x1b[31mb",
    "a\N{RIGHT-TO-LEFT OVERRIDE}b".encode(),
    b"\xe2\x80\xa8",
    b"\x7f",
    b"x" * 3500,
]
HEADERS = {
    "inline status that is not ASCII": b"NATS/1.0 4 \xff\xff\r\n\r\n",
    "inline status of the server": b"NATS/1.0 404 No Messages\r\n\r\n",
    "no responders": b"NATS/1.0 503\r\n\r\n",
    "idle heartbeat": b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n",
    "no version": b"\r\n\r\n",
    "nothing": b"",
    "half a version": b"NATS/1.0",
    "other protocol": b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
    "no colon": b"NATS/1.0\r\nwithout colon\r\n\r\n",
    "no name": b"NATS/1.0\r\n: value\r\n:\r\n\r\n",
    "bytes": b"NATS/1.0\r\n\xff\xfe: \x00\xff\r\nce-id: \xff\r\nce-\xff: 1\r\n\r\n",
    "duplicates": b"NATS/1.0\r\nce-id: 1\r\nce-id: 2\r\nCE-ID: 3\r\n\r\n",
    "bare line ends": b"NATS/1.0\nce-id: 1\nce-type: 2\n\n",
    "folded": b"NATS/1.0\r\nce-id: 1\r\n  more\r\n\r\n",
    "status as a header": b"NATS/1.0\r\nStatus: 503\r\nDescription: \xff\r\n\r\n",
    "content types": b"NATS/1.0\r\ncontent-type: application/json\r\ncontent-type: text/plain; charset=\xff\r\n\r\n",
    "huge": b"NATS/1.0\r\n" + b"ce-a: " + b"\x01" * 45_000 + b"\r\n\r\n",
    "many": b"NATS/1.0\r\n" + b"".join(b"ce-h%d: \xff\r\n" % number for number in range(3000)) + b"\r\n",
}


def fact(name: str) -> Document:
    """Return a purchase of the CRM."""
    return event(name, "purchase.completed", order_id=name, total=gbp("1.00"))


async def rejected_of(session: Session) -> list[RejectedEntry]:
    """Return every rejected message, decrypted."""
    keys = await Keyring.open(session.client)
    found: list[RejectedEntry] = []
    async for batch in session.rejected.subject_batches(f"{topology.REJECTED_SUBJECT}.>"):
        for recorded in batch:
            document = json.loads(await keys.decrypt_fields(recorded.data))
            found.append(RejectedEntry(**{name: value for name, value in document.items() if name != "position"}))
    return found


async def all_rejected(session: Session, number: int) -> list[RejectedEntry]:
    """Wait for so many rejected messages; return them."""
    return await eventually(lambda: rejected_of(session), lambda found: len(found) >= number)


async def test_subjects_that_no_source_has_are_rejected_with_their_bytes(session: Session, upstream: Upstream) -> None:
    async with RawNats(session.upstream_url) as raw:
        for number, token in enumerate(SUBJECT_TOKENS):
            await raw.answer(b"resolution.inbox." + token, json.dumps(fact(f"s-{number}")).encode())
    await upstream.record(fact("after"))
    entries = await all_rejected(session, len(SUBJECT_TOKENS))
    assert [entry.original_subject for entry in entries] == [b"resolution.inbox." + token for token in SUBJECT_TOKENS]
    assert {(entry.code, entry.field) for entry in entries} == {("invalid", "subject")}
    bodies = [json.loads(base64.b64decode(entry.data))["id"] for entry in entries]
    assert bodies == [f"s-{number}" for number in range(len(SUBJECT_TOKENS))]


async def test_a_restarted_intake_takes_malformed_messages_that_waited(session: Session) -> None:
    async with RawNats(session.upstream_url) as raw:
        for token in SUBJECT_TOKENS:
            await raw.answer(b"resolution.inbox." + token, b"{}")
    async with upstream_of(session) as upstream:
        await upstream.record(fact("later"))
        assert len(await all_rejected(session, len(SUBJECT_TOKENS))) == len(SUBJECT_TOKENS)


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS.keys())
async def test_a_message_with_any_headers_is_recorded_or_rejected(
    session: Session, upstream: Upstream, headers: bytes
) -> None:
    async with RawNats(session.url) as raw:  # between accounts the server changes headers
        taken = b"seq" in await raw.answer(b"resolution.inbox.crm", b"{}", headers)
    await upstream.record(fact("after"))
    if taken:
        (entry,) = await all_rejected(session, 1)
        if not headers.startswith(b"NATS/1.0 "):  # the server itself takes a status away from what it stores
            assert base64.b64decode(entry.raw_headers) == headers
        assert base64.b64decode(entry.data) == b"{}"


REQUESTS = [
    (b"resolution.decide.%b.action", b'{"request_id": "r", "note": "n"}'),
    (b"resolution.decide.%b.action", b'{"request_id": "r", "note": "n", "customer_id": "\xed\xbf\xbf"}'),
    (b"resolution.decide.%b.action", b"{}"),
    (b"resolution.decide.%b.preview", b"\xff"),
    (b"resolution.decide.%b.flag", b"{}"),
    (b"resolution.decide.%b.hold", b"[" * 40_000),
    (b"resolution.read.%b.receipt", b'{"id": "1"}'),
    (b"resolution.read.%b.check", b"{}"),
    (b"resolution.read.%b.brief", b"{}"),
]


@pytest.mark.parametrize(("subject", "body"), REQUESTS, ids=[f"{s.decode()} {b[:9]!r}" for s, b in REQUESTS])
async def test_a_request_of_any_bytes_is_answered(session: Session, subject: bytes, body: bytes) -> None:
    async with (
        upstream_of(session, "intake", "decisions", "projections") as upstream,
        RawNats(session.upstream_url) as raw,
    ):
        for token in SUBJECT_TOKENS:  # one by one: at the end of what the server reads at once it loses a CR
            answer = await raw.answer(subject % token, body)
            error = json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]
            assert (error["code"], error["field"]) == ("invalid", "source")
        for headers in [b"NATS/1.0\r\n\r\n", *HEADERS.values()]:
            if len(headers) > 2:
                answer = await raw.answer(subject % b"crm", body, headers)
                assert b'"internal"' not in answer, answer
                assert b'"error"' in answer or b'"status"' in answer or b'"accepted"' in answer, answer
        assert (await upstream.action())["outcome"] == "refused"
        assert not raw.errors


REPLIES = [
    b"_R.\xff",
    b"\xff",
    b"resolution.inbox.crm",
    b"$JS.API.STREAM.PURGE.INBOX",
    b"ledger.fact.crm",
    b"alarm.seal",
    b"_INBOX.*",
    b"_INBOX.>",
    b"_INBOX.a\rb",
    b"$JS.ACK.INBOX.intake.1.1.1.1.1",
    b"_INBOX.\xe2\x80\xae",
]


@pytest.mark.parametrize("account", ["upstream", "ledger"])
async def test_a_reply_subject_steers_no_answer_anywhere(session: Session, upstream: Upstream, account: str) -> None:
    """Also where an upstream sits in the ledger's own account, which it should not."""
    await upstream.set_up_basics()
    url = session.upstream_url if account == "upstream" else session.url
    before = await session.log.last_position()
    async with RawNats(url) as raw:
        for number, reply in enumerate(REPLIES):
            body = {
                "request_id": f"x-{number}",
                "agent_id": "A-1",
                "kind": "refund",
                "amount": gbp("1.00"),
                "reason": "late",
            }
            raw.write(published(b"resolution.decide.crm.preview", json.dumps(body).encode(), None, reply))
            raw.write(published(b"resolution.decide.crm.budget", b"{}", None, reply))
            raw.write(published(b"resolution.read.crm.receipt", b'{"id": "1"}', None, reply))
        await raw.flush()
    upstream.timeout_seconds, answer = 2, None
    for _ in range(5):  # the server itself forgets who waits for an answer when another's reply subject is a wildcard
        with suppress(nats.errors.TimeoutError):
            answer = answer or await upstream.action("r-after")
    assert answer is not None
    assert answer["outcome"] == "taken"
    for _ in range(5):
        with suppress(nats.errors.TimeoutError):
            assert (await upstream.receipt("join-a"))["status"] == "recorded"
            break
    else:
        pytest.fail("no receipt")
    await upstream.record(fact("after"))
    assert await session.log.last_position() - before <= 3  # the action, its budget, the fact
    assert not await rejected_of(session)


async def test_a_read_loop_that_ends_is_begun_again_at_once(session: Session) -> None:
    client = await session.connection("mended")

    async def broken(*_: object) -> None:
        raise RuntimeError("unexpected")

    ends = client._ps.parse
    client._ps.parse = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(nats.errors.Error):
        await client.request("$JS.API.INFO", b"", timeout=0.3)
    client._ps.parse = ends  # type: ignore[method-assign]
    await wait_until(
        lambda: client.is_connected and client._reading_task is not None and not client._reading_task.done()
    )
    assert (await client.request("$JS.API.INFO", b"", timeout=2)).data


async def test_a_pong_that_comes_after_its_flush_was_given_up_ends_nothing(session: Session) -> None:
    client = await session.connection("late pong")
    given_up: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    await client._send_ping(given_up)
    given_up.cancel()
    await client.flush()
    assert (await client.request("$JS.API.INFO", b"", timeout=2)).data


async def test_a_status_of_a_publisher_is_not_taken_for_the_servers(session: Session) -> None:
    """A stored message in the form of a heartbeat reaches a JetStream subscription as a message."""
    async with RawNats(session.upstream_url) as raw:
        await raw.answer(b"resolution.inbox.crm", b"", HEADERS["idle heartbeat"])
    client = await session.connection("reader")
    subscription = await client.jetstream().subscribe("resolution.inbox.crm", ordered_consumer=True)
    message = await subscription.next_msg(timeout=5)
    assert (message.subject, message.data) == ("resolution.inbox.crm", b"")


async def test_a_wildcard_as_reply_never_reaches_another_account(session: Session) -> None:
    """Replies stay within the sender's account (SECURITY.md)."""
    async with upstream_of(session):
        assert session._server
        async with RawNats(session._server.url("auditor")) as auditor, RawNats(session.upstream_url) as attacker:
            for _ in range(20):
                asked = [auditor.ask(b"JS.LEDGER.API.STREAM.INFO.LEDGER", b"") for _ in range(20)]
                for reply in (b"_INBOX.>", b">", b"_R_.>"):
                    attacker.write(published(b"resolution.decide.crm.preview", b"{}", None, reply))
                _, missing = await asyncio.wait(asked, timeout=10)
                assert not missing
