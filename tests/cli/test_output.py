"""Output for other programs: nothing is wrapped or cut, and lists are CSV on request."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.runtime.roles import ROLES
from projections.csv_text import csv_text
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.environment import clean_environment
from tests.support.forked_cli import CommandLine
from tests.support.organisations import BASIC_POLICY

SCRIPT = str(Path(sys.executable).with_name("resolution-ledger"))
LONG = "I-" + "0123456789" * 12
FORMULA = '=HYPERLINK("http://x","y")'


@pytest.fixture
def told(command: CommandLine, tmp_path: Path) -> CommandLine:
    """Fill a ledger with a long id, a hostile one, and an action in the policy's currency."""
    facts = [
        event("j-1", "employee.joined", employee_id="A-1", role="agent", team_ids=["t-1"]),
        event("o-1", "interaction.opened", interaction_id=LONG, customer_id="C-1", channel="phone", agent_id="A-1"),
        event("o-2", "interaction.opened", interaction_id=FORMULA, customer_id="C-2", channel="phone", agent_id="A-1"),
    ]
    done = command("publish", "-", stdin="\n".join(map(json.dumps, facts)))
    assert done.returncode == 0, done.stderr
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(BASIC_POLICY | {"currency": "EUR", "default_role": "agent"}))
    assert command("decide", "policy", str(policy), "--published-by", "you").returncode == 0
    return command


def action(told: CommandLine, *words: str) -> subprocess.CompletedProcess[str]:
    return told(
        "decide",
        "action",
        "--agent",
        "A-1",
        "--customer",
        "C-1",
        "--interaction",
        LONG,
        "--kind",
        "refund",
        "--reason",
        "late",
        *words,
    )


def rows_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_an_id_is_found_in_piped_tables(told: CommandLine) -> None:
    assert action(told, "--amount", "5.00").returncode == 0
    for words in (("audit", "trail"), ("report", "actions"), ("report", "balances"), ("admin", "doctor")):
        text = told(*words).stdout
        widths = {len(line) for line in text.splitlines() if line.startswith(("│", "├", "└"))}
        assert len(widths) == 1, words  # one line of a table for each row
    trail = told("audit", "trail").stdout
    assert [line for line in trail.splitlines() if LONG in line]


def test_a_table_is_as_wide_as_a_terminal(told: CommandLine, tmp_path: Path) -> None:
    read, write = pty.openpty()
    environment = clean_environment() | {"COLUMNS": "72", "TERM": "xterm"}
    with subprocess.Popen(
        [SCRIPT, "audit", "trail", "--data-dir", str(tmp_path / "data")], stdout=write, env=environment
    ) as process:
        os.close(write)
        text = b""
        try:
            while chunk := os.read(read, 65536):
                text += chunk
        except OSError:
            pass  # Linux says so at the end of a terminal
        assert process.wait() == 0
    os.close(read)
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()) <= 72


def test_the_amounts_currency_is_the_policys(told: CommandLine) -> None:
    taken = json.loads(action(told, "--amount", "5.00", "--json").stdout)
    assert taken["outcome"] == "taken"
    assert taken["budget"]["spent"] == {"amount": "5.00", "currency": "EUR"}
    other = json.loads(action(told, "--amount", "5.00", "--currency", "USD", "--json").stdout)
    assert other["error"]["code"] == "currency"
    grant = told(
        "decide",
        "budget",
        "--holder",
        "agent:A-1",
        "--amount",
        "7.00",
        "--granted-by",
        "M-1",
        "--reason",
        "x",
        "--json",
    )
    assert json.loads(grant.stdout)["budget"]["granted"]["currency"] == "EUR", grant.stdout


def test_an_amount_without_a_currency_needs_a_policy(command: CommandLine) -> None:
    words = ("decide", "action", "--agent", "A-1", "--kind", "refund", "--amount", "5.00", "--reason", "late")
    done = command(*words)
    assert done.returncode == 1
    assert "--currency" in done.stderr
    assert done.stderr.count("\n") == 1
    assert json.loads(command(*words, "--json").stdout)["error"]["field"] == "currency"


def test_lists_are_csv_on_request(told: CommandLine, tmp_path: Path) -> None:
    assert action(told, "--amount", "5.00").returncode == 0
    (balance,) = rows_of(told("report", "balances", "--csv"))
    assert (balance["holder"], balance["spent"], balance["spent_currency"]) == ("agent:A-1", "5.00", "EUR")
    trail = rows_of(told("audit", "trail", "--csv"))
    items = json.loads(told("audit", "trail", "--json").stdout)["items"]
    assert [int(row["position"]) for row in trail] == [item["position"] for item in items]
    assert list(trail[0]) == list(items[0])
    assert {LONG, "'" + FORMULA} <= {row["interaction_id"] for row in trail}
    (done,) = rows_of(told("report", "actions", "--csv"))
    assert (done["amount"], done["amount_currency"]) == ("5.00", "EUR")
    for words in (
        ("report", "balances"),
        ("report", "actions"),
        ("report", "escalations"),
        ("report", "loyalty"),
        ("audit", "trail"),
        ("audit", "flags"),
        ("audit", "flags", "--rates"),
        ("audit", "balance", "agent:A-1", balance["period"]),
        ("admin", "rejected", "list"),
        ("admin", "projections", "status"),
        ("admin", "tokens", "list"),
        ("admin", "inbox", "list"),
        ("admin", "hold"),
        ("admin", "init"),
        ("admin", "doctor", "--at-rest"),
        ("policy", "diff", str(tmp_path / "policy.json")),
    ):
        text = told(*words, "--csv").stdout
        found = list(csv.DictReader(io.StringIO(text)))
        items = json.loads(told(*words, "--json").stdout)["items"]
        assert len(found) == len(items), words
        header = [name for name in text.splitlines()[0].split(",") if not name.endswith("_currency")]
        assert [list(item) for item in items] in ([], [header] * len(items)), words  # also where the list is empty
    both = told("report", "balances", "--csv", "--json")
    assert both.returncode == 2
    assert "exclude" in both.stderr


@pytest.mark.parametrize(
    ("item", "cells"),
    [
        ({"m": gbp("-5.00")}, {"m": "-5.00", "m_currency": "GBP"}),
        ({"m": None, "b": True, "c": 1.5}, {"m": "", "m_currency": "", "b": "true", "c": "1.5"}),
        ({"a": ["x", "y"], "b": {"c": 1}}, {"a": '["x","y"]', "b": '{"c":1}'}),
        (
            {"a": "@SUM(A1)", "b": "+441", "c": "-x", "d": "\tx"},
            {"a": "'@SUM(A1)", "b": "+441", "c": "'-x", "d": "'\tx"},
        ),
        ({"a": 'with "quotes", commas\nand lines'}, {"a": 'with "quotes", commas\nand lines'}),
    ],
)
def test_cells(item: Document, cells: dict[str, str]) -> None:
    assert list(csv.DictReader(io.StringIO(csv_text([item], "m$" if "m" in item else "a")))) == [cells]


def test_help_names_every_role_and_is_not_wrapped(command: CommandLine) -> None:
    text = command("run", "--help", data_dir=None).stdout
    assert [role for role in ROLES if not re.search(rf"[:;] {role} [a-z]+s ", text)] == []
    assert "[default: ./.resolution-ledger]" in text


@pytest.mark.integration
def test_completion_and_version_work_as_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "commands.md").read_text()
    assert "resolution-ledger --version" in page
    environment = clean_environment()
    for shell in ("bash", "zsh", "fish"):
        assert f"_RESOLUTION_LEDGER_COMPLETE={shell}_source" in page
    asked = environment | {
        "COMP_WORDS": "resolution-ledger audit t",
        "COMP_CWORD": "2",
        "_RESOLUTION_LEDGER_COMPLETE": "bash_complete",
    }
    done = subprocess.run([SCRIPT], env=asked, capture_output=True, text=True, check=True)
    assert done.stdout == "plain,trail\n"


def test_escalations_of_other_systems_are_listed(told: CommandLine) -> None:
    amount = gbp("30.00")
    facts = [
        event("e-1", "escalation.reported", "desk", "2026-05-01T10:00:00Z", escalation_id="E-1", amount=amount),
        event(
            "e-2", "escalation.outcome_reported", "desk", "2026-05-01T13:00:00Z", escalation_id="E-1", verdict="denied"
        ),
    ]
    assert told("publish", "-", stdin="\n".join(map(json.dumps, facts))).returncode == 0
    (found,) = json.loads(told("report", "escalations", "--json").stdout)["items"]
    assert (found["reported_by"], found["status"], found["waited_seconds"]) == ("desk", "denied", 10_800)
    table = told("report", "escalations").stdout
    assert all(word in table for word in ("E-1", "30.00", "desk", "denied", "180 min"))
    (row,) = csv.DictReader(io.StringIO(told("report", "escalations", "--csv").stdout))
    assert (row["escalation_id"], row["reported_by"], row["asked_of"]) == ("E-1", "desk", "[]")
