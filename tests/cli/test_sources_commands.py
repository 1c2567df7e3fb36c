"""`admin sources`: what an operator registers, and what the commands themselves skip."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import event, purchase
from tests.support.documents import Document
from tests.support.up_process import UpProcess

CommandLine = Callable[..., subprocess.CompletedProcess[str]]


def printed(done: subprocess.CompletedProcess[str], status: int = 0) -> Any:
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def sources(command: CommandLine) -> Callable[..., Any]:
    """Run `admin sources` and return what it prints as JSON."""
    return lambda *words, status=0: printed(command("admin", "sources", *words, "--json"), status)


def test_a_source_is_registered_narrowed_stopped_and_registered_again(
    sources: Callable[..., Any], up: UpProcess
) -> None:
    up.wait_until_up()
    added = sources("add", "crm", "--profile", "desk", "--roles", "agent", "--facts", "interaction.*,feedback.*")
    file = Path(added["file"])
    assert file == up.data_dir / "sources" / "crm.json"
    assert set(json.loads(file.read_text())) == {"nats_url", "nats_user", "nats_password"}
    assert file.stat().st_mode & 0o777 == 0o600
    (item,) = sources("list")["items"]
    assert (item["state"], item["profile"], item["roles"]) == ("active", "desk", ["agent"])
    assert item["facts"] == ["interaction.*", "feedback.*"]
    again = sources("add", "crm", "--profile", "desk", status=2)
    assert again["error"]["code"] == "already_registered"
    sources("change", "crm", "--roles", "", "--per-day", "500.00", "--currency", "GBP")
    (item,) = sources("list")["items"]
    assert (item["roles"], item["per_day"]) == ([], {"amount": "500.00", "currency": "GBP"})
    sources("stop", "crm", "--reason", "stolen")
    assert not file.exists()
    assert sources("list")["items"][0]["state"] == "stopped"
    assert sources("change", "crm", "--profile", "facts", status=2)["error"]["code"] == "unknown_source"
    sources("add", "crm", "--profile", "facts")
    sources("retire", "crm")
    assert sources("list")["items"][0]["state"] == "retired"


@pytest.mark.parametrize(
    ("words", "code", "field"),
    [
        (("add", "dashboard", "--profile", "desk"), "source_not_allowed", "name"),
        (("add", "a\u00a0b", "--profile", "desk"), "id_not_canonical", "name"),
        (("add", "crm", "--profile", "desks"), "invalid", "profile"),
        (("add", "crm", "--profile", "desk", "--per-day", "1.00"), "no_policy", "currency"),
        (("add", "crm", "--profile", "desk", "--per-day", "1,5", "--currency", "GBP"), "invalid", "per_day"),
        (("add", "crm", "--profile", "desk", "--per-day", "1", "--currency", "XQZ"), "invalid", "currency"),
    ],
)
def test_a_registration_that_is_not_possible_names_the_option(
    sources: Callable[..., Any], words: tuple[str, ...], code: str, field: str
) -> None:
    error = sources(*words, status=2)["error"]
    assert (error["code"], error["field"]) == (code, field)


def test_a_rejected_fact_is_recorded_by_a_retry_after_the_profile_was_widened(
    command: CommandLine, sources: Callable[..., Any], up: UpProcess
) -> None:
    import asyncio

    from nats import connect

    up.wait_until_up()
    file = Path(sources("add", "till", "--profile", "facts", "--facts", "interaction.*")["file"])

    async def publish() -> None:
        client = await connect(json.loads(file.read_text())["nats_url"])
        await client.request("resolution.inbox.till", json.dumps(purchase(1, "till")).encode(), timeout=10)
        for _ in range(200):
            reply = await client.request("resolution.read.till.receipt", b'{"id": "p-1"}', timeout=10)
            if json.loads(reply.data)["status"] == wanted:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError(reply.data)
        await client.close()

    wanted = "rejected"
    asyncio.run(publish())
    sources("change", "till", "--facts", "interaction.*,purchase.*")
    assert printed(command("admin", "rejected", "retry", "--all", "--json")) == {"retried": 1}
    wanted = "recorded"
    asyncio.run(publish())


def test_commands_act_as_the_operator_and_say_so(command: CommandLine, tmp_path: Path) -> None:
    """`publish` and `decide` skip profiles, and their events say `via: cli`."""
    (tmp_path / "policy.yaml").write_text(command("policy", "example", "contact-centre", data_dir=None).stdout)
    assert command("admin", "sources", "add", "hr", "--profile", "governance").returncode == 0
    joined = event("j-1", "employee.joined", "hr", employee_id="A-1", role="agent", team_ids=[])
    assert printed(command("publish", "-", "--json", stdin=json.dumps(joined)))["recorded"] == 1
    assert command("decide", "policy", str(tmp_path / "policy.yaml"), "--published-by", "o").returncode == 0
    events = [json.loads(line) for line in command("audit", "replay").stdout.splitlines()]
    by_type = {one["type"].removeprefix("resolution.").removesuffix(".v1"): one for one in events}
    assert by_type["employee.joined"]["via"] == "cli"
    assert by_type["employee.joined"]["source"] == "hr"
    assert by_type["policy.published"]["data"]["via"] == "cli"


def test_an_existing_ledger_adopts_its_sources_with_what_they_have_done(
    command: CommandLine, sources: Callable[..., Any]
) -> None:
    facts = [
        event("j-1", "employee.joined", "hr", employee_id="A-1", role="agent", team_ids=[]),
        purchase(1, "till"),
        event("i-1", "interaction.opened", "till", interaction_id="I-1"),
    ]
    lines = "\n".join(map(json.dumps, facts))
    assert printed(command("publish", "-", "--json", stdin=lines))["recorded"] == 3
    planned = sources("adopt", "--dry-run")["items"]
    assert [(one["source"], one["profile"], one["facts"]) for one in planned] == [
        ("hr", "people", ["employee.joined"]),
        ("till", "facts", ["interaction.opened", "purchase.completed"]),
    ]
    assert {one["state"] for one in sources("list")["items"]} == {"unregistered"}
    assert sources("adopt")["items"] == planned
    assert {one["state"] for one in sources("list")["items"]} == {"active"}
    assert sources("adopt")["items"] == []


def test_the_printed_configuration_names_each_operation_and_never_all(command: CommandLine) -> None:
    for name, profile in (("crm", "desk"), ("till", "facts"), ("a.b", "payments")):
        assert command("admin", "sources", "add", name, "--profile", profile).returncode == 0
    text = command("admin", "sources", "nats-config").stdout
    assert '"resolution.decide.crm.action"' in text
    assert "resolution.decide.crm.*" not in text
    assert "resolution.decide.crm.policy" not in text
    assert "resolution.decide.till" not in text
    assert '"resolution.decide.a%2Eb.hold"' in text
    assert "$RESOLUTION_LEDGER_SOURCE_A_B_PASSWORD" in text


@pytest.mark.parametrize("what", ["token made: anna (auditor)", "token revoked: anna"])
def test_tokens_are_recorded(command: CommandLine, what: str) -> None:
    assert command("admin", "sources", "add", "crm", "--profile", "desk").returncode == 0
    assert command("admin", "tokens", "make", "anna", "--role", "auditor").returncode == 0
    assert command("admin", "tokens", "revoke", "anna").returncode == 0
    events = [json.loads(line) for line in command("audit", "replay").stdout.splitlines()]
    access = [one["data"] for one in events if one["type"] == "resolution.access.recorded.v1"]
    assert {"who": "operator", "what": what, "via": "cli"} in access


def test_an_operator_proposes_objects_and_breaks_the_glass(command: CommandLine, tmp_path: Path) -> None:
    policy = command("policy", "example", "contact-centre", data_dir=None).stdout
    first, later = tmp_path / "first.yaml", tmp_path / "later.yaml"
    first.write_text(policy + "governance:\n  policies: {propose: ['role:head']}\n")
    later.write_text(re.sub("effective_from: .*", "effective_from: 2036-01-01T00:00:00Z", policy))

    def decide(*words: str, status: int = 0) -> Document:
        answer: Document = printed(command("decide", "policy", *words, "--json"), status)
        return answer

    decide(str(first), "--published-by", "dana")
    assert decide(str(later), "--published-by", "dana", status=1)["error"]["code"] == "not_governor"
    proposed = decide(str(later), "--propose", "--proposed-by", "dana")
    assert (proposed["status"], proposed["replaces"], proposed["missing"]) == ("proposed", 1, 2)
    approval = decide("--approve", proposed["sha256"], "--approved-by", "dana", status=1)
    assert approval["error"]["code"] == "not_governor"
    objected = decide("--object", proposed["sha256"], "--objected-by", "dana", "--reason", "too early")
    assert objected["status"] == "objected"
    glass = ("--break-glass", "--reason", "the head office is on fire", "--by", "dana")
    published = printed(command("admin", "policy", "publish", str(later), *glass, "--json"))
    assert published["policy_version"] == 2
    events = [json.loads(line) for line in command("audit", "replay").stdout.splitlines()]
    kinds = [(one["type"].removeprefix("resolution.").removesuffix(".v1"), one["data"]) for one in events]
    assert [kind for kind, _ in kinds][-2:] == ["policy.published", "access.recorded"]
    assert kinds[-2][1]["break_glass"] is True
    assert kinds[-1][1]["what"] == "break-glass: the head office is on fire"
