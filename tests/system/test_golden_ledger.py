"""A ledger that an earlier version made: every later version opens it, rebuilds it, verifies it, and goes on from it."""

import hashlib
import json
import shutil
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from app.runtime.session import Session
from config import topology
from config.settings import load_settings
from domain.serialization import encode
from ledger.store.subject_tokens import token_of_source
from projections.engine.events import TYPES, read_event
from tests.support import forked_cli
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment
from tests.support.golden_ledger import LEFT_BEHIND, READINGS, golden_server, lasting
from tests.support.golden_story import money
from tests.support.independent_books import Book, Kept
from tests.support.up_process import UpProcess
from tests.support.upstreams import Upstream, upstream_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
NOW = "2025-03-10T12:00:00Z"
"""A little later than the last request of the story; in history mode the times of requests rule."""

Run = Callable[..., CompletedProcess[str]]


def unpack(folder: Path, *without: str) -> Path:
    """Unpack the golden ledger into a folder, without these parts."""
    with tarfile.open(GOLDEN / "ledger.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    for name in without:
        shutil.rmtree(folder / "ledger" / name)
    return folder / "ledger"


def runner(data_dir: Path) -> Run:
    """Run `resolution-ledger` on a data directory."""

    def run(*words: str) -> CompletedProcess[str]:
        return forked_cli.run([*words, "--data-dir", str(data_dir)], ROOT, clean_environment(), None, timeout=120)

    return run


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Return a runner of commands on the golden ledger, after a rebuild of its views by this version."""
    data_dir = unpack(tmp_path_factory.mktemp("golden"), "views")
    with golden_server(data_dir):
        run = runner(data_dir)
        run("admin", "projections", "rebuild")
        yield run


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Upstream]:
    """Run intake and decisions on the golden ledger in history mode, and yield an upstream."""
    settings = load_settings({"data_dir": str(unpack(tmp_path))}, {})
    async with Session(settings) as session, upstream_of(session, history=True) as upstream:
        upstream.source = "crm"
        yield upstream


def test_a_rebuild_from_nothing_succeeds(rebuilt: Run) -> None:
    status = json.loads(rebuilt("admin", "projections", "status", "--json").stdout)
    assert {(view["position"], view["stopped"]) for view in status["items"]} == {(EXPECTED["position"], None)}


@pytest.mark.parametrize("name", [name for name in READINGS if name != "rejected"])
def test_a_rebuilt_view_gives_the_recorded_answer(rebuilt: Run, name: str) -> None:
    found = json.loads(rebuilt(*READINGS[name], "--json").stdout)
    assert lasting(name, found) == lasting(name, EXPECTED["readings"][name])


def test_the_doctor_says_that_the_policy_keeps_its_earlier_meaning(rebuilt: Run) -> None:
    checks = json.loads(rebuilt("admin", "doctor", "--at-rest", "--json").stdout)["items"]
    (policy,) = [one for one in checks if one["check"] == "policy"]
    assert policy["ok"]
    assert "Publish it again" in policy["says"]


def test_rejected_events_are_listed_for_thirty_days(rebuilt: Run) -> None:
    listed = json.loads(rebuilt("admin", "rejected", "list", "--json").stdout)["items"]
    recorded = EXPECTED["readings"]["rejected"]["items"]
    young = datetime.now(UTC) - timedelta(days=topology.REJECTED_DAYS)
    assert all(one in recorded for one in listed)
    assert all(one in listed for one in recorded if datetime.fromisoformat(one["rejected"]) > young)


@pytest.mark.parametrize("options", [(), ("--as-stored",)], ids=["shown", "as stored"])
def test_a_replay_gives_the_same_bytes(rebuilt: Run, options: tuple[str, ...]) -> None:
    name = "replay_as_stored_sha256" if options else "replay_sha256"
    replay = rebuilt("audit", "replay", *options).stdout
    assert hashlib.sha256(replay.encode()).hexdigest() == EXPECTED[name]


def test_the_seal_verifies_against_the_kept_checkpoint_and_key(rebuilt: Run, tmp_path: Path) -> None:
    assert verified(rebuilt, tmp_path)["last_position"] == EXPECTED["position"]


def verified(run: Run, folder: Path) -> Document:
    """Verify against the checkpoint and the keys that were kept elsewhere."""
    (folder / "checkpoint").write_text(EXPECTED["checkpoint"])
    (folder / "keys").write_text(EXPECTED["keys"])
    brought = ("--checkpoint", str(folder / "checkpoint"), "--key", str(folder / "keys"))
    done = run("audit", "verify", *brought, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result: Document = json.loads(done.stdout)
    assert result["findings"] == []
    assert result["brought"] == [EXPECTED["position"]]
    return result


def test_erased_fields_stay_erased(rebuilt: Run) -> None:
    replay = rebuilt("audit", "replay").stdout
    assert "C-9" in replay
    assert "тайна" not in replay
    assert "has waited twice" not in replay
    assert "за закъснението" in replay  # that of another customer


async def receipt(upstream: Upstream, identifier: str, source: str) -> Document:
    """Wait for an event's receipt; the source is named, since `a.b` and `a_b` had one token."""
    subject = f"resolution.read.{token_of_source(source)}.receipt"

    async def read() -> Document:
        body = json.dumps({"id": identifier, "source": source}).encode()
        answer: Document = json.loads((await upstream.client.request(subject, body, timeout=10)).data)
        return answer

    return await eventually(read, lambda answer: answer["status"] in {"recorded", "rejected"})


def recorded_at(identifier: str, source: str) -> int:
    """Return the position of an event in the golden ledger."""
    named = {"id": identifier, "source": source}
    return next(int(one["answer"]["position"]) for one in EXPECTED["receipts"] if one["request"] == named)


async def record(upstream: Upstream, fact: Document) -> int:
    """Publish a fact; its position."""
    await upstream.publish(fact)
    answer = await receipt(upstream, fact["id"], fact["source"])
    assert answer["status"] == "recorded", answer
    return int(answer["position"])


async def test_each_stored_event_is_of_its_class_and_keeps_its_fields(tmp_path: Path) -> None:
    found = set()
    async with Session(load_settings({"data_dir": str(unpack(tmp_path))}, {})) as session:
        for position in range(1, EXPECTED["position"] + 1):
            stored = await session.log.at(position)
            assert stored is not None
            event_at, told = read_event(stored), json.loads(stored.data)
            assert type(event_at.body) is TYPES[told["type"]]
            back = json.loads(encode(event_at.body))
            for name in told["data"].keys() & set(TYPES[told["type"]].__struct_fields__):
                assert back.get(name, getattr(event_at.body, name)) == told["data"][name], (position, name)
            found.add(told["type"])
    assert len(found) == 56, "all types that version 0.1.0 stored, but for projection.skipped"


def test_up_opens_the_golden_ledger(tmp_path: Path) -> None:
    """The clock of today rules: the hold has run out, the escalation has gone up a level, and everything is in order."""
    up = UpProcess(unpack(tmp_path))
    run = runner(up.data_dir)
    try:
        up.wait_until_up()
        deadline = time.monotonic() + 60
        while asked_of(run) != [["X-1"]] or not json.loads(run("admin", "doctor", "--json").stdout)["ok"]:
            assert time.monotonic() < deadline, run("admin", "doctor").stdout
            time.sleep(0.2)
        held = next(one["answer"]["action_id"] for one in EXPECTED["answers"] if one["body"]["request_id"] == "r-hold")
        actions = json.loads(run("report", "actions", "--json").stdout)["items"]
        assert next(one["state"] for one in actions if one["action_id"] == held) == "voided"
    finally:
        assert up.stop() == 0
    verified(run, tmp_path)


def asked_of(run: Run) -> list[Any]:
    """Return the approvers of each waiting escalation."""
    items = json.loads(run("report", "escalations", "--waiting", "--json").stdout)["items"]
    return [one["asked_of"] for one in items]


async def test_receipts_are_those_of_the_first_day(opened: Upstream) -> None:
    for one in EXPECTED["receipts"]:
        assert await receipt(opened, one["request"]["id"], one["request"]["source"]) == one["answer"]


async def test_messages_left_in_inboxes_are_recorded_or_rejected(opened: Upstream) -> None:
    """Both sources had sent to the token `a_b`, which is that of `a_b` alone by now: the other's may be rejected."""
    assert [left.event["id"] for left in LEFT_BEHIND] == ["late-1", "late-1", "ev-3"]
    assert (await receipt(opened, "late-1", "a_b"))["position"] > EXPECTED["position"]
    assert (await receipt(opened, "ev-3", "a.b"))["position"] == recorded_at("ev-3", "a.b"), "a duplicate has no effect"
    stored = [(body["source"], body["id"]) for body in await opened.replay()]
    assert stored.count(("a.b", "ev-3")) == stored.count(("a_b", "late-1")) == 1
    if ("a.b", "late-1") not in stored:
        run = runner(opened.session.data_dir)
        rejected = json.loads(run("admin", "rejected", "list", "--json").stdout)["items"]
        kept = [run("admin", "rejected", "show", str(one["number"])).stdout for one in rejected]
        assert any('"late-1"' in text and '"a.b"' in text for text in kept), "with its original bytes"


async def test_a_request_that_was_answered_gets_its_first_answer(opened: Upstream) -> None:
    for one in EXPECTED["answers"]:
        reply = await opened.client.request(one["subject"], json.dumps(one["body"]).encode(), timeout=20)
        answer = json.loads(reply.data)
        if one["body"].get("customer_id") == "C-9":  # forgotten: the hash of the note can be made no more
            assert answer == one["answer"] or answer["error"]["code"] == "request_id_reused"
        else:
            assert answer == one["answer"], one["body"]


async def test_both_sources_of_one_old_subject_go_on(opened: Upstream) -> None:
    for source, order in (("a.b", "O-51"), ("a_b", "O-52")):
        new = event("ev-new", "purchase.completed", source, NOW, order_id=order, customer_id="C-1", total=money("9.00"))
        position = await record(opened, new)
        assert position > EXPECTED["position"]
        assert await record(opened, new) == position, "the same again has no effect"
    for source, told in (("a.b", A_B), ("a_b", A__B)):
        old = event("ev-1", "interaction.opened", source, "2025-03-03T08:00:00Z", **told)
        assert await record(opened, old) == recorded_at("ev-1", source), "an old one again has no effect"
    stored = [(body["source"], body["id"]) for body in await opened.replay() if body["id"] in {"ev-new", "ev-1"}]
    assert sorted(stored) == [("a.b", "ev-1"), ("a.b", "ev-new"), ("a_b", "ev-1"), ("a_b", "ev-new")]


A_B = {
    "customer_id": "C-1",
    "interaction_id": "I-1",
    "channel": "phone",
    "reason": "late parcel",
    "agent_id": "A-1",
    "team_id": "north",
    "line": 1,
    "order_id": "O-1",
    "severity": "high",
}
A__B = {"customer_id": "C-2", "interaction_id": "I-2", "channel": "e-mail"}


def minor(amount: dict[str, str]) -> int:
    return int(amount["amount"].replace(".", ""))


async def test_budgets_holds_and_escalations_go_on(opened: Upstream, tmp_path: Path) -> None:
    balances = EXPECTED["readings"]["balances"]["items"]
    before = next(one for one in balances if (one["holder"], one["period"]) == ("agent:A-1", "2025-03"))
    taken = await opened.ask(
        "action",
        request_id="new-1",
        agent_id="A-1",
        kind="refund",
        reason="late",
        time=NOW,
        amount=money("1.00"),
        customer_id="C-40",
    )
    assert taken["outcome"] == "taken", taken
    assert minor(taken["budget"]["remaining"]) == minor(before["remaining"]) - 100

    held = next(one["answer"] for one in EXPECTED["answers"] if one["body"]["request_id"] == "r-hold")
    settled = await opened.ask("hold", request_id="new-2", action_id=held["action_id"], operation="settle", time=NOW)
    assert settled["outcome"] == "done", settled
    assert minor(settled["budget"]["reserved"]) == minor(before["reserved"]) - 1100

    waiting = EXPECTED["readings"]["waiting"]["items"][0]
    approved = await opened.ask(
        "escalation",
        request_id="new-3",
        operation="approve",
        decided_by="M-1",
        time=NOW,
        escalation_id=waiting["escalation_id"],
    )
    assert (approved["outcome"], approved["status"], approved["amount"]) == ("done", "approved", money("88.00"))

    right = {"order_id": "O-3", "customer_id": "C-3", "total": money("46.00")}
    await record(
        opened,
        event(
            "fix-3",
            "fact.corrected",
            "a.b",
            NOW,
            source_of="a.b",
            id_of="ev-3",
            data=right,
            reason="digits changed places",
        ),
    )
    run = runner(opened.session.data_dir)
    assert shown_balances(run) == await kept_balances(opened)
    assert verified(run, tmp_path)["last_position"] > EXPECTED["position"]


async def kept_balances(opened: Upstream) -> dict[Book, tuple[int, int, int]]:
    """Return the balances that the independent books compute from the events."""
    kept = Kept()
    for position in range(1, await opened.session.log.last_position() + 1):
        event_at = await opened.session.log.at(position)
        assert event_at is not None
        kept.read(event_at)
    return kept.shown()


def shown_balances(run: Run) -> dict[Book, tuple[int, int, int]]:
    """Return the balances that the product shows."""
    done = run("report", "balances", "--json")
    return {
        (one["holder"], one["period"], one["granted"]["currency"]): (
            minor(one["granted"]),
            minor(one["spent"]),
            minor(one["reserved"]),
        )
        for one in json.loads(done.stdout)["items"]
    }


@pytest.mark.parametrize("lost", ["index", "views", "archive"])
async def test_derived_data_are_rebuilt(tmp_path: Path, lost: str) -> None:
    async with Session(load_settings({"data_dir": str(unpack(tmp_path, lost))}, {})) as session:
        async with upstream_of(session, history=True) as upstream:
            one = next(one for one in EXPECTED["answers"] if one["body"]["request_id"] == "r-shadow")
            reply = await upstream.client.request(one["subject"], json.dumps(one["body"]).encode(), timeout=20)
            assert json.loads(reply.data) == one["answer"]
            for told in EXPECTED["receipts"][::7]:
                named = told["request"]
                assert await receipt(upstream, named["id"], named["source"]) == told["answer"]
        run = runner(session.data_dir)
        found = json.loads(run("report", "balances", "--json").stdout)
        recorded = EXPECTED["readings"]["balances"]
        assert lasting("balances", found)["items"] == lasting("balances", recorded)["items"]
        verified(run, tmp_path)


def test_a_lost_seal_is_a_finding(tmp_path: Path) -> None:
    run = runner(unpack(tmp_path, "seal"))
    assert run("audit", "verify").returncode == 1
