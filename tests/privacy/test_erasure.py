"""Erasure: personal fields are encrypted from the start, and unreadable everywhere once their key is destroyed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.runtime.archive import archive_to_the_end, verify_archive
from app.runtime.seal import seal_to_the_end, verification
from app.runtime.session import Session
from consumers.privacy.erasure import HeldError, forget, forget_again, forget_employee, hold, release
from consumers.seal.archive_service import archive_of
from ledger.encryption.keyring import STREAM, Key, Keyring
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api
from ledger.transparency.sealer import seal_folder
from projections.engine.projector import rebuild
from projections.registry import MODELS
from tests.support.builders import event, gbp
from tests.support.clocks import unchecked_log
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.http_api import dashboard_of, read_current
from tests.support.upstreams import Upstream, upstream_of
from tests.support.view_answers import all_views
from tests.support.waiting import eventually

SECRET = "grandmother Xanthippe was ill"


async def told(upstream: Upstream) -> None:
    """Record personal data of C-9 in facts, unknown fields and notes."""
    await upstream.set_up_basics()
    await upstream.record(event("o-1", "interaction.opened", interaction_id="I-0", story=SECRET))
    await upstream.record(event("o-2", "interaction.opened", interaction_id="I-0", customer_id="C-9", channel="phone"))
    await upstream.record(
        event(
            "f-1",
            "feedback.received",
            customer_id="C-9",
            instrument="csat",
            score=1,
            best=5,
            worst=1,
            comment=SECRET,
            unknown={"said": [SECRET]},
        )
    )
    await upstream.record(
        event(
            "c-1",
            "fact.corrected",
            source_of="crm",
            id_of="f-1",
            reason="typed wrongly",
            data={"customer_id": "C-9", "instrument": "csat", "score": 2, "best": 5, "worst": 1, "comment": SECRET},
        )
    )
    taken = await upstream.action("r-1", customer_id="C-9", note=SECRET)
    assert taken["outcome"] == "taken"
    escalated = await upstream.action("r-2", "499.00", customer_id="C-9", note=SECRET, escalate=True)
    assert escalated["outcome"] in {"escalate", "refused"}
    await upstream.publish(event("bad", "feedback.received", customer_id="C-9", comment=SECRET))
    assert (await upstream.receipt("bad"))["status"] == "rejected"


async def forgotten(session: Session, *customers: str) -> Any:
    keys = await Keyring.open(session.client)
    return await forget(session.log, session.rejected, keys, customers or ["C-9"], ["I-0"], "M-1", "asked for it")


async def test_personal_fields_are_never_stored_in_the_clear(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await told(upstream)
        replayed = await upstream.replay()
    assert SECRET in json.dumps(replayed)  # shown as long as the key is there
    raw = [one.data async for batch in session.log.subject_batches(">") for one in batch]
    raw += [one.data async for batch in session.rejected.subject_batches(">") for one in batch]
    assert SECRET.encode() not in b"".join(raw)
    await all_views(session)
    await archive_to_the_end(session, lambda _done, _of: None)
    stored = {path.name: path for path in session.data_dir.rglob("*") if path.is_file() and "INBOX" not in str(path)}
    assert [name for name, path in stored.items() if SECRET.encode() in path.read_bytes()] == []


def employed(identifier: str, kind: str, name: object) -> Document:
    """Return the fact that A-7 joined or changed, with a name."""
    fact = event(identifier, kind, employee_id="A-7", role="agent", team_ids=["t-1"])
    return fact | {"data": fact["data"] | {"name": name}}


async def test_an_employees_name_is_encrypted_and_unreadable_without_the_key(session: Session) -> None:
    async with upstream_of(session) as upstream:
        for kind in ("employee.joined", "employee.changed"):
            await upstream.record(employed(kind, kind, SECRET))
        assert [one["data"]["name"] for one in await upstream.replay()] == [SECRET, SECRET]
        raw = [one.data async for batch in session.log.subject_batches(">") for one in batch]
        assert SECRET.encode() not in b"".join(raw)
        await (await Keyring.open(session.client)).destroy("employee:A-7")
        assert SECRET not in json.dumps(await upstream.replay())


async def test_the_api_names_an_employee_until_they_are_forgotten(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.record(employed("e-1", "employee.joined", "Kim Lee"))
        changed = event("e-2", "employee.changed", employee_id="A-7", role="agent", team_ids=["t-2"])
        await upstream.record(changed)  # without a name, it stays
        below = event("e-3", "employee.joined", employee_id="A-8", role="agent", team_ids=[], manager_id="A-7")
        await upstream.record(below)
        async with dashboard_of(session) as client:

            async def names() -> list[tuple[str | None, str | None]]:
                items = (await read_current(client, "employees"))["items"]
                return [(one["name"], one["manager_name"]) for one in items]

            assert await names() == [("Kim Lee", None), (None, "Kim Lee")]
            keys = await Keyring.open(session.client)
            kept = await keys.backup()
            done = await forget_employee(session.log, session.rejected, keys, "A-7", "M-1", "asked for it")
            assert (done.employees, done.keys) == (["A-7"], 1)
            assert await eventually(names, lambda found: found[0][0] is None) == [(None, None), (None, None)]
        assert (await upstream.replay())[-1]["type"] == "resolution.employee.forgotten.v1"
        await js_api(session.client, f"STREAM.PURGE.{STREAM}")
        await keys.restore(kept)  # a restored backup brings no name back
        assert await forget_again(await Keyring.open(session.client), session.log) == 1


def test_the_command_forgets_an_employee(command: CommandLine) -> None:
    fact = employed("e-1", "employee.joined", "Kim Lee")
    assert command("publish", "-", stdin=json.dumps(fact)).returncode == 0
    assert "Kim Lee" in command("audit", "replay").stdout
    done = command("admin", "forget", "A-7", "--employee", "--by", "M-1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["employees"], document["customers"], document["keys"]) == (["A-7"], [], 1)
    assert "Kim Lee" not in command("audit", "replay").stdout


async def test_a_name_that_is_no_text_is_rejected(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.publish(employed("e-1", "employee.joined", {"first": SECRET}))
        receipt = await upstream.receipt("e-1")
        assert receipt["status"] == "rejected"
        assert "data.name" in json.dumps(receipt)


async def test_a_note_is_encrypted_however_its_field_is_escaped(session: Session) -> None:
    """JSON may write any letter as an escape."""
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        asked = {
            "request_id": "r-1",
            "agent_id": "A-1",
            "kind": "refund",
            "reason": "late",
            "amount": gbp("5.00"),
            "customer_id": "C-9",
            "note": SECRET,
        }
        more: dict[str, dict[str, str]] = {"action": {}, "escalation": {"operation": "request"}}
        for operation, own in more.items():
            body = json.dumps(asked | own | {"request_id": operation}).replace('"note"', r'"\u006eote"')
            reply = await upstream.client.request(f"resolution.decide.crm.{operation}", body.encode(), timeout=10)
            assert json.loads(reply.data)["outcome"] in {"taken", "refused"}, reply.data
    raw = [one.data async for batch in session.log.subject_batches(">") for one in batch]
    assert any(b'"note":"' in one for one in raw)
    assert SECRET.encode() not in b"".join(raw)


async def test_erased_fields_are_unreadable_and_every_proof_holds(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await told(upstream)
        await archive_to_the_end(session, lambda _done, _of: None)
        before = await all_views(session)
        done = await forgotten(session)
        assert (done.keys >= 2, done.rejected) == (True, 1)
        assert "Xanthippe" not in json.dumps(await upstream.replay())
        assert (await upstream.replay())[-1]["type"] == "resolution.customer.forgotten.v1"
    await seal_to_the_end(session)
    result = await verification(session, (), (), progressed=lambda _done, _of: None)
    assert result["findings"] == []
    folder, seal = archive_of(session.data_dir).folder, seal_folder(session.data_dir)
    assert await verify_archive(folder, seal, (), lambda _done, _of: None, session.settings) == []
    after = await all_views(session, done.position - 1)
    assert after == before
    live = await all_views(session)
    views = session.views
    for name, make in MODELS.items():
        await rebuild(make(), views, await session.connection(name), session.log)
    assert await all_views(session) == live


async def test_a_repeated_fact_is_a_duplicate_before_and_after_an_erasure(session: Session) -> None:
    fact = event(
        "f-1", "feedback.received", customer_id="C-9", instrument="csat", score=1, best=5, worst=1, comment=SECRET
    )
    async with upstream_of(session) as upstream:
        first = await upstream.record(fact)
        assert await upstream.record(fact) == first
        await forgotten(session)
        await upstream.publish(fact)
        assert (await upstream.receipt("f-1")) == {"id": "f-1", "status": "recorded", "position": first}
        later = await upstream.record(
            event(
                "f-2",
                "feedback.received",
                customer_id="C-9",
                instrument="csat",
                score=5,
                best=5,
                worst=1,
                comment="back again",
            )
        )
        assert (await upstream.replay())[later - 1]["data"]["comment"] == "back again"  # a new key, for what is new
        rejected = [one async for batch in session.rejected.subject_batches(">") for one in batch]
        assert rejected == []


async def test_a_rebuilt_index_knows_encrypted_facts(session: Session) -> None:
    fact = event(
        "f-1", "feedback.received", customer_id="C-9", instrument="csat", score=1, best=5, worst=1, comment=SECRET
    )
    async with upstream_of(session) as upstream:
        first = await upstream.record(fact)
    for path in (session.data_dir / "index").glob("intake*"):
        path.unlink()
    async with upstream_of(session) as upstream:
        assert await upstream.record(fact) == first
        assert await session.log.last_position() == first


async def test_a_request_with_a_note_has_one_answer(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        first = await upstream.action("r-1", note=SECRET)
        assert await upstream.action("r-1", note=SECRET) == first
        other = await upstream.action("r-1", note="another")
        assert other["error"]["code"] == "request_id_reused"


async def test_a_legal_hold_prevents_erasure(session: Session) -> None:
    keys = await Keyring.open(session.client)
    await hold(keys, "C-9", "a claim", "counsel")
    with pytest.raises(HeldError, match="a claim"):
        await forgotten(session, "C-9")
    assert await session.log.last_position() == 0
    await release(keys, "C-9")
    await forgotten(session, "C-9")


async def test_keys_put_back_from_a_backup_are_destroyed_again(session: Session) -> None:
    keys = await Keyring.open(session.client)
    for owner in ("customer:C-9", "interaction:I-0", "customer:C-1"):
        await keys.ensure([owner])
    kept = await keys.backup()
    await forgotten(session)
    assert await keys.restore(kept) == 0  # tombstones stand
    await js_api(session.client, f"STREAM.PURGE.{STREAM}")  # the bucket is lost, and comes back
    assert await keys.restore(kept) == 3
    assert await forget_again(await Keyring.open(session.client), session.log) == 2
    fresh = await Keyring.open(session.client)
    left = [name for name, one in (await fresh.backup()).items() if isinstance(one, dict) and one.get("key")]
    assert len(left) == 1


async def test_keys_made_since_stay_though_a_clock_ahead_had_recorded_before(session: Session) -> None:
    wrong = await unchecked_log(session.client, datetime.now(UTC) + timedelta(days=40))
    await wrong.append([Draft("ledger.fact.crm", b'{"source":"crm","id":"x","type":"x","time":"x","data":{}}')])
    log = await Log.open(session.client, "LEDGER")  # its recorded times never decrease
    keys = await Keyring.open(session.client)
    await keys.ensure(["customer:C-9"])
    await forget(log, session.rejected, keys, ["C-9"], [], "DPO", None)
    await keys.ensure(["customer:C-9"])  # the customer comes back
    assert await forget_again(await Keyring.open(session.client), log) == 0


def test_a_sealed_text_is_the_same_for_the_same_event_alone() -> None:
    key = Key("0" * 32 + ".1", b"k" * 32)
    assert key.encrypt(b'"x"', "crm\0e-1\0comment") == key.encrypt(b'"x"', "crm\0e-1\0comment")
    assert key.encrypt(b'"x"', "crm\0e-1\0comment") != key.encrypt(b'"x"', "crm\0e-2\0comment")


def test_commands_forget_hold_and_keys(command: CommandLine, tmp_path: Path) -> None:
    facts = [
        event("l-1", "customer.linked", a="C-9", b="C-8", relation="same_person"),
        event(
            "f-1", "feedback.received", customer_id="C-8", instrument="csat", score=1, best=5, worst=1, comment=SECRET
        ),
    ]
    assert command("publish", "-", stdin="\n".join(map(json.dumps, facts))).returncode == 0
    assert SECRET in command("audit", "replay").stdout
    assert SECRET not in command("audit", "replay", "--as-stored").stdout
    backup = tmp_path / "keys.json"
    assert command("admin", "keys", "backup", str(backup)).returncode == 0
    assert backup.stat().st_mode & 0o777 == 0o600
    assert command("admin", "hold", "C-8", "--reason", "a claim", "--by", "counsel").returncode == 0
    held = command("admin", "forget", "C-9", "--by", "M-1")
    assert (held.returncode, "legal hold" in held.stderr) == (1, True)
    assert command("admin", "hold", "C-8", "--release").returncode == 0
    done = command("admin", "forget", "C-9", "--by", "M-1", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["customers"], document["keys"]) == (["C-8", "C-9"], 1)
    assert document["backups_until"]
    assert "Xanthippe" not in command("audit", "replay").stdout
    assert json.loads(command("admin", "keys", "restore", str(backup), "--json").stdout)["restored"] == 0


async def test_first_keys_of_a_sound_ledger_have_the_number_1(session: Session) -> None:
    await session.log.append([Draft("ledger.fact.crm", b'{"source":"crm","id":"x","type":"x","time":"x","data":{}}')])
    made = await (await Keyring.open(session.client)).ensure(["customer:C-1", "customer:C-2"])
    assert {key.id.rpartition(".")[2] for key in made.values()} == {"1"}
