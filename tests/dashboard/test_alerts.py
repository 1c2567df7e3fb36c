"""Alert rules and the Grafana dashboard fit the metrics that are exported, and each alert has its page."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import promql_parser as promql
import pytest
import yaml
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from config.topology import ROLES
from dashboard.metric_families import FAMILIES, PREFIX
from domain.documents.replies import ErrorCode
from tests.support.documents import Document
from tests.support.environment import ROOT

PAGE = "docs/operate/alerts.md"
RULES: list[Document] = [
    rule
    for group in yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: Document = json.loads((ROOT / "config" / "grafana" / "resolution-ledger.json").read_text())
QUERIES = [
    (panel["title"], target["expr"], target["legendFormat"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
EXPORTED: dict[str, set[str]] = {}
"""Name of a series -> its labels; tests/dashboard/test_metrics.py compares ``FAMILIES`` with a scrape."""
for family_name, family in FAMILIES.items():
    suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
    EXPORTED |= {PREFIX + family_name + suffix: {*family.labels} for suffix in suffixes}
    if family.kind == "histogram":
        EXPORTED[f"{PREFIX}{family_name}_bucket"].add("le")
VALUES = {
    "role": {*ROLES},
    "code": {"", *get_args(ErrorCode)},
    "status": {f"{number}xx" for number in range(1, 6)},
    "outcome": {"taken", "held", "escalate", "refused", "done", "error"},
}
"""The values that a query may compare a label with."""


CONFIG = ROOT / "config"
COMPOSE: Document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def parts(expression: str) -> Iterator[Any]:
    """Yield each part of a query, as Prometheus's grammar reads it; it refuses wrong types, such as a rate of no range."""
    found: list[Any] = []
    promql.walk(promql.parse(expression.replace("$__rate_interval", "5m")), found.append)
    yield from found


def labels_of(expression: str) -> set[str]:
    """Check the metrics and labels of a query against those that are exported; return the labels of its result."""
    selectors = [one for one in parts(expression) if isinstance(one, promql.VectorSelector)]
    assert selectors
    labels = set[str]()
    for selector in selectors:
        assert selector.name in EXPORTED, f"no metric {selector.name}"
        labels |= EXPORTED[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in EXPORTED[selector.name], f"{selector.name} has no label {matcher.name}"
            assert {*matcher.value.split("|")} <= VALUES[matcher.name], matcher
    sums = [one for one in parts(expression) if isinstance(one, promql.AggregateExpr)]
    for one in sums:
        by = {*one.modifier.labels} if one.modifier else set[str]()
        assert by <= labels, f"no metric of {expression} has the labels {by - labels}"
        labels = by
    return labels - {"le"}


def headings(page: Path) -> dict[str, str]:
    """Return the headings of a page by their anchors."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-"): one for one in found}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_about_exported_metrics_and_has_a_page(rule: Document) -> None:
    """A comparison with a number ends each rule, or `absent`: otherwise it would fire for ever."""
    top = promql.parse(rule["expr"])
    assert isinstance(top, promql.BinaryExpr | promql.Call)
    if isinstance(top, promql.Call):
        assert top.func.name == "absent"
    else:
        assert isinstance(top.rhs, promql.NumberLiteral | promql.BinaryExpr)
        assert str(top.op) in {">", "<"}, top.op
    assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[1-9]\d*[smh]", rule["for"])
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "runbook_url"}
    named = {*re.findall(r"\$labels\.(\w+)", notes["summary"])}
    assert named == labels_of(rule["expr"])
    file, _, anchor = notes["runbook_url"].partition("#")
    assert file == PAGE
    assert headings(ROOT / file)[anchor] == rule["alert"]


def test_each_section_of_the_page_is_of_an_alert_and_tells_what_to_do() -> None:
    text = (ROOT / PAGE).read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == [rule["alert"] for rule in RULES]
    for name, section in sections.items():
        assert re.findall(r"^\*\*(.+?)\*\*", section, re.MULTILINE) == ["Meaning", "Look first", "Do"], name


@pytest.mark.parametrize(("title", "expression", "legend"), QUERIES, ids=lambda value: value[:40])
def test_a_panel_shows_exported_metrics(title: str, expression: str, legend: str) -> None:
    named = {*re.findall(r"{{(\w+)}}", legend)}
    assert named == labels_of(expression), title


def test_panels_have_numbers_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (column, line)
        for panel in panels
        for at in [panel["gridPos"]]
        for column in range(at["x"], at["x"] + at["w"])
        for line in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(column for column, _ in places) < 24


def unread(document: Any, read: Any, path: str = "") -> Iterator[str]:
    """Yield the places of a document that are missing or different in what was read of it."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from unread(value, read.get(name), f"{path}/{name}") if name in read else (f"{path}/{name}",)
    elif isinstance(document, list):
        assert len(document) == len(read), path
        for at, value in enumerate(document):
            yield from unread(value, read[at], f"{path}/{at}")
    elif document != read:
        yield path


def test_grafanas_own_types_know_every_part_of_the_dashboard() -> None:
    """No registry has Grafana itself; its makers' classes read the file, and drop what they do not know."""
    register_default_plugins()

    def plain(value: object) -> Any:
        return json.loads(
            json.dumps(value, default=lambda one: one.to_json() if hasattr(one, "to_json") else one.value)
        )

    assert [*unread(DASHBOARD, plain(Dashboard.from_json(DASHBOARD)))] == []
    panels = [*DASHBOARD["panels"], {"type": "stat", "datasauce": {}}]
    wrong = DASHBOARD | {"refesh": "30s", "panels": panels}
    found = [*unread(wrong, plain(Dashboard.from_json(wrong)))]
    assert found == [f"/panels/{len(panels) - 1}/datasauce", "/refesh"]


def test_grafana_finds_its_sources_and_the_dashboard() -> None:
    grafana = COMPOSE["grafana"]
    folder = CONFIG / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "ledger.yml").read_text())["datasources"]
    metrics, views = sources
    assert [metrics["type"], metrics["url"], metrics["isDefault"]] == ["prometheus", "http://prometheus:9090", True]
    assert [views["url"], views["user"], views["jsonData"]["database"]] == ["postgres:5432", "grafana", "ledger"]
    (variable,) = views["secureJsonData"].values()
    assert variable.removeprefix("$") in grafana["environment"]
    assert f"NAME {variable}".endswith("_READER_PASSWORD")
    assert "CREATE ROLE grafana LOGIN" in (CONFIG / "postgresql" / "roles.sql").read_text()
    (provider,) = yaml.safe_load((folder / "dashboards" / "ledger.yml").read_text())["providers"]
    places = [volume.removesuffix(":ro").partition(":")[::2] for volume in grafana["volumes"]]
    assert ("./config/grafana/provisioning", "/etc/grafana/provisioning") in places
    assert (
        "./config/grafana/resolution-ledger.json",
        f"{provider['options']['path']}/resolution-ledger.json",
    ) in places
    (choice,) = DASHBOARD["templating"]["list"]
    assert choice["query"] == metrics["type"]


def test_prometheus_reads_both_dashboards_and_the_rules() -> None:
    config = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    (job,) = config["scrape_configs"]
    targets = [target for group in job["static_configs"] for target in group["targets"]]
    dashboards = {name: one["command"] for name, one in COMPOSE.items() if "dashboard" in one.get("command", ())}
    assert targets == [f"{name}:{words[words.index('--port') + 1]}" for name, words in dashboards.items()]
    assert all(words[words.index("--allowed-host") + 1] == name for name, words in dashboards.items())
    folder, _, name = job["authorization"]["credentials_file"].rpartition("/")
    assert f"secrets:{folder}:ro" in COMPOSE["prometheus"]["volumes"]
    assert f"> {folder}/{name}" in COMPOSE["metrics-token"]["command"][0]


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool, which Debian's package prometheus has")
def test_prometheus_itself_reads_its_configuration_and_the_rules(tmp_path: Path) -> None:
    for path in (CONFIG / "prometheus").glob("*.yml"):
        (tmp_path / path.name).write_text(path.read_text().replace("/secrets/", f"{tmp_path}/"))
    (tmp_path / "prometheus.token").write_text("rl-auditor-x")
    words = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(RULES)} rules found" in done.stdout
    (tmp_path / "alerts.yml").write_text((tmp_path / "alerts.yml").read_text().replace("for: 2m", "for: 2 minutes", 1))
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0


ROLE_ALERTS = [
    (2, 0, 1, 10, ""),
    (2, 0, 0, 10, "ResolutionLedgerRoleIdle"),
    (2, 1, 0, 10, "ResolutionLedgerRoleIdle"),
    (2, 1, 1, 10, ""),
    (1, 1, 0, 1, ""),
    (1, 1, 0, 10, "ResolutionLedgerRoleMissing"),
    (0, 0, 0, 10, "ResolutionLedgerRoleMissing"),
    (0, None, 0, 10, "ResolutionLedgerRoleMissing"),
    (2, None, 0, 10, "ResolutionLedgerRoleIdle"),
    (2, None, 1, 10, ""),
]
"""Processes of a role, those that are starting (None: an earlier dashboard), those that work; minutes; the alert or none."""


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool, which Debian's package prometheus has")
def test_alerts_on_roles_tell_a_start_from_a_standby(tmp_path: Path) -> None:
    cases = []
    for processes, starting, working, minutes, alert in ROLE_ALERTS:
        counts = {"processes": processes, "starting": starting, "working": working}
        series = {f'resolution_ledger_role_{name}{{role="decisions"}}': count for name, count in counts.items()}
        expected = []
        for rule in (one for one in RULES if "role_processes" in one["expr"]):
            annotations = rule["annotations"]
            text = annotations["summary"].replace("{{ $labels.role }}", "decisions")
            fired = {
                "exp_labels": rule["labels"] | {"role": "decisions"},
                "exp_annotations": annotations | {"summary": text},
            }
            alerts = [fired] if rule["alert"] == alert else []
            expected.append({"eval_time": f"{minutes}m30s", "alertname": rule["alert"], "exp_alerts": alerts})
        inputs = [{"series": name, "values": f"{count}x60"} for name, count in series.items() if count is not None]
        cases.append({"interval": "15s", "input_series": inputs, "alert_rule_test": expected})
    rules = str(CONFIG / "prometheus" / "alerts.yml")
    document = {"rule_files": [rules], "evaluation_interval": "15s", "tests": cases}
    (tmp_path / "test.yml").write_text(json.dumps(document), encoding="utf-8")
    words = ["promtool", "test", "rules", str(tmp_path / "test.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
