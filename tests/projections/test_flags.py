"""Flags as events: raised once by several guards, reviewed, explained, and the same after a rebuild."""

import asyncio
import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.runtime.session import Session
from app.runtime.views import read_view
from consumers.guard.flag_writer import FlagWriter, flag_of
from consumers.guard.service import GuardService
from consumers.privacy.erasure import forget
from domain.abuse.guard import RULES
from ledger.encryption.keyring import Keyring
from ledger.store.log import Recorded
from projections.views.flags import read_flags
from tests.support.builders import reported_action
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.forked_cli import CommandLine, json_of
from tests.support.guard_claims import claims
from tests.support.organisations import BASIC_POLICY
from tests.support.up_process import UpProcess
from tests.support.upstreams import upstream_of
from tests.support.waiting import block_until, eventually


async def run_guards(session: Session, guards: int = 1) -> None:
    """Run these guards at the same time until they have read the log and recorded their flags.

    Each believes that it has the lease, as a guard does that was suspended.
    """
    folders = [session.data_dir / f"guard-{number}" for number in range(guards)]
    services = [GuardService(session.url, session.log, folder) for folder in folders]
    for service in services:
        await service.start()
        assert service._lease is not None
        await service._lease.end_tasks()
        service._lease.is_ours = True
    for service in services:
        await eventually(session.log.last_position, lambda end, guard=service: guard.position >= end)  # type: ignore[misc]
    for service in services:
        await service.stop()
        assert not service.failed.done()


async def flags_of(session: Session) -> list[Document]:
    found: list[Document] = (
        await read_view(session, "flags", lambda c: read_flags(c, datetime.now(UTC), rule="R10"))
    ).result
    return found


async def test_two_guards_raise_each_flag_once_and_a_third_raises_none(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        await claims(upstream)
        await run_guards(session, 2)
        (flag,) = await flags_of(session)
        assert (flag["rule"], flag["about"], flag["status"]) == ("R10", ["customer:C-claims"], "open")
        before = await session.log.last_position()
        await run_guards(session)
        assert await session.log.last_position() == before
        await claims(upstream, 4, 6)
        await run_guards(session, 2)
        (flag,) = await flags_of(session)
        assert len(flag["evidence"]) > 6


async def test_a_guard_elsewhere_goes_on_within_two_and_a_half_seconds(session: Session) -> None:
    """Each has a data directory of its own, and the server alone in common; the first ends as by SIGKILL."""
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        first, second = (GuardService(session.url, session.log, session.data_dir / name) for name in ("one", "two"))
        for one in (first, second):
            await one.start()
        await claims(upstream)
        await eventually(lambda: flags_of(session), lambda found: len(found) == 1)
        assert [one.status().is_working for one in (first, second)] == [True, False]
        assert second.position == 0
        assert first._lease is not None
        await first._lease.end_tasks()
        await first.end_tasks()
        begun = time.monotonic()
        await claims(upstream, 4, 6)
        await eventually(lambda: asyncio.sleep(0, second.status().is_working))
        assert time.monotonic() - begun < 2.5 + 1  # the claims take their time, too
        (flag,) = await eventually(lambda: flags_of(session), lambda found: len(found[0]["evidence"]) > 6)
        assert flag["status"] == "open"
        await second.stop()


async def test_a_flag_is_reviewed_answered_and_explained(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        await claims(upstream)
        await run_guards(session)
        (flag,) = await flags_of(session)
        unknown = await upstream.ask(
            "flag", request_id="f-0", flag_id="flag-none", verdict="dismissed", reviewed_by="M-1"
        )
        assert unknown["error"]["code"] == "unknown_flag"
        review = {
            "request_id": "f-1",
            "flag_id": flag["flag_id"],
            "verdict": "coached",
            "reviewed_by": "M-1",
            "note": "talked",
        }
        answer = await upstream.ask("flag", **review)
        assert (answer["outcome"], answer["verdict"]) == ("done", "coached")
        assert await upstream.ask("flag", **review) == answer
        said = await upstream.ask(
            "flag", request_id="f-2", flag_id=flag["flag_id"], employee_id="A-1", text="it was a storm"
        )
        assert said["outcome"] == "done"
        (flag,) = await flags_of(session)
        assert (flag["status"], flag["reviewed_by"], flag["answered_by"]) == ("coached", "M-1", "A-1")
        stored = json.dumps([one.data.decode() for one in await session.log.read_subject("ledger.flag.>")])
        assert "storm" not in stored
        assert "talked" not in stored
        await claims(upstream, 1, 6)
        await run_guards(session)
        assert len(await flags_of(session)) == 1  # one more is not enough after a review


async def test_flags_are_the_same_bytes_however_the_guard_is_fed(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        await claims(upstream, 8)
        await run_guards(session)
    log = [one async for batch in session.log.subject_batches(">") for one in batch]
    live = [one.data.rpartition(b',"recordedtime"')[0] + b"}" for one in log if one.subject.startswith("ledger.flag.")]

    def again(size: int) -> list[bytes]:
        guarding = FlagWriter()
        batches: list[list[Recorded]] = [log[at : at + size] for at in range(0, len(log), size)]
        return [flag_of(raised).data for batch in batches for raised in guarding.take(batch)]

    assert len(live) >= 2
    assert again(1) == again(7) == again(1000) == live


async def test_flags_are_the_same_bytes_after_an_erasure(session: Session) -> None:
    async with upstream_of(session) as upstream:
        await upstream.set_up_basics()
        await claims(upstream, 8)
        for number in range(2):
            given = await upstream.action(
                f"n-{number}", "45.00", order_id="O-split", customer_id="C-claims", note="sorry"
            )
            assert given["outcome"] in {"taken", "escalate"}
        await run_guards(session)
        before = await flags_of(session)
        await forget(
            session.log, session.rejected, await Keyring.open(session.client), ["C-claims"], [], "M-1", "asked"
        )
    log = [one async for batch in session.log.subject_batches(">") for one in batch]
    live = {
        json.loads(one.data)["id"]: one.data.rpartition(b',"recordedtime"')[0] + b"}"
        for one in log
        if one.subject.startswith("ledger.flag.")
    }
    guarding = FlagWriter()
    assert {flag_of(raised).data for raised in guarding.take(log)} == set(live.values())
    assert len(live) >= 2
    assert any(b"customer.forgotten" in one.data for one in log)
    shutil.rmtree(session.data_dir / "views")
    assert await flags_of(session) == before
    end = await session.log.last_position()
    await run_guards(session)
    assert await session.log.last_position() == end


def test_commands_flags_and_backtest(command: CommandLine) -> None:
    facts = [
        reported_action(
            f"a-{one}",
            "4.00",
            request_id=f"q-{one}",
            agent_id=f"A-{one}",
            reason=f"reason {one}",
            customer_id="C-claims",
            order_id=f"O-{one}",
        )
        for one in range(6)
    ]
    assert command("publish", "-", stdin="\n".join(map(json.dumps, facts))).returncode == 0
    document = json.loads(command("audit", "flags", "--backtest", "R10", "--set", "agents=7", "--json").stdout)
    assert (len(document["same"]), len(document["new"]), len(document["gone"])) == (0, 0, 1)
    assert json.loads(command("audit", "flags", "--json").stdout)["items"] == []
    wrong = command("audit", "flags", "--backtest", "R10", "--set", "x=1")
    assert (wrong.returncode, "has no parameter x" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_every_rule_and_parameter_is_documented(rule: Any) -> None:
    (line,) = [
        line
        for line in (ROOT / "docs" / "understand" / "guard.md").read_text().splitlines()
        if line.startswith(f"| {rule.id} |")
    ]
    assert rule.pattern in line
    for name, value in rule.parameters.items():
        shown = "/".join(value) if isinstance(value, tuple) else value
        assert f"`{name}` {shown}" in line


def test_flags_show_pseudonyms_until_a_review_begins(command: CommandLine, up: UpProcess, tmp_path: Path) -> None:
    up.wait_until_up()
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(BASIC_POLICY | {"default_role": "agent", "privacy": {"pseudonyms": True}}))
    assert command("decide", "policy", str(policy), "--published-by", "owner").returncode == 0
    facts = [
        reported_action(f"a-{one}", "4.00", request_id=f"q-{one}", agent_id="A-7", customer_id="A-7")
        for one in range(2)
    ]
    assert command("publish", "-", stdin="\n".join(map(json.dumps, facts))).returncode == 0
    block_until(lambda: json_of(command("audit", "flags", "--json"))["items"], timeout_seconds=60)
    flag = json_of(command("audit", "flags", "--json"))["items"][0]
    assert "A-7" not in json.dumps(flag)
    assert flag["about"][0].startswith("agent:~")
    assert "A-7" not in command("audit", "flags").stdout
    assert json.loads(command("audit", "flags", "--about", "agent:A-7", "--json").stdout)["items"] == []
    assert json.loads(command("audit", "flags", "--about", flag["about"][0], "--json").stdout)["items"]
    done = command("decide", "flag", "--flag", flag["flag_id"], "--unmasked-by", "M-1", "--json")
    assert json.loads(done.stdout)["outcome"] == "done"
    (shown, *others) = json.loads(command("audit", "flags", "--json").stdout)["items"]
    assert (shown["about"], shown["unmasked_by"], shown["status"]) == (["agent:A-7", "customer:A-7"], "M-1", "open")
    assert all("A-7" not in json.dumps(other) for other in others)
    assert '"unmasked_by":"M-1"' in command("audit", "replay").stdout
