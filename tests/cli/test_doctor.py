"""`admin doctor` names what an operator has to mend: lost keys, managers in a ring."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from consumers.privacy.field_encryption import encrypted_texts
from domain.managers import manager_rings
from ledger.encryption.keyring import Keyring, owner_token
from ledger.store.streams import js_api
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import set_up_organisation, upstream_of
from tests.support.waiting import wait_for_intake


def feedback(identifier: str, customer: str, comment: str = "fine") -> Document:
    return event(
        identifier,
        "feedback.received",
        customer_id=customer,
        instrument="csat",
        score=5,
        best=5,
        worst=1,
        comment=comment,
    )


def finding(command: CommandLine, name: str) -> Document:
    done = command("admin", "doctor", "--json", "--at-rest")
    items = {item["check"]: item for item in json.loads(done.stdout)["items"]}
    assert done.returncode == (0 if all(item["ok"] for item in items.values()) else 1), done.stdout
    found: Document = items[name]
    return found


async def test_a_lost_bucket_of_keys_is_a_finding_and_not_forgetting(tmp_path: Path, command: CommandLine) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, upstream_of(session, "intake") as upstream:
        await upstream.record(feedback("f-1", "C-1"))
    assert finding(command, "keys")["ok"]
    async with Session(settings) as session:
        operator = await session.connection("operator", user="operator")
        assert "error" not in await js_api(operator, f"STREAM.DELETE.{topology.KEYS}")
    lost = finding(command, "keys")
    assert not lost["ok"]
    assert "1 keys of 1 checked events" in lost["says"]
    async with Session(settings) as session, upstream_of(session, "intake") as upstream:
        await upstream.record(feedback("f-2", "C-2"))  # new events go on
        await upstream.publish(feedback("f-1", "C-1", "awful"))  # another event under the id is no duplicate
        for _ in range(100):
            entries = [one async for batch in session.rejected.subject_batches("rejected.>") for one in batch]
            if entries:
                break
        assert json.loads(entries[0].data)["code"] == "id_reused"


async def test_lost_keys_come_back_from_a_backup_though_the_customer_came_back_first(
    tmp_path: Path, command: CommandLine
) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, upstream_of(session, "intake") as upstream:
        await upstream.record(feedback("f-1", "C-1"))
        await upstream.record(feedback("f-0", "C-0"))
        await wait_for_intake(session)  # an event that is delivered again is encrypted again, with a new key
    assert command("admin", "keys", "backup", str(tmp_path / "backup")).returncode == 0
    async with Session(settings) as session:
        operator = await session.connection("operator", user="operator")
        assert "error" not in await js_api(operator, f"STREAM.DELETE.{topology.KEYS}")
    async with Session(settings) as session, upstream_of(session, "intake") as upstream:
        await upstream.record(feedback("f-2", "C-1", "again"))  # a new key of the same customer
    assert not finding(command, "keys")["ok"]
    assert command("admin", "keys", "restore", str(tmp_path / "backup")).returncode == 0
    assert finding(command, "keys")["ok"]
    async with Session(settings) as session:
        keys = await Keyring.open(session.client)
        read = [
            json.loads(await keys.decrypt_fields(one.data))["data"]["comment"]
            for one in [await session.log.at(n) for n in (1, 2, 4)]
            if one is not None
        ]
        assert read == ["fine", "fine", "again"]
        assert (await keys.ensure(["customer:C-0"]))["customer:C-0"].id == f"{owner_token('customer:C-0')}.1"
    assert command("admin", "forget", "C-1", "--by", "DPO").returncode == 0
    async with Session(settings) as session:
        keys, event = await Keyring.open(session.client), await session.log.at(1)
        assert event is not None
        assert b"fine" not in await keys.decrypt_fields(event.data)


async def test_a_key_of_the_same_id_that_does_not_fit_is_a_finding(tmp_path: Path, command: CommandLine) -> None:
    """An earlier version made such a key when the bucket of keys was lost."""
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, upstream_of(session, "intake") as upstream:
        await upstream.record(feedback("f-1", "C-1"))
        name = f"$KV.ledger-keys.k.{owner_token('customer:C-1')}.1"
        other = {"owner": "customer:C-1", "made": "2026-01-01T00:00:00Z", "key": base64.b64encode(b"k" * 32).decode()}
        await session.client.request(name, json.dumps(other).encode())
    assert not finding(command, "keys")["ok"]


LOOKS_SEALED = f"sealed:1:{'0' * 32}.1:AAAA"


@pytest.mark.parametrize("field", ["id", "customer_id", "interaction_id", "comment", "unknown", "subject"])
async def test_a_text_that_only_looks_sealed_is_no_finding(tmp_path: Path, command: CommandLine, field: str) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, upstream_of(session, "intake") as upstream:
        fact = feedback("f-1", "C-1")
        (fact if field in ("id", "subject") else fact["data"])[field] = LOOKS_SEALED
        await upstream.record(fact)
    assert finding(command, "keys")["ok"]


async def test_a_forgotten_customers_key_is_no_finding(tmp_path: Path, command: CommandLine) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, upstream_of(session, "intake") as upstream:
        await upstream.record(feedback("f-1", "C-1"))
    assert command("admin", "forget", "C-1", "--by", "DPO").returncode == 0
    assert finding(command, "keys")["ok"]


@pytest.mark.parametrize("ring", [("A-1",), ("A-1", "M-1"), ("A-1", "M-1", "X-1")])
async def test_managers_in_a_ring_are_a_finding_and_stop_nothing(
    tmp_path: Path, command: CommandLine, ring: tuple[str, ...]
) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, upstream_of(session) as upstream:
        await set_up_organisation(upstream)
        for number, name in enumerate(ring):
            above = ring[(number + 1) % len(ring)]
            role = {"A": "agent", "M": "manager", "X": "director"}[name[0]]
            fact = event(
                f"ring-{name}",
                "employee.changed",
                time="2026-02-01T10:00:00Z",
                employee_id=name,
                role=role,
                team_ids=["phone"],
                manager_id=above,
            )
            await upstream.record(fact)
        asked = await upstream.action(amount="49.00", escalate=True, customer_id="C-1", interaction_id="I-1")
        assert asked["outcome"] in ("taken", "escalate")
        asked = await upstream.action(amount="60.00", escalate=True, customer_id="C-2", interaction_id="I-2")
        assert asked["outcome"] == "escalate", asked
    for report in ("gap", "quality", "recognition", "escalations", "actions", "balances"):
        done = command("report", report, "--json")
        assert done.returncode == 0, done.stderr
    for rule in ("R6", "R7", "R12"):
        assert command("audit", "flags", "--backtest", rule, "--json").returncode in (0, 1)
    assert command("audit", "trail", "--agent", "A-1", "--json").returncode == 0
    found = finding(command, "managers")
    assert not found["ok"]
    assert " -> ".join((*sorted(ring), min(ring))) in found["says"]


def test_the_policy_of_these_tests_has_approvers() -> None:
    assert FULL_POLICY["roles"]["manager"]["approves"]


def rings_by_walking(manager_of: Mapping[str, str | None]) -> set[frozenset[str]]:
    """Return the persons found above themselves: a second computation of rings."""
    found = set()
    for start in manager_of:
        above, name = [], manager_of.get(start)
        while name is not None and name not in above:
            above.append(name)
            name = manager_of.get(name)
        if start in above:
            found.add(frozenset(above[: above.index(start) + 1]))
    return found


@given(st.dictionaries(st.sampled_from("ABCDEFGH"), st.none() | st.sampled_from("ABCDEFGH")))
def test_rings_are_those_found_by_walking(manager_of: dict[str, str | None]) -> None:
    rings = manager_rings(manager_of)
    assert {frozenset(ring) for ring in rings} == rings_by_walking(manager_of)
    for ring in rings:
        assert ring[0] == min(ring)
        assert all(manager_of[name] == above for name, above in zip(ring, (*ring[1:], ring[0]), strict=True))


@pytest.mark.parametrize(
    "stored", [b"", b"\xff", b"{}", b"[]", b'{"data": 1, "type": "x"}', b'{"data": {}, "type": 1}', b"[" * 60_000]
)
def test_a_damaged_event_has_no_sealed_texts(stored: bytes) -> None:
    assert encrypted_texts(stored) == []
