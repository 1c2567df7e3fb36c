"""Documents say what is so: generated ones are current, every type and code is named."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import msgspec
import pytest

from app.cli.main import cli
from benchmarks.compare import markdown
from benchmarks.reference import with_table
from consumers.asyncapi import asyncapi_document, asyncapi_text
from consumers.decisions.pending_request import COMMANDS
from dashboard.metric_families import FAMILIES, PREFIX
from domain.abuse import guard
from domain.command_fields import known_fields
from domain.decisions.decide import COMMAND_HANDLERS
from domain.documents.replies import ErrorCode
from domain.events.decisions import RECORDS
from domain.events.facts import FACTS
from domain.serialization import personal_fields
from tests.support.command_reference import command_reference
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment
from tests.support.nats_servers import Server
from tests.support.policy_reference import rule_lines, rule_tables


def test_the_reference_of_commands_is_current() -> None:
    assert (ROOT / "docs" / "reference" / "commands.md").read_text() == command_reference(), "run `make docs`"


def test_the_asyncapi_document_is_current() -> None:
    written = asyncapi_text()
    assert json.loads(written) == json.loads(json.dumps(asyncapi_document()))
    assert (ROOT / "docs" / "reference" / "asyncapi.json").read_text() == written, "run `make docs`"


def test_the_tables_of_rules_are_current() -> None:
    assert f"\n{rule_tables()}\n" in (ROOT / "docs" / "understand" / "policy.md").read_text(), "run `make docs`"


def test_the_tables_of_rules_have_every_reason_and_every_command() -> None:
    codes = {code for path in (ROOT / "domain").rglob("*.py") for code in re.findall(r'rule="(\w+)"', path.read_text())}
    shown = [line.shown for line in rule_lines()]
    assert {reason.rule for one in shown for reason in one.reasons} >= codes - {"currency"}  # a shadow's own
    assert {type(one.command) for one in shown} == set(COMMAND_HANDLERS)
    assert {one.outcome for one in shown} >= {"taken", "held", "done", "escalate", "refused", "error"}


def sections(page: Path) -> dict[str, str]:
    """Return a page's text below each heading, by the heading."""
    found = re.split(r"^##+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_every_fact_and_field_is_documented() -> None:
    found = sections(ROOT / "docs" / "integrate" / "fact-types.md")
    for name, cls in FACTS.items():
        rows = re.findall(r"^\| (`|\*)(\w+)\1 \| [^|]+ \| (yes|no) \|", found[f"`{name}`"], re.MULTILINE)
        personal = {field for mark, field, _ in rows if mark == "*"}
        assert {field: required == "yes" for _, field, required in rows} == {
            field.name: field.required for field in msgspec.structs.fields(cls)
        }, name
        assert personal == personal_fields(cls), name
        assert re.findall(r'"type": "(.+?)"', found[f"`{name}`"]) == [name]


def test_every_event_of_the_ledger_and_each_field_is_documented() -> None:
    found = sections(ROOT / "docs" / "integrate" / "recorded-types.md")
    rows = re.compile(r"^\| (`|\*)(\w+)\1(\??) \|", re.MULTILINE)
    common = {field: not mark for _, field, mark in rows.findall(found["Common fields"])}
    for name, cls in RECORDS.items():
        own = rows.findall(found[f"`{name}`"])
        documented = {field: not mark for _, field, mark in own}
        required = {field.name: field.required for field in msgspec.structs.fields(cls)}
        assert documented | (common if "request_id" in required else {}) == required, name
        assert {field for mark, field, _ in own if mark == "*"} == personal_fields(cls), name


def test_every_code_is_documented() -> None:
    text = (ROOT / "docs" / "integrate" / "errors.md").read_text()
    for path in [
        *(ROOT / "consumers").rglob("*.py"),
        *(ROOT / "domain").rglob("*.py"),
        ROOT / "ledger" / "store" / "cloudevents.py",
    ]:
        source = path.read_text()
        codes = re.findall(r'(?:EventError|RequestError|Rejection|_RejectedError)\(\s*"(\w+)"', source)
        codes += re.findall(r'rule="(\w+)"', source)
        for code in codes:
            if code != "unknown_operation":
                assert f"| `{code}`" in text or f", `{code}`" in text, (path.name, code)


def test_the_codes_of_answers_are_those_of_the_page_of_errors() -> None:
    found = sections(ROOT / "docs" / "integrate" / "errors.md")
    rows = [
        line.split("|")[1]
        for name in ("Rejected facts", "Requests")
        for line in found[name].splitlines()
        if line.startswith("| `")
    ]
    assert {code for row in rows for code in re.findall(r"`(\w+)`", row)} == set(get_args(ErrorCode))


def test_every_field_of_a_request_is_documented() -> None:
    page = (ROOT / "docs" / "integrate" / "decisions.md").read_text()
    for command in COMMANDS.values():
        for cls in command.values() if isinstance(command, dict) else [command]:
            missing = [name for name in known_fields(cls) if not re.search(rf"[`\"]{name}[`\"]", page)]
            assert not missing, cls


def test_every_path_of_the_http_api_is_documented() -> None:
    page = (ROOT / "docs" / "integrate" / "http.md").read_text()
    for path in (ROOT / "dashboard" / "routes").glob("*.py"):
        for route in re.findall(r'@api\.\w+\(\s*"(/(?:api|metrics|healthz|readyz|openapi)[^"]*)"', path.read_text()):
            shown = route.removeprefix("/api/v1").replace(":path}", "}")
            assert re.search(rf"(?:`|v1){re.escape(shown)}`", page), route


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "operate" / "monitor.md").read_text()
    table = re.findall(rf"^\| `{PREFIX}(\w+)` \| (\w+) \| (.*)\| (.+) \|$", page, re.MULTILINE)
    shown = {name: (kind, meaning, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, meaning in table}
    assert shown == FAMILIES


def test_every_subject_and_schema_is_in_the_asyncapi_document() -> None:
    document: Document = json.loads(json.dumps(asyncapi_document()))
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses >= {
        "resolution.inbox.{source}",
        "resolution.decide.{source}.action",
        "resolution.decide.{source}.preview",
        "resolution.decide.{source}.budget",
        "resolution.decide.{source}.policy",
        "resolution.read.{source}.receipt",
        "resolution.views.budget_balances",
        "resolution.views.loyalty_effects",
        "resolution.views.audit_trail",
        "resolution.read.{source}.brief",
        "resolution.decide.{source}.hold",
        "resolution.decide.{source}.reversal",
        "resolution.decide.{source}.escalation",
        "resolution.notify.escalation.{source}",
        "resolution.views.casework",
    }
    assert document["channels"]["inbox"]["messages"].keys() == FACTS.keys()
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        place = document
        for part in reference.split("/"):
            place = place[part]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {
        re.sub(r"[^\w -]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", one).lower()).replace(" ", "-") for one in headings
    }


def test_links_in_documents_lead_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^)#:]*)\)", path.read_text()):
            page = path.parent / target if target else path
            assert page.exists(), (path.name, target)
            assert not anchor or anchor in anchors(page), (path.name, target, anchor)


def test_the_table_of_figures_is_the_reference_run() -> None:
    page = (ROOT / "docs" / "understand" / "performance.md").read_text()
    reference = json.loads((ROOT / "benchmarks" / "reference.json").read_text())
    assert with_table(page, markdown(reference)) == page, "run `make bench-reference`"
    unmet = [result["name"] for result in reference["results"] if not result["met"]]
    assert all(f"Target missed: {name}" in " ".join(page.split()) for name in unmet), unmet


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("git") is None, reason="no git, which says what belongs to the repository")
def test_nothing_names_a_registrys_host() -> None:
    hosts = re.compile(r"py" + r"pi\.org|python" + r"hosted\.org|registry\.npm" + r"js|deb\.debian\.org")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in listed:
        assert not hosts.search((ROOT / name).read_text(errors="replace")), name


@pytest.mark.integration
def test_the_eventsourcing_pages_code_runs(tmp_path: Path) -> None:
    """Its server's configuration, its settings and its programs; what it says that they print."""
    page = (ROOT / "docs" / "integrate" / "eventsourcing.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (config,) = [text for language, text in blocks if language == "conf"]
    printed = [text for language, text in blocks if language == "text"]
    (exports,) = [text for language, text in blocks if language == "sh"]
    programs = [text for language, text in blocks if language == "python"]
    with Server(tmp_path, config.replace('"./nats-data"', f'"{tmp_path}/data"'), jetstream="") as server:
        settings = dict(re.findall(r"export (\w+)=(\S+)", exports)) | {"NATS_URL": server.url}
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(programs)],
            cwd=tmp_path,
            text=True,
            check=False,
            timeout=60,
            env=clean_environment() | settings | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
        )
    assert done.stdout == "".join(printed), done.stderr


def test_every_setting_of_the_persistence_module_is_documented() -> None:
    source = (ROOT / "ledger" / "persistence.py").read_text()
    page = (ROOT / "docs" / "integrate" / "eventsourcing.md").read_text()
    for name in set(re.findall(r'"(NATS_[A-Z_]+|CREATE_TABLE)"', source)):
        assert f"`{name}`" in page, name
        assert re.search(rf"\b{name}\b", source.split('"""')[1]), name


def test_the_table_of_the_guards_rules_is_current() -> None:
    page = (ROOT / "docs" / "understand" / "guard.md").read_text()
    clocks = {"counting": {*guard.COUNTING}, "statistical": {*guard.STATISTICAL}, "absence": {*guard.ABSENCE}}
    clocks["waiting"] = {*guard.WAITING}
    for name, rule in guard.RULES.items():
        clock = ", ".join(word for word, rules in clocks.items() if name in rules)
        values = {key: "/".join(one) if isinstance(one, tuple) else one for key, one in rule.parameters.items()}
        parameters = ", ".join(f"`{key}` {value}" for key, value in values.items()) or "none"
        row = rf"^\| {name} \| {rule.pattern} \| {clock} \| .+ \| {re.escape(parameters)} \|$"
        assert re.search(row, page, re.MULTILINE), row


def test_every_decision_is_in_the_index() -> None:
    lines = (ROOT / "docs" / "decisions" / "README.md").read_text().splitlines()
    for path in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        if path.name != "README.md":
            for heading in re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE):
                anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
                assert f"- [{heading}]({path.name}#{anchor})" in lines, path.name


def test_paths_of_code_in_documents_exist() -> None:
    rooms = "app|benchmarks|config|consumers|dashboard|domain|ledger|projections|resolution_ledger|tests"
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        if path.name != "CHANGELOG.md":
            for number, line in enumerate(path.read_text().splitlines(), 1):
                for target, name in re.findall(rf"`((?:{rooms})/[\w./-]+)`(?: \(`(\w+)`\))?", line):
                    place = f"{path.relative_to(ROOT)}:{number}: {target} {name}"
                    assert (ROOT / target).exists(), place
                    definition = re.compile(rf"^(?: *(?:async )?(?:def|class) )?{name}\b", re.MULTILINE)
                    assert not name or definition.search((ROOT / target).read_text()), place


def commands_in(text: str) -> list[list[str]]:
    """Return the words of each command in code: `resolution-ledger audit trail --agent A-7`, or without the program."""
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^resolution-ledger .+$", text, re.MULTILINE)
    words = [re.split(r"\s[#|>&]|[;,](?:\s|$)", one)[0].removeprefix("resolution-ledger ").split() for one in code]
    names = cli.list_commands(click.Context(cli))
    return [one for one in words if one and one[0] in names]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that these words name, and its arguments and options."""
    command: click.Command = cli
    while words and isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found, f"no command {words[0]}"
        command, words = found, words[1:]
    return command, words


def test_commands_in_documents_exist() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for words in [] if path.name == "CHANGELOG.md" else commands_in(path.read_text()):
            command, rest = command_of(words)
            known = {name for option in command.params for name in option.opts} | {"--help"}
            unknown = [word for word in rest if re.match(r"--\w", word) and word.split("=")[0] not in known]
            assert not unknown, (path.name, words, unknown)
