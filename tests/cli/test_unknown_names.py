"""Commands about ids, holders and positions that the ledger does not have, or has for something else."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.runtime.session import Session
from config.settings import load_settings
from tests.support.builders import gbp
from tests.support.forked_cli import CommandLine, json_of
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of

MONTH = f"{datetime.now(UTC):%Y-%m}"


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Upstream]:
    """A ledger with an organisation's staff and one action."""
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with Session(settings) as session, upstream_of(session) as upstream:
        await set_up_organisation(upstream)
        assert (await upstream.action("r-1", "5.00"))["outcome"] == "taken"
        yield upstream


async def test_a_holder_without_any_budget_is_an_error(ledger: Upstream, command: CommandLine) -> None:
    done = command("audit", "balance", "agent:A-99", MONTH)
    assert (done.returncode, done.stdout) == (1, "")
    assert "agent:A-99 has no budget" in done.stderr
    assert "agent:<id>" in done.stderr
    assert ledger.session.embedded


async def test_a_period_without_a_budget_names_the_holders_periods(ledger: Upstream, command: CommandLine) -> None:
    done = command("audit", "balance", "agent:A-1", "2001-01", "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert (error["code"], MONTH in error["message"]) == ("unknown_budget", True)
    assert ledger.session.embedded


async def test_an_open_escalation_has_no_action_to_explain(ledger: Upstream, command: CommandLine) -> None:
    asked = await ledger.action("r-2", "90.00", escalate=True)
    done = command("audit", "explain", asked["escalation_id"], "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "unknown_action"
    assert f"{asked['escalation_id']} is an escalation" in error["message"]


async def test_an_approved_escalation_is_explained_by_its_action(ledger: Upstream, command: CommandLine) -> None:
    asked = await ledger.action("r-2", "90.00", escalate=True)
    approved = await ledger.ask(
        "escalation",
        request_id="d-1",
        operation="approve",
        escalation_id=asked["escalation_id"],
        decided_by="M-1",
    )
    assert approved["outcome"] == "done", approved
    found = json_of(command("audit", "explain", asked["escalation_id"], "--json"))
    assert found["action_id"] == approved["action_id"]
    assert found["action"]["amount"] == gbp("90.00")


@pytest.mark.parametrize("position", ["0", "999"])
async def test_a_position_outside_the_log_is_not_skipped(ledger: Upstream, command: CommandLine, position: str) -> None:
    before = await ledger.session.log.last_position()
    done = command("admin", "projections", "skip", "people", position, "--reason", "a test", "--by", "M-1")
    assert done.returncode == 2
    assert f"the log goes from 1 to {before}" in done.stderr
    assert await ledger.session.log.last_position() == before
