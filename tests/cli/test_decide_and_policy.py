"""`decide` and `policy` for all of authority, and the reports about it, in processes of their own."""

import json
from pathlib import Path

import pytest
import yaml

from tests.support.builders import event, gbp
from tests.support.forked_cli import CommandLine, json_of
from tests.support.organisations import FULL_POLICY, STAFF
from tests.support.up_process import UpProcess


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(FULL_POLICY))
    return path


def test_everything_can_be_asked_from_the_command_line(command: CommandLine, policy_file: Path, up: UpProcess) -> None:
    up.wait_until_up()
    joined = [
        event(
            f"join-{name}",
            "employee.joined",
            employee_id=name,
            role=role,
            team_ids=teams,
            **({"manager_id": above} if above else {}),
        )
        for name, (role, teams, above) in STAFF.items()
    ]
    command("publish", "-", stdin="".join(json.dumps(one) + "\n" for one in joined))
    json_of(command("decide", "policy", str(policy_file), "--published-by", "owner", "--json"))
    act = ("decide", "action", "--agent", "A-1", "--kind", "refund", "--reason", "late", "--json", "--amount")
    asked = json_of(command(*act, "90.00", "--escalate"))
    assert asked["outcome"] == "escalate"
    waiting = json_of(command("report", "escalations", "--waiting", "--json"))
    assert [(one["asked"], one["asked_of"], one["status"]) for one in waiting["items"]] == [
        (gbp("90.00"), ["M-1"], "waiting")
    ]
    one = ("decide", "escalation", "--escalation", asked["escalation_id"], "--json", "--operation")
    approved = json_of(command(*one, "approve", "--decided-by", "M-1", "--amount", "80.00"))
    assert (approved["status"], approved["amount"]) == ("approved", gbp("80.00"))
    closed = json_of(command(*one, "deny", "--decided-by", "M-1"), status=1)
    assert closed["error"]["code"] == "already_decided"
    filed = json_of(
        command(
            "decide",
            "escalation",
            "--operation",
            "request",
            "--agent",
            "A-1",
            "--kind",
            "refund",
            "--amount",
            "55.00",
            "--reason",
            "big",
            "--json",
        )
    )
    assert filed["status"] == "requested"
    held = json_of(command(*act, "20.00", "--hold"))
    settle = ("decide", "hold", "--action", held["action_id"], "--operation", "settle", "--amount", "15.00")
    assert json_of(command(*settle, "--json"))["budget"]["spent"] == gbp("15.00")
    undo = (
        "decide",
        "reversal",
        "--action",
        held["action_id"],
        "--reversed-by",
        "M-1",
        "--reason",
        "back",
        "--recovered",
    )
    assert json_of(command(*undo, "--json"))["budget"]["spent"] == gbp("0.00")
    move = (
        "decide",
        "budget",
        "--holder",
        "agent:A-1",
        "--to-holder",
        "agent:A-2",
        "--amount",
        "50.00",
        "--granted-by",
        "M-1",
    )
    assert json_of(command(*move, "--reason", "busy", "--json"))["budget"]["granted"] == gbp("150.00")
    actions = json_of(command("report", "actions", "--json"))
    assert [(one["state"], one["decided_by"]) for one in actions["items"]] == [("taken", "M-1"), ("settled", None)]
    unsettled = json_of(command("report", "actions", "--unsettled", "--json"))
    assert [one["amount"] for one in unsettled["items"]] == [gbp("80.00")]
    assert "Actions at position" in command("report", "actions").stdout
    assert "Escalations at position" in command("report", "escalations").stdout
    assert "not_held" in command(*settle).stderr
    assert command("decide", "action", "--kind", "refund").returncode == 2


def test_a_policy_is_checked_shown_and_compared_before_it_is_published(
    command: CommandLine, policy_file: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd.yaml"
    agent = FULL_POLICY["roles"]["agent"] | {"limits": {"refund": "300.00", "gift": "5.00"}, "requires": {"fix": ["x"]}}
    costs = {"agent_hour": "24.00", "manager_hour": "45.00"}
    odd.write_text(yaml.safe_dump({**FULL_POLICY, "roles": {"agent": agent}, "costs": costs, "teams": {}}))
    found = json_of(command("policy", "check", str(odd), "--json", data_dir=None))
    assert found["valid"]
    said = " ".join(f"{finding['field']}: {finding['message']}" for finding in found["items"])
    for words in (
        "roles.agent.limits.refund: 300.00 can never be given: the budget is 200.00",
        "roles.agent.limits.refund: 300.00 can never be given: per_interaction is 60.00",
        "asking costs 11.60",
        "roles.agent.requires.fix: this role gives no fix",
        "nobody could approve a gift",
        "escalation.payer: no team has a pool, so the approver's budget pays",
    ):
        assert words in said
    assert "may approve" in command("policy", "show", str(policy_file), data_dir=None).stdout
    assert json_of(command("policy", "show", str(policy_file), "--json", data_dir=None)) == FULL_POLICY
    changes = json_of(command("policy", "diff", str(odd), "--with", str(policy_file), "--json"))["items"]
    limit = next(one for one in changes if one["field"] == "roles.agent.limits.refund")
    assert (limit["before"], limit["after"]) == ("50.00", "300.00")
    assert "no ledger" in command("policy", "diff", str(odd)).stderr
    json_of(command("decide", "policy", str(policy_file), "--published-by", "owner", "--json"))
    assert json_of(command("policy", "diff", str(policy_file), "--json")) == {"items": []}
    early = tmp_path / "early.yaml"
    early.write_text(yaml.safe_dump(FULL_POLICY | {"effective_from": "2019-12-31T00:00:00Z"}))
    for asked in (("policy", "diff", str(early)), ("decide", "policy", str(early), "--published-by", "owner")):
        refused = command(*asked, "--json")
        assert refused.returncode == 1
        assert "before that of version 1, in force since 2020-01-01T00:00:00Z" in refused.stdout
    bad = tmp_path / "bad.yaml"
    bad.write_text("currency: GBP\n")
    assert command("policy", "show", str(bad), data_dir=None).returncode == 1
    assert command("policy", "check", str(bad), data_dir=None).returncode == 1
    assert command("policy", "diff", str(bad), "--with", str(bad)).returncode == 1
