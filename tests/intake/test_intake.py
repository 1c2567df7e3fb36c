"""Intake: every acknowledged message is recorded once, or visibly rejected."""

import asyncio
import base64
import json
from collections import Counter
from pathlib import Path

import pytest

from app.runtime.session import Session
from config import topology
from ledger.encryption.keyring import Keyring
from tests.support.builders import event, gbp, purchase
from tests.support.documents import Document
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import count_inbox_messages, eventually, read_rejections, wait_for_intake


async def test_a_fact_is_recorded_as_sent_with_its_recorded_time(upstream: Upstream) -> None:
    fact = purchase(1, traceparent="00-abc-01", myext=7)
    fact["data"]["unknown_field"] = {"kept": [1, 2]}
    await upstream.record(fact)
    (stored,) = await upstream.replay()
    recordedtime = stored.pop("recordedtime")
    assert stored.pop("position") == 1
    assert stored == fact
    assert recordedtime.endswith("Z")


async def test_a_duplicate_has_no_effect_and_other_content_under_its_id_is_rejected(upstream: Upstream) -> None:
    await upstream.record(purchase(1))
    await upstream.publish(purchase(1))
    await upstream.publish(json.dumps(purchase(1), sort_keys=True, indent=2).encode())
    await upstream.publish(purchase(1) | {"time": "2026-01-05T10:00:01Z"})
    await upstream.record(purchase(2))
    assert [stored["id"] for stored in await upstream.replay()] == ["p-1", "p-2"]
    (rejected,) = await read_rejections(upstream.session)
    assert json.loads(rejected.data)["code"] == "id_reused"


async def test_binary_mode_is_accepted(upstream: Upstream) -> None:
    fact = purchase(1)
    headers = {f"ce-{name}": fact[name] for name in ("specversion", "id", "source", "type", "time")}
    await upstream.publish(json.dumps(fact["data"]).encode(), headers=headers | {"content-type": "application/json"})
    assert (await upstream.receipt("p-1"))["status"] == "recorded"
    await upstream.publish(fact)  # the same in structured mode
    await upstream.record(purchase(2))
    assert len(await upstream.replay()) == 2


BAD: list[tuple[str, bytes | Document, str, str]] = [
    ("broken JSON", b'{"specversion": "1.0", "id": "bad', "not_json", ""),
    ("no object", b"1", "invalid", ""),
    ("not UTF-8", json.dumps(purchase("bad")).encode().replace(b"O-bad", b"O-\xff"), "not_json", "data"),
    ("empty", b"", "not_json", ""),
    ("a lone surrogate", b'{"id": "\\ud800"}', "not_json", ""),
    (
        "nested deeply",
        json.dumps(purchase("bad"))[:-1].encode() + b', "x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        "",
        "",
    ),
    ("no source", {k: v for k, v in purchase("bad").items() if k != "source"}, "missing", "source"),
    ("no data", {k: v for k, v in purchase("bad").items() if k != "data"}, "missing", "data"),
    ("other version", purchase("bad", specversion="0.3"), "invalid", "specversion"),
    ("id is a number", purchase("bad", id=7), "invalid", "id"),
    ("id is an e-mail", purchase("bad", id="jo@example.com"), "invalid", "id"),
    ("id is too long", purchase("bad", id="x" * 129), "invalid", "id"),
    ("id has a control", purchase("bad", id="a\u0007b"), "invalid", "id"),
    ("unknown type", purchase("bad", type="resolution.purchase.dreamt.v1"), "unknown_type", "type"),
    ("reserved type", purchase("bad", type="resolution.action.taken.v1"), "reserved_type", "type"),
    ("reserved later", purchase("bad", type="resolution.flag.raised.v1"), "reserved_type", "type"),
    ("reserved attribute", purchase("bad", recordedtime="2026-01-01T00:00:00Z"), "reserved_attribute", "recordedtime"),
    ("reserved position", purchase("bad", position=4), "reserved_attribute", "position"),
    ("attribute name", purchase("bad", MyExt="x"), "invalid", "MyExt"),
    ("no zone", purchase("bad", time="2026-01-05T10:00:00"), "invalid", "time"),
    ("date only", purchase("bad", time="2026-01-05"), "invalid", "time"),
    ("no such day", purchase("bad", time="2026-02-30T10:00:00Z"), "invalid", "time"),
    ("year 0", purchase("bad", time="0000-01-01T00:00:00Z"), "invalid", "time"),
    ("far ahead", purchase("bad", time="2099-01-01T00:00:00Z"), "time_ahead", "time"),
    ("source disagrees", purchase("bad", source="erp"), "source_mismatch", "source"),
    (
        "float money",
        event("p-bad", "purchase.completed", order_id="O", total={"amount": 5.0, "currency": "GBP"}),
        "invalid",
        "data.total.amount",
    ),
    (
        "signed money",
        event("p-bad", "purchase.completed", order_id="O", total=gbp("-5.00")),
        "invalid",
        "data.total.amount",
    ),
    (
        "too many digits",
        event("p-bad", "purchase.completed", order_id="O", total=gbp("5.001")),
        "invalid",
        "data.total.amount",
    ),
    ("huge", event("p-bad", "purchase.completed", order_id="O", total=gbp("1" * 400)), "invalid", "data.total.amount"),
    (
        "no such currency",
        event("p-bad", "purchase.completed", order_id="O", total={"amount": "5", "currency": "QQQ"}),
        "invalid",
        "data.total.currency",
    ),
    ("missing field", event("p-bad", "purchase.completed", total=gbp("5.00")), "invalid", "data.order_id"),
    ("wrong type", event("p-bad", "interaction.opened", interaction_id="I", line="first"), "invalid", "data.line"),
    ("line 10", event("p-bad", "interaction.opened", interaction_id="I", line=10), "invalid", "data.line"),
    ("data is a list", purchase("bad", data=[]), "invalid", "data"),
    (
        "another's fact",
        event("p-bad", "fact.corrected", source_of="erp", id_of="x", data=None, reason="r"),
        "not_your_fact",
        "data.source_of",
    ),
]


async def test_bad_input_is_rejected_with_its_field_and_stops_nothing(upstream: Upstream) -> None:
    sent = [fact if isinstance(fact, bytes) else json.dumps(fact).encode() for _, fact, _, _ in BAD]
    for number, data in enumerate(sent):
        await upstream.publish(data, subject="resolution.inbox.crm")
        await upstream.publish(purchase(number))
    await upstream.record(purchase("last"))
    assert [stored["id"] for stored in await upstream.replay()] == [f"p-{n}" for n in range(len(BAD))] + ["p-last"]
    keys = await Keyring.open(upstream.session.client)
    stored = await read_rejections(upstream.session)
    entries = [json.loads(await keys.decrypt_fields(entry.data)) for entry in stored]
    assert sorted(base64.b64decode(entry["data"]) for entry in entries) == sorted(sent)
    for entry in entries:
        name, _, code, field = BAD[sent.index(base64.b64decode(entry["data"]))]
        assert not code or (entry["code"], entry["field"]) == (code, field), name
        assert entry["message"], name


async def test_a_rejected_event_has_a_receipt_that_says_why(upstream: Upstream) -> None:
    await upstream.publish(purchase("bad", type="resolution.nothing.v1"))
    receipt = await upstream.receipt("p-bad")
    assert receipt["status"] == "rejected"
    assert (receipt["error"]["code"], receipt["error"]["field"]) == ("unknown_type", "type")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("identifier", ["a.b", "a*b", ">", "with space", "👩‍👩‍👧‍👦", "x" * 128, "%41", "-"])
async def test_ids_of_all_kinds_are_recorded_and_found(shared_upstream: Upstream, identifier: str) -> None:
    position = await shared_upstream.record(purchase(1, id=identifier))
    assert (await shared_upstream.replay())[position - 1]["id"] == identifier


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("source", ["shop.eu/west", "https://crm.example/x", "a b", "🛒", "*"])
async def test_a_source_has_one_token_and_receipts(shared_upstream: Upstream, source: str) -> None:
    position = await shared_upstream.record(purchase(1, source=source))
    assert (await shared_upstream.receipt("p-1", source))["position"] == position


async def test_more_than_48_kib_is_refused_at_once(upstream: Upstream) -> None:
    fits = purchase(1)
    fits["data"]["note"] = "x" * (topology.MAX_EVENT_BYTES - len(json.dumps(fits)) - 12)
    assert len(json.dumps(fits)) <= topology.MAX_EVENT_BYTES
    await upstream.record(fits)
    fits["data"]["note"] += "x" * 100
    with pytest.raises(RuntimeError, match="size"):
        await upstream.publish(fits)
    with pytest.raises(Exception, match=r"(?i)payload"):
        await upstream.publish(b"x" * 1_100_000)
    await upstream.record(purchase(2))


@pytest.mark.parametrize("entries_a_commit", [1, 4, 20_000])
async def test_a_lost_index_is_read_again_from_the_log(
    session: Session, monkeypatch: pytest.MonkeyPatch, entries_a_commit: int
) -> None:
    monkeypatch.setattr("ledger.store.log.MAX_BATCH", 2)
    monkeypatch.setattr("consumers.intake.recorder._ENTRIES_A_COMMIT", entries_a_commit)
    async with upstream_of(session, "intake") as upstream:
        for number in range(5):
            await upstream.record(purchase(number))
    for path in (session.data_dir / "index").glob("intake.sqlite*"):
        path.unlink()
    async with upstream_of(session, "intake") as upstream:
        for number in range(6):
            await upstream.publish(purchase(number))
        await upstream.record(purchase("last"))
        assert [stored["id"] for stored in await upstream.replay()] == [*(f"p-{n}" for n in range(6)), "p-last"]


async def test_an_intake_stops_where_the_log_has_changed(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase(1))
    import sqlite3

    with sqlite3.connect(session.data_dir / "index" / "intake.sqlite") as index:
        index.execute("UPDATE heads SET digest = 'other'")
    from app.runtime.roles import running

    async with running(session, ["intake"]) as (*_, service):
        upstream = Upstream(session, await session.upstream("test"))
        await upstream.publish(purchase(2))
        with pytest.raises(Exception, match="the log has changed"):
            await asyncio.wait_for(service.failed, 10)
    assert await session.log.last_position() == 1


async def test_two_intakes_at_once_record_nothing_twice(session: Session, tmp_path: Path) -> None:
    from consumers.intake.service import IntakeService

    async with upstream_of(session, "intake") as upstream:
        client = await session.connection("second")
        from ledger.store.log import Log

        log, rejected = await Log.open(client, "LEDGER"), await Log.open(client, "REJECTED")
        second = IntakeService(session.url, client, log, rejected, tmp_path / "second.sqlite")
        await second.start()
        facts = [purchase(n % 300) for n in range(900)]
        await asyncio.gather(*(upstream.publish(fact) for fact in facts))
        for number in range(300):
            assert (await upstream.receipt(f"p-{number}"))["status"] == "recorded"
        await wait_for_intake(session)
        await second.stop()
        ids = [stored["id"] for stored in await upstream.replay()]
        assert sorted(ids) == sorted({f"p-{n}" for n in range(300)})


async def test_the_inbox_is_trimmed_behind_the_intake(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.intake.inboxes._TRIM_SECONDS", 0.0)
    monkeypatch.setattr("consumers.intake.inboxes._LOOK_SECONDS", 0.05)
    async with upstream_of(session, "intake") as upstream:
        for number in range(20):
            await upstream.record(purchase(number))
        await upstream.record(purchase("last"))
        await wait_for_intake(session)
        await eventually(lambda: count_inbox_messages(session), lambda count: count <= 2)
        await upstream.record(purchase("after"))


async def test_a_flood_of_large_events_is_taken_in(upstream: Upstream) -> None:
    note = "x" * 40_000
    for number in range(500):
        fact = purchase(number)
        fact["data"]["note"] = note
        await upstream.publish(fact)
    await upstream.record(purchase("last"))
    assert await upstream.session.log.last_position() == 501


async def test_a_backlog_is_recorded_in_groups_so_that_decisions_come_between(session: Session) -> None:
    sender = await session.upstream("sender")  # no intake runs yet: the events wait, and are pulled at once
    bodies = [json.dumps(purchase(number)).encode() for number in range(1000)]
    await asyncio.gather(*(sender.request("resolution.inbox.crm", body, timeout=60) for body in bodies))
    async with upstream_of(session, "intake") as upstream:
        await wait_for_intake(session)
        stamps = Counter([stored["recordedtime"] for stored in await upstream.replay()])  # one for each append
    assert stamps.total() == 1000
    assert max(stamps.values()) <= 250


async def test_an_intake_whose_disk_is_full_leaves_the_work_to_a_standby(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone it goes on to try, and does not say that it works."""
    import sqlite3

    from app.runtime.roles import running
    from consumers.intake.service import IntakeService
    from ledger.store import lease
    from ledger.store.log import Log

    monkeypatch.setattr(lease, "_FAILING_SECONDS", 0.4)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def works(one: IntakeService) -> bool:
        return bool(one.status().is_working)

    async with running(session, ["intake"]) as (*_, first):
        assert isinstance(first, IntakeService)
        monkeypatch.setattr(first._index, "_write", full)
        upstream = Upstream(session, await session.upstream("test"))
        await upstream.publish(purchase(1))
        await eventually(lambda: works(first), lambda found: not found)
        client = await session.connection("second")
        log, rejected = await Log.open(client, "LEDGER"), await Log.open(client, "REJECTED")
        second = IntakeService(session.url, client, log, rejected, tmp_path / "second.sqlite")
        await second.start()
        await eventually(lambda: works(second))
        assert not first._lease.is_ours
        # Either process answers; the one with the full disk answers `unavailable`, and the sender asks again.
        await eventually(lambda: upstream.receipt("p-1"), lambda answer: answer.get("status") == "recorded")
        await second.stop()
