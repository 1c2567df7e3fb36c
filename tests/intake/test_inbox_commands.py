"""`admin inbox list` and `admin inbox reject`: an operator takes a message out that keeps the intake from others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from app.runtime.inbox_messages import NotWaitingError, reject_message, waiting_messages
from app.runtime.session import Session
from consumers.intake.recorder import Intake
from ledger.errors import UnavailableError
from tests.support.builders import purchase
from tests.support.forked_cli import CommandLine, json_of
from tests.support.up_process import UpProcess
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import wait_for_intake

HEADERS = b"NATS/1.0\r\nx-mine: \xff\r\nNats-Subject: resolution.inbox.other\r\n\r\n"


async def test_a_waiting_message_is_listed_and_rejected_with_its_own_bytes(
    tmp_path: Path, command: CommandLine
) -> None:
    from config.settings import load_settings

    async with Session(load_settings({"data_dir": str(tmp_path / "data")}, {})) as session:
        session.client.send(b"PUB resolution.inbox.\xff\xfe 5\r\n\xff\x00ab\n\r\n")
        session.client.send(b"HPUB resolution.inbox.crm %d %d\r\n%b{}\r\n" % (len(HEADERS), len(HEADERS) + 2, HEADERS))
        await session.client.flush()
    listed = json_of(command("admin", "inbox", "list", "--json"))
    assert [(one["stream"], one["sequence"], one["bytes"]) for one in listed["items"]] == [
        ("INBOX", 1, 5),
        ("INBOX", 2, 2),
    ]
    assert [one["subject"] for one in listed["items"]] == [r"resolution.inbox.\xff\xfe", "resolution.inbox.crm"]
    assert "Waiting" in command("admin", "inbox", "list").stdout
    assert len(json_of(command("admin", "inbox", "list", "--limit", "1", "--json"))["items"]) == 1
    for sequence in (1, 2):
        done = json_of(command("admin", "inbox", "reject", "INBOX", str(sequence), "--reason", "poison", "--json"))
        assert done == {"stream": "INBOX", "sequence": sequence, "kept": True, "recorded": {}}
    assert json_of(command("admin", "inbox", "list", "--json"))["items"] == []
    again = json_of(command("admin", "inbox", "reject", "INBOX", "1", "--json"), 1)
    assert again["error"]["code"] == "not_waiting"
    assert command("admin", "inbox", "reject", "LEDGER", "1").returncode == 2
    kept = json_of(command("admin", "rejected", "list", "--json"))["items"]
    assert [(one["code"], one["message"]) for one in kept] == [("operator", "poison")] * 2
    async with Session(load_settings({"data_dir": str(tmp_path / "data")}, {})) as session:
        from app.cli.commands.admin_records import _entries

        first, second = (await _entries(session)).values()
        assert first.original_subject == b"resolution.inbox.\xff\xfe"
        assert second.original_subject == b"resolution.inbox.crm"
        assert json.loads(json.dumps(first.data)) == "/wBhYgo="


async def test_a_message_rejected_by_an_operator_can_be_retried(tmp_path: Path, command: CommandLine) -> None:
    from config.settings import load_settings

    async with Session(load_settings({"data_dir": str(tmp_path / "data")}, {})) as session:
        upstream = Upstream(session, await session.upstream("test"))
        batch = json.dumps([purchase(1), purchase(2)]).encode()
        await upstream.publish(batch, headers={"Content-Type": "application/cloudevents-batch+json"})
        assert command("admin", "inbox", "reject", "INBOX", "99999999999999999999").returncode == 2
        assert json_of(command("admin", "inbox", "reject", "INBOX", "1", "--json"))["kept"]
        assert command("admin", "rejected", "retry", "1").returncode == 0
        async with upstream_of(session, "intake") as upstream:
            await upstream.receipt("p-2")
            assert [one["id"] for one in await upstream.replay()] == ["p-1", "p-2"]


class _Stuck(Intake):
    """An intake that one message stops for as long as it is there."""

    async def _take(self, events: Any) -> None:
        if any(b"p-poison" in one.data for one in events):
            raise UnavailableError("never again")
        await super()._take(events)


async def test_a_message_that_stops_its_source_is_taken_out_beside_a_running_intake(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Upstream(session, await session.upstream("test"))
    poisoned = await publisher.publish(purchase("poison"))
    with monkeypatch.context() as patched:
        patched.setattr("consumers.intake.service.Intake", _Stuck)
        async with upstream_of(session, "intake") as upstream:
            await upstream.record(purchase(1, "till"))  # other sources go on
            operator = await session.connection("operator", user="operator")
            assert poisoned in [one.message.place.sequence async for one in waiting_messages(session, 10)]
            await upstream.publish(purchase(2))  # of the same source: it waits behind
            assert await reject_message(session, operator, "INBOX", poisoned, "poison") == (True, {})
            assert (await upstream.receipt("p-2"))["status"] == "recorded"  # by the very intake that was stuck
            await wait_for_intake(session)
    async with upstream_of(session, "intake") as upstream:
        receipt = await upstream.receipt("p-poison")
        assert (receipt["status"], receipt["error"]["code"]) == ("rejected", "operator")


async def test_a_waiting_message_with_the_id_of_a_recorded_event_can_be_taken_out(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase(1))
        await wait_for_intake(session)
    publisher = Upstream(session, await session.upstream("test"))
    again = purchase(1) | {"time": "2026-01-06T10:00:00Z"}
    place = json.loads((await publisher.client.request("resolution.inbox.crm", json.dumps(again).encode())).data)
    operator = await session.connection("operator", user="operator")
    assert await reject_message(session, operator, place["stream"], place["seq"], "twice") == (True, {})


async def test_a_message_recorded_by_a_dead_intake_is_not_rejected(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded and not acknowledged: the message is only taken out."""
    publisher = Upstream(session, await session.upstream("test"))
    sequence = await publisher.publish(purchase(1))
    with monkeypatch.context() as patched:
        patched.setattr("consumers.intake.worker.IntakeWorker._acknowledge", lambda *_: None)
        async with upstream_of(session, "intake") as upstream:
            position = (await upstream.receipt("p-1"))["position"]
    operator = await session.connection("operator", user="operator")
    assert await reject_message(session, operator, "INBOX", sequence, "x") == (False, {"p-1": position})
    assert not await session.rejected.last_position()
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase(2))
        assert [one["id"] for one in await upstream.replay()] == ["p-1", "p-2"]


async def test_an_intake_that_records_a_message_while_it_is_rejected_is_named(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go = asyncio.Event(), asyncio.Event()

    class Slow(Intake):
        async def _append(self, facts: Any) -> None:
            held.set()
            await go.wait()
            await super()._append(facts)

    monkeypatch.setattr("consumers.intake.service.Intake", Slow)
    async with upstream_of(session, "intake") as upstream:
        sequence = await upstream.publish(purchase(1))
        await asyncio.wait_for(held.wait(), 10)
        operator = await session.connection("operator", user="operator")
        rejecting = asyncio.create_task(reject_message(session, operator, "INBOX", sequence, "x"))
        for _ in range(500):
            if await session.rejected.last_position():
                break
            await asyncio.sleep(0.01)
        go.set()
        assert await rejecting == (True, {"p-1": 1})


async def test_a_rejection_that_was_cut_short_is_finished_by_the_next(session: Session) -> None:
    """Stored in REJECTED, and then the process died."""
    publisher = Upstream(session, await session.upstream("test"))
    sequence = await publisher.publish(purchase(1))
    with pytest.raises(UnavailableError):
        await reject_message(session, await _dead(session), "INBOX", sequence, "first")
    operator = await session.connection("operator", user="operator")
    assert (await reject_message(session, operator, "INBOX", sequence, "second")).kept
    assert await session.rejected.last_position() == 1
    with pytest.raises(NotWaitingError, match="has no message"):
        await reject_message(session, operator, "INBOX", sequence, "third")


async def _dead(session: Session) -> Any:
    client = await session.connection("dead", user="operator")
    await client.close()
    return client


async def test_a_message_that_the_intake_has_processed_is_not_rejected(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        sequence = await upstream.publish(purchase(1))
        await upstream.receipt("p-1")
        await wait_for_intake(session)
        operator = await session.connection("operator", user="operator")
        with pytest.raises(NotWaitingError, match=r"has handled|has no message|has recorded"):
            await reject_message(session, operator, "INBOX", sequence, "too late")


def test_beside_up_nothing_waits(up: UpProcess, command: CommandLine) -> None:
    up.wait_until_up()
    assert json_of(command("admin", "inbox", "list", "--json"))["items"] == []
    assert json_of(command("admin", "inbox", "reject", "INBOX", "77", "--json"), 1)["error"]["code"] == "not_waiting"
