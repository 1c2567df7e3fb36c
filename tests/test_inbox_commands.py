"""`admin inbox list` and `admin inbox reject`: an operator takes a message out that keeps the intake from others."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Up, Upstream, drained, event, gbp, upstream_of

from app.inbox_messages import NotWaitingError, reject_message, waiting_messages
from app.session import Session
from consumers.intake import Intake
from ledger.errors import UnavailableError

Command = Callable[..., subprocess.CompletedProcess[str]]
HEADERS = b"NATS/1.0\r\nx-mine: \xff\r\nNats-Subject: resolution.inbox.other\r\n\r\n"


def purchase(number: object, source: str = "crm") -> dict[str, Any]:
    return event(f"p-{number}", "purchase.completed", source, order_id=f"O-{number}", total=gbp("5.00"))


def document(done: subprocess.CompletedProcess[str], status: int = 0) -> Any:
    assert done.returncode == status, done.stderr + done.stdout
    return json.loads(done.stdout)


async def test_a_waiting_message_is_listed_and_rejected_with_its_own_bytes(tmp_path: Path, command: Command) -> None:
    from config.settings import load_settings

    async with Session(load_settings({"data_dir": str(tmp_path / "data")}, {})) as session:
        session.client.send(b"PUB resolution.inbox.\xff\xfe 5\r\n\xff\x00ab\n\r\n")
        session.client.send(b"HPUB resolution.inbox.crm %d %d\r\n%b{}\r\n" % (len(HEADERS), len(HEADERS) + 2, HEADERS))
        await session.client.flush()
    listed = document(command("admin", "inbox", "list", "--json"))
    assert [(one["stream"], one["sequence"], one["bytes"]) for one in listed["items"]] == [
        ("INBOX", 1, 5),
        ("INBOX", 2, 2),
    ]
    assert "Waiting" in command("admin", "inbox", "list").stdout
    assert len(document(command("admin", "inbox", "list", "--limit", "1", "--json"))["items"]) == 1
    for sequence in (1, 2):
        done = document(command("admin", "inbox", "reject", "INBOX", str(sequence), "--reason", "poison", "--json"))
        assert done == {"stream": "INBOX", "sequence": sequence, "recorded": {}}
    assert document(command("admin", "inbox", "list", "--json"))["items"] == []
    again = document(command("admin", "inbox", "reject", "INBOX", "1", "--json"), 1)
    assert again["error"]["code"] == "not_waiting"
    assert command("admin", "inbox", "reject", "LEDGER", "1").returncode == 2
    kept = document(command("admin", "rejected", "list", "--json"))["items"]
    assert [(one["code"], one["message"]) for one in kept] == [("operator", "poison")] * 2
    async with Session(load_settings({"data_dir": str(tmp_path / "data")}, {})) as session:
        from app.commands.administering import _entries

        first, second = [entry["raw"] for entry in await _entries(session)]
        assert first.original_subject == b"resolution.inbox.\xff\xfe"
        assert second.original_subject == b"resolution.inbox.crm"
        assert json.loads(json.dumps(first.data)) == "/wBhYgo="


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
        patched.setattr("consumers.intake_service.Intake", _Stuck)
        async with upstream_of(session, "intake") as upstream:
            await upstream.record(purchase(1, "till"))  # other sources go on
            operator = await session.connection("operator", user="operator")
            assert poisoned in [one.message.place.sequence async for one in waiting_messages(session, 10)]
            assert await reject_message(session, operator, "INBOX", poisoned, "poison") == {}
    async with upstream_of(session, "intake") as upstream:
        await upstream.record(purchase(2))
        await drained(session)
        receipt = await upstream.receipt("p-poison")
        assert (receipt["status"], receipt["error"]["code"]) == ("rejected", "operator")


async def test_what_the_intake_has_dealt_with_is_not_rejected(session: Session) -> None:
    async with upstream_of(session, "intake") as upstream:
        sequence = await upstream.publish(purchase(1))
        await upstream.receipt("p-1")
        await drained(session)
        operator = await session.connection("operator", user="operator")
        with pytest.raises(NotWaitingError, match=r"has dealt with|has no message|has recorded"):
            await reject_message(session, operator, "INBOX", sequence, "too late")


def test_beside_up_nothing_waits(up: Up, command: Command) -> None:
    up.ready()
    assert document(command("admin", "inbox", "list", "--json"))["items"] == []
    assert document(command("admin", "inbox", "reject", "INBOX", "77", "--json"), 1)["error"]["code"] == "not_waiting"
