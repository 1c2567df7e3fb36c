"""A package adds a guard rule and a projection: really installed, run by `up`, read by command line and HTTP."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import httpx
import pytest

from app.runtime.plugins import PluginError, load_rules
from consumers.guard.plugin_rules import IsolatedRule
from domain.abuse.guard import Guard
from resolution_ledger import GUARD_RULES, PROJECTIONS, GuardRule
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment
from tests.support.guard_story import Story
from tests.support.organisations import BASIC_POLICY
from tests.support.up_process import UpProcess

EXAMPLE = ROOT / "docs" / "integrate" / "example_plugin"


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example was installed into."""
    folder = tmp_path_factory.mktemp("packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(folder), str(EXAMPLE)], check=True, capture_output=True)
    return folder


def ledger(packages: Path, data_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a new process that finds the packages."""
    return subprocess.run(
        [sys.executable, "-m", "resolution_ledger", "--data-dir", str(data_dir), *words],
        cwd=ROOT,
        env=clean_environment() | {"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def items(packages: Path, data_dir: Path, *words: str) -> list[Document]:
    done = ledger(packages, data_dir, *words, "--json")
    assert done.returncode == 0, done
    found: list[Document] = json.loads(done.stdout)["items"]
    return found


def package(folder: Path, name: str, source: str, **entry_points: str) -> Path:
    """Write an installed package that adds a ``rule`` or a ``view``, e.g. ``view="acme=View"``."""
    groups = {"rule": GUARD_RULES, "view": PROJECTIONS}
    points = [(groups[kind], *text.split("=")) for kind, text in entry_points.items()]
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n{point} = {name}:{value}\n" for group, point, value in points]
    (info / "entry_points.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def acting(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[UpProcess, dict[str, str]]]:
    """`up` with the example, in which A-1 gave C-1 goodwill twice."""
    monkeypatch.setenv("PYTHONPATH", str(packages))
    up = UpProcess(tmp_path / "data")
    try:
        connection = up.wait_until_up()
        policy = tmp_path / "policy.json"
        policy.write_text(json.dumps(BASIC_POLICY | {"default_role": "agent"}))
        decide = ("decide", "policy", str(policy), "--published-by", "owner")
        assert ledger(packages, up.data_dir, *decide).returncode == 0
        act = ("decide", "action", "--agent", "A-1", "--kind", "refund", "--reason", "late", "--customer", "C-1")
        for amount in ("5.00", "7.00"):
            done = ledger(packages, up.data_dir, *act, "--amount", amount)
            assert done.returncode == 0, done
        yield up, connection
    finally:
        if up.process.poll() is None:
            up.stop()


@pytest.mark.integration
def test_the_examples_rule_flags_and_its_view_is_read(packages: Path, acting: tuple[UpProcess, dict[str, str]]) -> None:
    up, connection = acting
    deadline = time.monotonic() + 60
    while not (flags := items(packages, up.data_dir, "audit", "flags")) and time.monotonic() < deadline:
        time.sleep(0.2)
    (flag,) = flags
    assert (flag["rule"], flag["about"]) == ("acme.repeated-gift", ["agent:A-1", "customer:C-1"])
    (day,) = items(packages, up.data_dir, "report", "view", "acme_days")
    assert (day["currency"], day["actions"], day["amount_minor"]) == ("GBP", 2, 1200)
    headers = {"Authorization": f"Bearer {connection['http_token']}"}
    with httpx.Client(base_url=connection["http_url"], headers=headers, timeout=20) as client:
        answer = client.get("/api/v1/views/acme_days/days")
        assert answer.status_code == 200, answer.text
        assert answer.json()["items"] == [day]
        assert client.get("/api/v1/views/acme_days/days", params={"limit": 1}).json()["next"] is None
        for unknown in ("acme_days/weeks", "people/people"):
            assert client.get(f"/api/v1/views/{unknown}").status_code == 404
        states = {one["view"]: one["stopped"] for one in client.get("/api/v1/projections").json()["items"]}
        assert states["acme_days"] is None
    (built,) = items(packages, up.data_dir, "admin", "projections", "rebuild", "acme_days")
    assert built["projection"] == "acme_days"
    assert items(packages, up.data_dir, "report", "view", "acme_days", "--table", "days") == [day]
    schema = items(packages, up.data_dir, "admin", "schema")
    assert {one["meaning"] for one in schema if one["view"] == "acme_days"} >= {"number of actions", "ISO 4217 code"}
    assert "package acme-ledger" in ledger(packages, up.data_dir, "admin", "doctor").stdout


RULE = """
from resolution_ledger import Rule, RuleFinding
class Broken:
    rule = Rule({id!r}, 1, "breaks", {{}})
    def on(self, history, event, action, /):
        {body}
"""
VIEW = """
import sqlalchemy as sa
from resolution_ledger import decisions
class View:
    name, version, prefixes, metadata = {name!r}, 1, ("ledger.budget.",), sa.MetaData()
    types = {{"resolution.action.taken.v1": decisions.ActionTaken}}
    table = sa.Table({table!r}, metadata, sa.Column("a", sa.Text, primary_key=True))
    def fold(self, connection, events):
        {body}
    def forget(self):
        pass
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("source", "points", "reason"),
    [
        ("raise RuntimeError('broken')", {"rule": "acme.a=X"}, "RuntimeError: broken"),
        ("raise SystemExit", {"view": "acme=X"}, "SystemExit"),
        ("raise KeyboardInterrupt", {"rule": "acme.a=X"}, "KeyboardInterrupt"),
        ("raise type('Odd', (BaseException,), {})('odd')", {"view": "acme=X"}, "Odd: odd"),
        ("import sqlalchemie", {"view": "acme=X"}, "No module named 'sqlalchemie'"),
        ("X = int", {"rule": "acme.a=X"}, "it lacks `rule` or `on`"),
        ("X = int", {"view": "acme=X"}, "it lacks one of name, version"),
        (RULE.format(id="R16", body="return ()"), {"rule": "R16=Broken"}, "its id 'R16' is not"),
        (RULE.format(id="r1", body="return ()"), {"rule": "r1=Broken"}, "its id 'r1' is not"),
        (RULE.format(id="acme.a", body="return ()"), {"rule": "acme.b=Broken"}, "the rule's id is acme.a"),
        (VIEW.format(name="people", table="t", body="pass"), {"view": "people=View"}, "has a view of that name"),
        (VIEW.format(name="a.g1", table="t", body="pass"), {"view": "a.g1=View"}, "lower-case word"),
        (VIEW.format(name="acme", table="progress", body="pass"), {"view": "acme=View"}, "keeps a table progress"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused_at_the_start(
    tmp_path: Path, source: str, points: dict[str, str], reason: str
) -> None:
    folder = package(tmp_path, "broken_package", source, **points)
    done = ledger(folder, tmp_path / "data", "up")
    assert done.returncode == 1
    assert "the package broken_package cannot be used" in done.stderr
    assert reason in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("source", ["import time; time.sleep(60)", "import time\nX = lambda: time.sleep(60)"])
def test_a_plugin_that_does_not_end_its_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Neither an import nor the making of a rule that waits for something keeps `up` from saying so."""
    module = f"acme_waits_{len(source)}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("app.runtime.plugins._START_SECONDS", 0.2)
    monkeypatch.setattr("app.runtime.plugins.entry_points", lambda group: [EntryPoint("acme.a", f"{module}:X", group)])
    begun = time.monotonic()
    with pytest.raises(PluginError, match=r"it has not ended after 0.2 s"):
        load_rules.__wrapped__()
    assert time.monotonic() - begun < 10


@pytest.mark.integration
def test_two_packages_with_one_name_are_refused(tmp_path: Path) -> None:
    source = RULE.format(id="acme.a", body="return ()")
    for name in ("first", "second"):
        package(tmp_path, name, source, rule="acme.a=Broken")
    said = ledger(tmp_path, tmp_path / "data", "up").stderr
    assert "the package second cannot be used" in said
    assert "the package first has one of that name" in said


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('broken')", "ValueError: broken"),
        ("raise SystemExit('out')", "SystemExit: out"),
        ("raise __import__('asyncio').CancelledError", "CancelledError"),
        ("yield RuleFinding('R1', 1, ('agent:A-1',), '', 'text', (1,))", "make findings with `Rule.finding`"),
        ("yield self.rule.finding(('agent:A-1',), '', 'text', [10**9])", "no evidence"),
        ("yield self.rule.finding(('A-1',), '', 'text', [1])", "names `agent:<id>`"),
        ("yield 1", "it returned a int"),
    ],
)
def test_a_rule_that_fails_is_reported_and_stops_no_other(
    body: str, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.nats.incidents._logged", {})
    rule = made(RULE.format(id="acme.a", body=body), "Broken")
    assert isinstance(rule, GuardRule)
    story = Story(Guard(plugins=[IsolatedRule("broken-package", rule)]))
    for number in range(6):
        story.gives(f"A-{number}", 10, customer="C-claims", order=f"O-{number}", reason=f"reason {number}")
    assert story.rules() == ["R10"]
    assert "the rule acme.a of the package broken-package failed" in caplog.text
    assert reason in caplog.text


def made(source: str, name: str) -> object:
    names: Document = {}
    exec(source, names)
    return names[name]()


@pytest.mark.integration
def test_a_view_that_fails_stops_alone_and_names_its_package(tmp_path: Path) -> None:
    wrong_sql = "connection.exec_driver_sql('SELECT missing FROM t')"
    for number, body in enumerate(("raise ValueError('broken')", wrong_sql, "raise SystemExit('out')")):
        source = VIEW.format(name=f"acme_{number}", table="t", body=body)
        package(tmp_path, f"broken_{number}", source, view=f"acme_{number}=View")
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps(BASIC_POLICY | {"default_role": "agent"}))
    act = ("--agent", "A-1", "--kind", "refund", "--reason", "late", "--amount", "5.00")
    for words in (("policy", str(policy), "--published-by", "owner"), ("action", *act)):
        assert ledger(tmp_path, tmp_path / "data", "decide", *words).returncode == 0
    assert len(items(tmp_path, tmp_path / "data", "report", "balances")) == 1
    for number, reason in enumerate(("ValueError: broken", "no such column: missing", "SystemExit: out")):
        done = ledger(tmp_path, tmp_path / "data", "report", "view", f"acme_{number}")
        assert done.returncode == 1
        assert f"the package broken_{number} failed: " in done.stderr
        assert reason in done.stderr, done.stderr
