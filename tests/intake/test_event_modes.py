"""CloudEvents in every mode through the inbox: one event each, personal fields encrypted, duplicates found."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.runtime.seal import seal_to_the_end, verification
from app.runtime.session import Session
from consumers.intake.inbox_message import Message
from consumers.intake.recorder import Intake
from consumers.privacy.erasure import forget
from consumers.runtime.source_watch import SourceWatch
from ledger.encryption.keyring import Keyring
from ledger.store.cloudevents import parse_time
from ledger.store.event_id_index import EventIdIndex
from ledger.store.log import Draft
from ledger.store.streams import js_api
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import wait_for_intake

E_MAIL = "xanthippe@example.org"


def purchase(number: object, **changes: Any) -> Document:
    """Return a purchase of C-9; an attribute that is ``...`` is left out."""
    made = event(f"p-{number}", "purchase.completed", order_id="O-1", customer_id="C-9", total=gbp("5.00")) | changes
    return {name: value for name, value in made.items() if value is not ...}


def in_headers(fact: Document) -> dict[str, str]:
    """Return the headers of an event in binary mode; values are ASCII, or percent-encoded already."""
    return {f"ce-{name}": str(value) for name, value in fact.items() if name != "data"}


async def codes(session: Session) -> list[tuple[str, str]]:
    """Wait until the inbox is empty; return the codes and fields of all rejections, in order."""
    if (await js_api(session.client, "STREAM.INFO.INBOX"))["state"]["last_seq"]:
        await wait_for_intake(session)
    return [
        (entry["code"], entry["field"])
        for entry in [
            json.loads(one.data) async for batch in session.rejected.subject_batches("rejected.>") for one in batch
        ]
    ]


async def test_one_event_in_all_modes_is_recorded_once(upstream: Upstream) -> None:
    fact = purchase(1, id="bestellung-ü1", subject="a b", count=7)
    binary = in_headers(fact | {"id": "bestellung-%C3%BC1", "subject": "a%20b"})
    body = json.dumps(fact["data"]).encode()
    encoded = {name: value for name, value in fact.items() if name != "data"} | {
        "data_base64": base64.b64encode(body).decode()
    }
    inbox = "resolution.inbox.crm"
    await upstream.publish(body, inbox, headers=binary | {"Content-Type": "application/json"})
    await upstream.publish(body, inbox, headers=binary | {"content-type": "application/vnd.crm+json; charset=utf-8"})
    await upstream.publish(fact)
    await upstream.publish(
        json.dumps(fact).encode(), inbox, headers={"Content-Type": "Application/CloudEvents+JSON; charset=utf-8"}
    )
    await upstream.publish(json.dumps(encoded).encode(), inbox)
    await upstream.publish(purchase(1, id="bestellung-ü1", subject="a b", count=7, datacontenttype="application/json"))
    await upstream.record(purchase(2))
    assert [stored["id"] for stored in await upstream.replay()] == ["bestellung-ü1", "p-2"]
    assert await codes(upstream.session) == []


async def test_a_body_in_binary_mode_cannot_add_attributes(upstream: Upstream) -> None:
    """Text behind the data is no JSON, even where it would be after the attributes were put around it."""
    body = json.dumps(purchase(1)["data"]).encode() + b', "recordedtime": "1999-01-01T00:00:00Z", "source": "crm"'
    await upstream.publish(body, "resolution.inbox.crm", headers=in_headers(purchase(1)))
    await upstream.record(purchase(2))
    assert [stored["id"] for stored in await upstream.replay()] == ["p-2"]
    assert await codes(upstream.session) == [("not_json", "data")]


async def test_a_fact_without_a_time_gets_the_inbox_time_and_its_retry_is_a_duplicate(session: Session) -> None:
    fact = purchase(1, time=...)
    async with upstream_of(session, "intake") as upstream:
        before = datetime.now(UTC)
        await upstream.record(fact)
        await upstream.publish(json.dumps(fact, indent=1).encode())
        await upstream.publish(purchase(1))  # another: it says when
        await upstream.record(purchase(2))
        stored = (await upstream.replay())[0]
        assert before <= parse_time(stored["time"]) <= parse_time(stored["recordedtime"]) <= datetime.now(UTC)
        assert stored["timeassumed"] is True
        assert await codes(session) == [("id_reused", "id")]
    for path in (session.data_dir / "index").glob("intake.sqlite*"):
        path.unlink()
    async with upstream_of(session, "intake") as upstream:  # the index is read again from the log
        await upstream.publish(fact)
        await upstream.record(purchase(3))
        assert [one["id"] for one in await upstream.replay()] == ["p-1", "p-2", "p-3"]


def message(fact: Document, sequence: int) -> Message:
    """Return a message as the inbox delivers it; the inbox took it at 10:00 on 1 March 2026."""
    taken = int(datetime(2026, 3, 1, 10, tzinfo=UTC).timestamp()) * 1_000_000_000 + 123_456_789
    reply = b"$JS.ACK.INBOX.intake.1.%d.%d.%d.0" % (sequence, sequence, taken)
    return Message("resolution.inbox.crm", json.dumps(fact).encode(), (), reply)


async def intake_of(session: Session, path: Path) -> Intake:
    """Return an intake with an index of its own."""
    return Intake(
        session.log, session.rejected, EventIdIndex(path), await Keyring.open(session.client), SourceWatch(session.log)
    )


async def test_an_assumed_time_is_the_same_at_every_delivery(session: Session, tmp_path: Path) -> None:
    """An intake that ends before it has acknowledged leaves its messages to the next."""
    for number in (1, 2):
        await (await intake_of(session, tmp_path / f"{number}.sqlite")).take([message(purchase(1, time=...), 1)])
    assert await session.log.last_position() == 1
    stored = await session.log.at(1)
    assert stored is not None
    assert json.loads(stored.data)["time"] == "2026-03-01T10:00:00.123456Z"


async def test_an_unknown_attribute_is_encrypted_and_erased_with_its_customer(session: Session) -> None:
    fact = purchase(
        1,
        authid=E_MAIL,
        subject=E_MAIL,
        partitionkey=E_MAIL,
        count=7,
        sequence="41",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        dataschema="https://x/y",
    )
    gone = purchase(2, time=..., authid=E_MAIL)
    null = event("c-1", "fact.corrected", source_of="crm", id_of="p-2", data=None, reason="never was") | {
        "authid": E_MAIL
    }
    right = event(
        "c-2", "fact.corrected", source_of="crm", id_of="p-1", reason="typed", data=fact["data"] | {"order_id": "O-2"}
    ) | {"authid": E_MAIL}
    async with upstream_of(session, "intake") as upstream:
        for one in (fact, gone, null, right):
            await upstream.record(one)
        stored = await upstream.replay()
        assert {name: stored[0][name] for name in fact} == fact
        assert [one["authid"] for one in stored] == [E_MAIL] * 4
        raw = b"".join([one.data async for batch in session.log.subject_batches(">") for one in batch])
        assert E_MAIL.encode() not in raw
        for clear in (b'"sequence":"41"', b'"traceparent":"00-0af7651916', b'"dataschema":"https://x/y"'):
            assert clear in raw.replace(b": ", b":")
        await forget(
            session.log, session.rejected, await Keyring.open(session.client), ["C-9"], [], "M-1", "asked for it"
        )
        assert E_MAIL not in json.dumps(await upstream.replay())
        for again in (fact, gone, null, right):
            await upstream.publish(again)
        await upstream.record(purchase(3))
        assert [one["id"] for one in await upstream.replay() if one["source"] == "crm"] == [
            "p-1",
            "p-2",
            "c-1",
            "c-2",
            "p-3",
        ]
        assert await codes(session) == []
    await seal_to_the_end(session)
    found = await verification(session, (), (), progressed=lambda _done, _of: None)
    assert found["findings"] == []


async def test_a_fact_recorded_in_the_clear_by_an_earlier_version_is_a_duplicate(session: Session) -> None:
    """Also where this version would refuse it."""
    old = purchase(1, authid=E_MAIL, count=7, nested={"a": [1.5]}, subject=None)
    stored = json.dumps(old, separators=(",", ":")).encode()
    await session.log.append([Draft("ledger.fact.crm", stored)])
    async with upstream_of(session, "intake") as upstream:
        await upstream.publish(old)
        await upstream.publish(old | {"count": "7", "time": "2026-01-05T11:00:00.000+01:00"})
        await upstream.publish(old | {"count": 8})
        await upstream.publish(purchase(2, nested={"a": [1.5]}))
        await upstream.record(purchase(3))
        assert [one["id"] for one in await upstream.replay()] == ["p-1", "p-3"]
        assert await codes(session) == [("id_reused", "id"), ("invalid", "nested")]


async def test_two_writings_of_one_event_may_come_together(session: Session, tmp_path: Path) -> None:
    facts = [purchase(1, count=7), purchase(1, count="7"), purchase(1, count=8)]
    intake = await intake_of(session, tmp_path / "names.sqlite")
    await intake.take([message(fact, number) for number, fact in enumerate(facts, 1)])
    assert await session.log.last_position() == 1
    assert await codes(session) == [("id_reused", "id")]


def test_publish_reads_batches_and_every_way_to_write_an_event(command: CommandLine, tmp_path: Path) -> None:
    body = base64.b64encode(json.dumps(purchase(1)["data"]).encode()).decode()
    lines = [
        purchase(1),
        purchase(1, data=..., data_base64=body),
        [purchase(2), purchase(1, time="2026-01-05T11:00:00+01:00"), 7],
        [],
        purchase(3, time=...),
        purchase(1, data={"order_id": "O-2", "total": gbp("5.00")}),
        purchase(4, myext=1.5),
        [[purchase(5)]],
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)))
    dry = json.loads(command("publish", str(path), "--dry-run", "--json").stdout)
    done = json.loads(command("publish", str(path), "--json").stdout)
    wrong = [(5, "invalid", ""), (11, "id_reused", "id"), (13, "invalid", "myext"), (15, "invalid", "")]
    for outcome in (dry, done):
        assert sorted((one["line"], one["code"], one["field"]) for one in outcome["rejections"]) == wrong
        assert (outcome["read"], outcome["rejected"]) == (9, 4)
    assert (done["recorded"], done["duplicate"]) == (3, 2)
