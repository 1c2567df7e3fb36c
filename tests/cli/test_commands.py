"""Commands in processes of their own: beside a running `up` and alone; documents, statuses, errors."""

import json
from pathlib import Path

import pytest
import yaml

from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine, json_of
from tests.support.organisations import BASIC_POLICY
from tests.support.up_process import UpProcess


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(BASIC_POLICY | {"default_role": "agent"}))
    return path


def lines(*events: Document) -> str:
    return "".join(json.dumps(item) + "\n" for item in events)


def purchase(number: int) -> Document:
    return event(f"p-{number}", "purchase.completed", order_id=f"O-{number}", customer_id="C-1", total=gbp("5.00"))


def the_whole_job(command: CommandLine, policy_file: Path, *at_rest: str) -> None:
    published = json_of(command("publish", "-", "--json", stdin=lines(purchase(1), purchase(2), purchase(1))))
    assert published == {"read": 3, "recorded": 2, "duplicate": 1, "rejected": 0, "skipped": {}, "rejections": []}
    policy = json_of(command("decide", "policy", str(policy_file), "--published-by", "owner", "--json"))
    assert (policy["outcome"], policy["policy_version"]) == ("done", 1)
    asked = (
        "decide",
        "action",
        "--agent",
        "A-1",
        "--kind",
        "refund",
        "--amount",
        "5.00",
        "--reason",
        "late",
        "--customer",
        "C-1",
        "--request-id",
        "r-1",
        "--json",
    )
    taken = json_of(command(*asked))
    assert taken["outcome"] == "taken"
    assert json_of(command(*asked)) == taken
    preview = json_of(command("decide", "preview", "--agent", "A-1", "--kind", "refund", "--json"))
    assert preview["available"] == gbp("50.00")
    grant = (
        "decide",
        "budget",
        "--holder",
        "agent:A-1",
        "--amount",
        "9.00",
        "--granted-by",
        "M",
        "--reason",
        "x",
        "--json",
    )
    assert json_of(command(*grant))["budget"]["remaining"] == gbp("204.00")
    balances = json_of(command("report", "balances", "--json"))
    assert balances["items"][0]["spent"] == gbp("5.00")
    assert {"holder", "period", "granted", "spent", "reserved", "remaining", "opened"} <= balances["items"][0].keys()
    loyalty = json_of(command("report", "loyalty", "--json"))
    assert (loyalty["currencies"][0]["treated"], loyalty["items"][0]["action_id"]) == (1, taken["action_id"])
    trail = json_of(command("audit", "trail", "--action", taken["action_id"], "--json"))
    assert [item["position"] for item in trail["items"]] == [taken["position"]]
    explained = json_of(command("audit", "explain", taken["action_id"], "--json"))
    assert explained["budget_after"]["remaining"] == gbp("195.00")
    replayed = [json.loads(line) for line in command("audit", "replay").stdout.splitlines()]
    assert [item["position"] for item in replayed] == list(range(1, balances["position"] + 1))
    assert replayed[0]["id"] == "p-1"
    assert all("recordedtime" in item for item in replayed)
    middle = replayed[2]["recordedtime"]
    since = [json.loads(line) for line in command("audit", "replay", "--from", middle).stdout.splitlines()]
    assert [item["position"] for item in since] == [i["position"] for i in replayed if i["recordedtime"] >= middle]
    until = [json.loads(line) for line in command("audit", "replay", "--to", "2").stdout.splitlines()]
    assert until == replayed[:2]
    assert json_of(command("admin", "doctor", "--json", *at_rest))["ok"]


def test_the_whole_job_alone(command: CommandLine, policy_file: Path) -> None:
    the_whole_job(command, policy_file, "--at-rest")


def test_the_whole_job_beside_a_running_up(up: UpProcess, command: CommandLine, policy_file: Path) -> None:
    up.wait_until_up()
    the_whole_job(command, policy_file)


def test_commands_print_tables_for_people(command: CommandLine, policy_file: Path) -> None:
    assert "recorded" in command("publish", "-", stdin=lines(purchase(1))).stdout
    assert "done" in command("decide", "policy", str(policy_file), "--published-by", "o").stdout
    taken = command("decide", "action", "--agent", "A-1", "--kind", "refund", "--amount", "5.00", "--reason", "[red]x")
    assert "taken" in taken.stdout
    assert "195.00 GBP" in command("report", "balances").stdout
    assert "No action with a customer" in command("report", "loyalty").stdout
    trail = command("audit", "trail").stdout
    assert "[red]x" in trail  # text from outside is no markup
    for words in (("admin", "projections", "status"), ("admin", "rejected", "list"), ("admin", "doctor", "--at-rest")):
        assert command(*words).returncode == 0


def test_rejected_events_are_listed_shown_and_retried(command: CommandLine) -> None:
    bad = event("bad", "purchase.completed", total=gbp("5.00"))
    done = command("publish", "-", "--json", stdin=lines(purchase(1), bad) + "not json\n")
    published = json_of(done, status=1)
    assert (published["recorded"], published["rejected"]) == (1, 2)
    assert {(item["line"], item["field"]) for item in published["rejections"]} == {(2, "data.order_id"), (3, "")}
    (item,) = json_of(command("admin", "rejected", "list", "--json"))["items"]
    assert (item["code"], item["field"]) == ("invalid", "data.order_id")
    shown = json_of(command("admin", "rejected", "show", str(item["number"]), "--json"))
    assert json.loads(shown["data"]) == bad
    assert json_of(command("admin", "rejected", "retry", "--all", "--json")) == {"retried": 1}
    json_of(command("publish", "-", "--json", stdin=lines(purchase(2))))
    (again,) = json_of(command("admin", "rejected", "list", "--json"))["items"]
    assert again["number"] > item["number"]


def test_a_dry_run_reports_rejections_and_publishes_nothing(command: CommandLine, tmp_path: Path) -> None:
    bad = event("bad", "purchase.completed", order_id="O", total={"amount": 5, "currency": "GBP"})
    found = json_of(command("publish", "-", "--dry-run", "--json", stdin=lines(purchase(1), bad)), status=1)
    assert (found["read"], found["rejected"], found["rejections"][0]["field"]) == (2, 1, "data.total.amount")
    assert not (tmp_path / "data").exists()


WRONG = [
    (("nonsense",), "No such command"),
    (("report", "balances"), "holds no ledger"),
    (("audit", "replay"), "holds no ledger"),
    (("admin", "doctor"), "holds no ledger"),
    (("decide", "action", "--agent", "A"), "--kind"),
    (("decide", "action", "--agent", "A", "--kind", "bribe"), "bribe"),
    (("publish", "nowhere.jsonl"), "nowhere.jsonl"),
    (("import", "no_such_mapping", __file__), "no_such_mapping"),
    (("run", "nonsense"), "nonsense"),
    (("report", "balances", "--config", "nowhere.toml"), "nowhere.toml"),
    (("report", "balances", "--replicas", "2"), "replicas"),
    (("report", "balances", "--database-url", "mysql://x"), "database_url"),
]


@pytest.mark.parametrize(
    ("words", "says"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_wrong_usage_is_reported_in_one_line(
    command: CommandLine, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    if "--config" not in words and words != ("nonsense",):
        assert "error" in json.loads(command(*words, "--json").stdout)
    assert not (tmp_path / "data").exists()


def test_a_missing_server_is_reported_in_one_line(command: CommandLine) -> None:
    done = command("report", "balances", "--nats-url", "nats://x:y@127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "y@" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_policy_is_checked_with_lines(command: CommandLine, policy_file: Path, tmp_path: Path) -> None:
    assert command("policy", "check", str(policy_file), data_dir=None).returncode == 0
    policy_file.write_text(policy_file.read_text().replace("period: month", "period: year"))
    done = command("policy", "check", str(policy_file), data_dir=None)
    assert done.returncode == 1
    assert f"{policy_file}:" in done.stdout
    assert "period" in done.stdout
    found = json_of(command("policy", "check", str(policy_file), "--json", data_dir=None), status=1)
    assert not found["valid"]
    done = command("decide", "policy", str(policy_file), "--published-by", "o")
    assert done.returncode == 1
    assert "period" in done.stderr
    assert not (tmp_path / "data").exists()


def test_settings_come_from_options_then_environment_then_file(tmp_path: Path) -> None:
    from config.settings import SettingsError, load_settings, settings_as_options

    file = tmp_path / "s.toml"
    file.write_text('data_dir = "file"\nreplicas = 3\nnats_server = "here"\n')
    environment = {"RESOLUTION_LEDGER_DATA_DIR": "environment", "RESOLUTION_LEDGER_REPLICAS": "5"}
    settings = load_settings({"data_dir": "option", "replicas": None}, environment, file)
    assert (settings.data_dir, settings.replicas, settings.nats_server) == ("option", 5, "here")
    assert load_settings({}, {"RESOLUTION_LEDGER_CONFIG": str(file)}).data_dir == "file"
    assert settings_as_options(settings)[:2] == ["--data-dir", "option"]
    for text in ("surprise = 1", "replicas = 'many'", "data_dir = "):
        file.write_text(text)
        with pytest.raises(SettingsError):
            load_settings({}, {}, file)


def test_a_projection_that_stopped_is_a_finding_and_can_be_skipped(command: CommandLine) -> None:
    json_of(command("publish", "-", "--json", stdin=lines(purchase(1))))
    assert json_of(command("admin", "projections", "rebuild", "--json"))["position"] == 1
    states = json_of(command("admin", "projections", "status", "--json"))
    assert {(item["position"], item["lag_events"], item["stopped"]) for item in states["items"]} == {(1, 0, None)}
    words = ("admin", "projections", "skip", "audit_trail", "1", "--reason", "a test", "--by", "M-1", "--json")
    assert json_of(command(*words))["position"] == 2
    json_of(command("admin", "projections", "rebuild", "audit_trail", "--json"))
    items = json_of(command("audit", "trail", "--json"))["items"]
    assert [item["position"] for item in items] == [2]
