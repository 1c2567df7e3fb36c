"""Receipts of each event by its id and of each message by its place: pending, unknown, recorded, rejected."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.runtime.session import Session
from config import topology
from consumers.intake.inbox_message import Message
from consumers.intake.recorder import Intake
from consumers.runtime.source_watch import SourceWatch
from domain.events.facts import FACTS
from ledger.encryption.keyring import Keyring
from ledger.errors import UnavailableError
from ledger.store.cloudevents import parse_time
from ledger.store.event_id_index import EventIdIndex
from ledger.store.streams import js_api
from ledger.store.subject_tokens import token_of_source
from tests.support.builders import event, purchase
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.inboxes import make_known
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import eventually, read_rejections, wait_for_intake

BATCH = {"Content-Type": "application/cloudevents-batch+json; charset=UTF-8"}


async def publish(upstream: Upstream, data: bytes, token: str = "crm", **headers: str) -> Document:
    """Publish a message; return its PubAck."""
    options = {"headers": headers} if headers else {}
    ack: Document = json.loads(
        (await upstream.client.request(f"resolution.inbox.{token}", data, timeout=10, **options)).data
    )
    assert "error" not in ack, ack
    return {"stream": ack["stream"], "seq": ack["seq"]}


async def send_batch(upstream: Upstream, *facts: Document | bytes, token: str = "crm") -> Document:
    elements = [fact if isinstance(fact, bytes) else json.dumps(fact).encode() for fact in facts]
    return await publish(upstream, b"[" + b", ".join(elements) + b"]", token, **BATCH)


async def ask(upstream: Upstream, token: str = "crm", **fields: Any) -> Document:
    reply = await upstream.client.request(f"resolution.read.{token}.receipt", json.dumps(fields).encode(), timeout=10)
    answer: Document = json.loads(reply.data)
    return answer


async def settled(upstream: Upstream, token: str = "crm", **fields: Any) -> Document:
    """Ask for a receipt until it is not pending; return it."""
    return await eventually(lambda: ask(upstream, token, **fields), lambda answer: answer.get("status") != "pending")


async def test_each_event_of_a_batch_has_its_own_outcome(upstream: Upstream) -> None:
    await upstream.record(purchase(1))
    facts: list[Any] = [
        purchase(1),
        purchase(2),
        purchase(2),
        purchase(2, time="2026-01-06T10:00:00Z"),
        purchase(3, type="x"),
        {"id": "p-4"},
        purchase(5, source="erp"),
        b"7",
        purchase(6, data=...),
        purchase(7),
    ]
    facts = [{k: v for k, v in fact.items() if v is not ...} if isinstance(fact, dict) else fact for fact in facts]
    place = await send_batch(upstream, *facts)
    receipt = await settled(upstream, **place)
    assert receipt["status"] == "rejected"
    found = [
        (item.get("id"), item["status"], item.get("position") or item["error"]["code"]) for item in receipt["items"]
    ]
    assert found == [
        ("p-1", "recorded", 1),
        ("p-2", "recorded", 2),
        ("p-2", "recorded", 2),
        ("p-2", "rejected", "id_reused"),
        ("p-3", "rejected", "unknown_type"),
        ("p-4", "rejected", "missing"),
        ("p-5", "rejected", "source_mismatch"),
        (None, "rejected", "invalid"),
        ("p-6", "rejected", "missing"),
        ("p-7", "recorded", 3),
    ]
    by_id = await ask(upstream, ids=["p-1", "p-2", "p-3", "p-4", "p-5", "p-6", "p-7", "p-8"])
    assert [item["status"] for item in by_id["items"]] == [
        "recorded",
        "recorded",
        "rejected",
        "rejected",
        "rejected",
        "rejected",
        "recorded",
        "unknown",
    ]
    keys = await Keyring.open(upstream.session.client)
    entries = [json.loads(await keys.decrypt_fields(one.data)) for one in await read_rejections(upstream.session)]
    expected = [
        facts[at] if isinstance(facts[at], bytes) else json.dumps(facts[at]).encode() for at in (3, 4, 5, 6, 7, 8)
    ]
    assert sorted(base64.b64decode(entry["data"]) for entry in entries) == sorted(expected)


async def test_a_batch_without_a_content_type_is_one(upstream: Upstream) -> None:
    place = await publish(upstream, b" [" + json.dumps(purchase(1)).encode() + b"]")
    assert (await settled(upstream, **place))["items"] == [{"id": "p-1", "status": "recorded", "position": 1}]


async def test_an_empty_batch_is_recorded_with_no_events(upstream: Upstream) -> None:
    place = await send_batch(upstream)
    assert await settled(upstream, **place) == place | {"status": "recorded", "items": []}
    assert await upstream.session.rejected.last_position() == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[" + b",".join([b"{}"] * 1001) + b"]", "too_large"),
        (b"[" + b",".join([b"{}"] * 17) + b"]", "invalid"),
        (b"[{]", "not_json"),
        (b"{}", "invalid"),
        (b"[\xff]", "not_json"),
    ],
)
async def test_a_batch_that_is_none_is_rejected_as_a_whole(upstream: Upstream, data: bytes, code: str) -> None:
    place = await publish(upstream, data, **BATCH)
    receipt = await settled(upstream, **place)
    assert (receipt["status"], receipt["error"]["code"]) == ("rejected", code)
    assert len(await upstream.session.rejected.read_subject("rejected.>")) == 1


async def test_as_many_events_as_fit_are_taken(upstream: Upstream) -> None:
    facts = [event(f"s-{n}", "shift.started", employee_id="A-1") for n in range(300)]
    place = await send_batch(upstream, *facts)
    receipt = await settled(upstream, **place)
    assert receipt["status"] == "recorded"
    assert [item["position"] for item in receipt["items"]] == list(range(1, 301))


async def test_a_message_without_a_readable_id_has_a_receipt_by_its_place(upstream: Upstream) -> None:
    for data, code in [(b"", "not_json"), (b"\xff\xfe", "not_json"), (b"{}", "missing"), (b'{"id": 7}', "missing")]:
        place = await publish(upstream, data)
        receipt = await settled(upstream, **place)
        assert {name: receipt[name] for name in place} == place
        assert (receipt["status"], receipt["error"]["code"]) == ("rejected", code)
    place = await publish(upstream, b"{}", **{"ce-specversion": "1.0", "ce-id": "%ff"})
    assert (await settled(upstream, **place))["error"]["field"] == "id"


async def test_a_readable_event_has_a_receipt_by_its_place_too(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.intake.inboxes._TRIM_SECONDS", 0.0)
    place = await publish(upstream, json.dumps(purchase(1)).encode())
    again = await publish(upstream, json.dumps(purchase(1)).encode())
    reused = await publish(upstream, json.dumps(purchase(1, time="2026-01-06T10:00:00Z")).encode())
    await upstream.record(purchase(2))
    assert await settled(upstream, **place) == place | {"id": "p-1", "status": "recorded", "position": 1}
    assert await settled(upstream, **again) == again | {"id": "p-1", "status": "recorded", "position": 1}
    assert (await settled(upstream, **reused))["error"]["code"] == "id_reused"


@pytest.mark.parametrize(("token", "code"), [("a%2eb", "id_not_canonical"), ("$JS", "id_not_canonical")])
async def test_a_message_under_a_wrongly_written_token_has_a_receipt_by_its_place(
    upstream: Upstream, token: str, code: str
) -> None:
    place = await publish(upstream, json.dumps(purchase(1)).encode(), token)
    answer = await settled(upstream, token, **place)
    assert (answer["status"], answer["error"]["code"]) == ("rejected", code)
    assert (await ask(upstream, token, id="p-1"))["error"]["code"] == code  # by id a source asks under its own token
    assert (await ask(upstream, "crm", **place))["status"] == "unknown"


async def test_messages_without_a_source_have_no_receipt(upstream: Upstream, session: Session) -> None:
    place = await publish(upstream, json.dumps(purchase(1)).encode(), "%")
    await wait_for_intake(session)
    assert (await ask(upstream, "%", **place))["outcome"] == "error"  # several senders share this token


async def test_a_rejected_event_is_found_without_the_index_too(upstream: Upstream, session: Session) -> None:
    place = await send_batch(upstream, purchase(1), purchase(2, type="x"), purchase(3, type="y"))
    before = await settled(upstream, **place)
    assert [item["status"] for item in before["items"]] == ["recorded", "rejected", "rejected"]
    index = EventIdIndex(session.data_dir / "index" / "intake.sqlite")
    index.commit([], {}, changes=[("DELETE FROM rejections WHERE seq = ?", [(place["seq"],)])])
    index.close()
    assert await ask(upstream, **place) == before


async def test_a_source_reads_receipts_of_its_own_messages_alone(upstream: Upstream) -> None:
    for data in (
        json.dumps(purchase(1)).encode(),
        b"nonsense",
        b"[]",
        b"[" + json.dumps(purchase(2)).encode() + b", 7]",
    ):
        place = await publish(upstream, data)
        await settled(upstream, **place)
        assert await ask(upstream, "erp", **place) == place | {"status": "unknown"}
    assert await ask(upstream, "erp", id="p-1") == {"id": "p-1", "status": "unknown"}
    assert await ask(upstream, id="") == {"id": "", "status": "unknown"}
    assert (await ask(upstream, "*", stream="INBOX", seq=2))["error"]["field"] == "source"
    nowhere: list[Document] = [
        {"stream": "LEDGER", "seq": 1},
        {"stream": "INBOX", "seq": 99},
        {"stream": "no.such", "seq": 1},
        {"stream": "INBOX", "seq": 0},
        {"stream": "INBOX", "seq": 2**63},
        {"stream": "*", "seq": 1},
    ]
    for place in nowhere:
        assert (await ask(upstream, **place)) == place | {"status": "unknown"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ids": []},
        {"stream": "INBOX"},
        {"seq": 1},
        {"id": "a", "stream": "INBOX", "seq": 1},
        {"ids": ["a"] * 1001},
        {"seq": "1", "stream": "INBOX"},
        {"seq": 1.5, "stream": "INBOX"},
        {"stream": 7, "seq": 1},
        {"id": 7},
    ],
)
async def test_a_request_for_nothing_is_an_error(shared_upstream: Upstream, fields: Document) -> None:
    assert (await ask(shared_upstream, **fields))["outcome"] == "error"


def held_log(session: Session, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have the log append nothing until the event is set."""
    held = asyncio.Event()
    append = session.log.append

    async def waits(*arguments: Any, **options: Any) -> int:
        await held.wait()
        return await append(*arguments, **options)

    monkeypatch.setattr(session.log, "append", waits)
    return held


async def test_an_id_is_pending_while_it_waits_and_unknown_if_it_was_never_sent(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intake waits for the log; its receipts do not."""
    held = held_log(session, monkeypatch)
    async with upstream_of(session, "intake") as upstream:
        assert (await ask(upstream, id="p-1"))["status"] == "unknown"
        binary = {f"ce-{name}": value for name, value in purchase(1, id="bestellung-%C3%BC1").items() if name != "data"}
        place = await publish(upstream, json.dumps(purchase(1)["data"]).encode(), **binary)
        batch = await send_batch(upstream, purchase(2), purchase(3))
        answer = await ask(upstream, ids=["bestellung-ü1", "p-2", "p-3", "p-4"])
        assert [item["status"] for item in answer["items"]] == ["pending", "pending", "pending", "unknown"]
        assert (await ask(upstream, **place))["status"] == "pending"
        assert (await ask(upstream, **batch))["status"] == "pending"
        assert (await ask(upstream, "erp", **place))["status"] == "unknown"
        held.set()
        assert (await settled(upstream, id="p-3"))["status"] == "recorded"
        await wait_for_intake(session)
        answer = await ask(upstream, ids=["bestellung-ü1", "p-2", "p-3", "p-4"])
        assert [item["status"] for item in answer["items"]] == ["recorded", "recorded", "recorded", "unknown"]


async def test_behind_a_long_queue_of_the_same_source_an_id_may_be_pending(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receipt reads a bounded part of the queue of its own source."""
    held = held_log(session, monkeypatch)
    async with upstream_of(session, "intake") as upstream:
        await asyncio.gather(*(upstream.publish(purchase(number)) for number in range(150)))
        answer = await ask(upstream, ids=["p-0", "p-149", "never"])
        assert [item["status"] for item in answer["items"]] == ["pending"] * 3
        assert (await ask(upstream, "erp", id="never"))["status"] == "unknown"
        held.set()
        await wait_for_intake(session)
        assert (await ask(upstream, id="never"))["status"] == "unknown"


@contextlib.contextmanager
def a_version_without(name: str) -> Iterator[None]:
    """Let the ledger not know a type of facts; the order of the types, which documents show, is kept."""
    known = dict(FACTS)
    del FACTS[name]
    try:
        yield
    finally:
        FACTS.clear()
        FACTS.update(known)


async def test_a_rejected_event_of_a_batch_is_retried_alone(session: Session, command: CommandLine) -> None:
    async with upstream_of(session, "intake") as upstream:
        with a_version_without("resolution.shift.started.v1"):
            place = await send_batch(
                upstream, purchase(1), event("s-1", "shift.started", employee_id="A-1"), purchase(2, type="x")
            )
            receipt = await settled(upstream, **place)
        assert [item["status"] for item in receipt["items"]] == ["recorded", "rejected", "rejected"]
        done = await asyncio.to_thread(command, "admin", "rejected", "retry", "--all", "--json")
        assert json.loads(done.stdout) == {"retried": 2}
        assert (await settled(upstream, id="s-1"))["status"] == "recorded"
        await wait_for_intake(session)
        assert [stored["id"] for stored in await upstream.replay()] == ["p-1", "s-1"]
        assert [item["status"] for item in (await ask(upstream, ids=["p-1", "s-1", "p-2"]))["items"]] == [
            "recorded",
            "recorded",
            "rejected",
        ]


async def test_a_retried_message_is_the_one_that_was_rejected(session: Session, command: CommandLine) -> None:
    """Its headers byte by byte, however long, and the time when it came first; nothing of a person is shown in between."""
    fact = event("s-1", "shift.started", employee_id="A-1")
    headers = {f"ce-{name}": value for name, value in fact.items() if name not in {"data", "time"}}
    headers |= {"ce-subject": "xanthippe%40example.org", "ce-long": "x" * 5000, "ce-id": '"s%2D1"'}
    async with upstream_of(session, "intake") as upstream:
        with a_version_without("resolution.shift.started.v1"):
            place = await publish(upstream, json.dumps(fact["data"]).encode(), **headers)
            assert (await settled(upstream, **place))["id"] == "s-1"
        taken = datetime.now(UTC)
        raw = b"".join([one.data for one in await session.rejected.read_subject("rejected.>")])
        assert b"xanthippe" not in raw
        await asyncio.sleep(1)
        done = await asyncio.to_thread(command, "admin", "rejected", "retry", "--all", "--json")
        assert json.loads(done.stdout) == {"retried": 1}
        await wait_for_intake(session)
        (stored,) = await upstream.replay()
    assert (stored["id"], stored["subject"], stored["long"]) == ("s-1", "xanthippe@example.org", "x" * 5000)
    assert parse_time(stored["time"]) < taken


async def test_a_check_answers_like_the_intake(upstream: Upstream) -> None:
    async def check(data: bytes, **headers: str) -> Any:
        return json.loads(
            (await upstream.client.request("resolution.read.crm.check", data, timeout=10, headers=headers or None)).data
        )

    body = json.dumps(purchase(1)["data"]).encode()
    binary = {f"ce-{name}": value for name, value in purchase(1, id="a%20b").items() if name != "data"}
    assert await check(body, **binary) == {"accepted": True, "type": "resolution.purchase.completed.v1", "id": "a b"}
    assert (await check(body, **binary, **{"Content-Type": "text/xml"}))["error"]["field"] == "datacontenttype"
    untimed = {name: value for name, value in purchase(1).items() if name != "time"}
    answer = await check(json.dumps([untimed, purchase(2, myext=[1])]).encode(), **BATCH)
    assert [item["accepted"] for item in answer["items"]] == [True, False]
    assert answer["items"][1]["error"]["field"] == "myext"
    assert (await check(json.dumps(purchase(1) | {"x": "y" * 60_000}).encode()))["error"]["code"] == "too_large"
    assert await upstream.session.log.last_position() == 0


@pytest.mark.parametrize("step", ["_append", "_reject", "places.note", "places.note_batches"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_batch_that_is_handed_out_again_has_the_same_outcome(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool
) -> None:
    """The intake fails at a step, before or after it was made, and takes the message again."""
    intake = Intake(
        session.log,
        session.rejected,
        EventIdIndex(tmp_path / "names.sqlite"),
        await Keyring.open(session.client),
        SourceWatch(session.log),
    )
    facts = [purchase(1), purchase(2, type="x"), purchase(1), purchase(1, time="2026-01-06T10:00:00Z"), purchase(3)]
    reply = b"$JS.ACK.INBOX.intake.1.7.7.1772359200000000000.0"
    message = Message("resolution.inbox.crm", json.dumps(facts).encode(), (), reply)
    owner: Any = intake.places if "." in step else intake
    name = step.rpartition(".")[2]
    made = getattr(owner, name)

    def fails(*arguments: Any) -> Any:
        monkeypatch.undo()
        if after and "." in step:
            made(*arguments)
        if "." in step:
            raise UnavailableError(step)
        return _fails_later(made, arguments, after=after)

    monkeypatch.setattr(owner, name, fails)
    with pytest.raises(UnavailableError):
        await intake.take([message])
    await intake.take([message])
    await intake.take_singly(message)
    log = [json.loads(one.data)["id"] async for batch in session.log.subject_batches(">") for one in batch]
    assert log == ["p-1", "p-3"]
    rejected = [json.loads(one.data)["code"] for one in await session.rejected.read_subject("rejected.>")]
    assert sorted(rejected) == ["id_reused", "unknown_type"]
    assert sorted(intake.places.keys_of("INBOX", 7)) == [1, 3, 5]
    assert intake.places.batch_of("INBOX", 7) == ("crm", 5)


async def _fails_later(made: Callable[..., Any], arguments: Any, *, after: bool) -> None:
    if after:
        await made(*arguments)
    raise UnavailableError("later")


_EXAMPLES = itertools.count()  # each example has sources of its own


@settings(max_examples=settings().max_examples // 4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2), st.booleans()), max_size=12))
async def test_a_batch_is_its_events_one_after_the_other(upstream: Upstream, made: list[tuple[int, int, bool]]) -> None:
    """The same outcomes, whether events come together or each for itself."""
    facts = [
        purchase(n, time=f"2026-01-05T10:00:0{second}Z") | ({} if whole else {"type": "x"}) for n, second, whole in made
    ]
    outcomes = []
    example = next(_EXAMPLES)
    for source in (f"one-{example}", f"all-{example}"):
        token = token_of_source(source)
        sent = [fact | {"source": source} for fact in facts]
        if source.startswith("all"):
            items = (await settled(upstream, token, **await send_batch(upstream, *sent, token=token)))["items"]
        else:
            places = [await publish(upstream, json.dumps(fact).encode(), token) for fact in sent]
            items = [await settled(upstream, token, **place) for place in places]
        outcomes.append([(item.get("id"), item["status"], item.get("error", {}).get("code")) for item in items])
    assert outcomes[0] == outcomes[1]


async def published_to(upstream: Upstream, stream: str, token: str) -> Document:
    """Publish a message; return its place if it was stored in this stream."""
    with contextlib.suppress(nats.errors.Error, AssertionError):
        place = await publish(upstream, b"{}", token)
        return place if place["stream"] == stream else {}
    return {}


@pytest.mark.parametrize(("name", "token"), [(topology.INBOX, "new-source"), ("INBOX_crm", "crm")])
async def test_receipts_of_an_inbox_made_anew_are_not_those_of_the_one_before(
    session: Session, name: str, token: str
) -> None:
    async with upstream_of(session) as upstream:
        await make_known(upstream, "crm")
        before = [await publish(upstream, b"{}", token), await send_batch(upstream, purchase(1), b"7", token=token)]
        for place in before:
            assert (await settled(upstream, token, **place))["status"] == "rejected"
        await js_api(await session.connection("operator", user="operator"), f"STREAM.DELETE.{name}")
        place = await eventually(lambda: published_to(upstream, name, token), bool)
        assert place["seq"] > max(one["seq"] for one in before)
        answer = await settled(upstream, token, **place)
        assert (answer["status"], answer["error"]["code"]) == ("rejected", "missing")


async def test_a_source_reads_no_rejection_of_another_whose_name_is_its_old_token(upstream: Upstream) -> None:
    await upstream.record(
        purchase(1, "a.b")
    )  # earlier versions gave `a.b` the token `a_b`, which is the source a_b's own
    place = await publish(upstream, json.dumps(purchase(2, "a_b", type="x")).encode(), "a_b")
    assert (await settled(upstream, "a_b", **place))["status"] == "rejected"
    assert await ask(upstream, "a%2Eb", **place) == place | {"status": "unknown"}
    assert (await ask(upstream, "a%2Eb", id="p-2"))["status"] == "unknown"
