"""The OpenAPI document is complete, and the API answers random requests as it describes (schemathesis)."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator, meta

from app.runtime.roles import running
from app.runtime.session import Session
from config.settings import load_settings
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from domain.events.facts import FACTS
from domain.serialization import FieldError, decode
from projections.published_schemas import json_schema, published_schema, schema_paths
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.http_api import dashboard_of, read_current
from tests.support.openapi import api_document, check_answer, validator_of
from tests.support.organisations import FULL_POLICY
from tests.support.upstreams import set_up_organisation, upstream_of

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "2")
"""For each operation; more by hand."""
PUBLISHED = {"ActionAnswer", "ActionPage", "ActionRequest", "Amount", "Answer", "Brief", "CloudEvent", "EventOutcome"}
PUBLISHED |= {"Login", "Preview", "Problem", "PublishedEvents", "Review", "Try"}
"""The schemas that generated clients name; a class may be renamed, its schema may not."""
RANGES = """
[checks]
enabled = true

[[operations]]
include-path-regex = "/api/v1/(accesses|balances|employees|names|actions|arrivals|escalations.*|flags|ideas|thanks|authority|obstacles|cases|policies|policies/change|preview|budgets|rejections|trail|summary|beyond-authority|consistency|unused-authority|what-if|webhooks|views/.*)$"
checks.positive_data_acceptance.enabled = false
"""
"""No schema says which cursors a list has made, that `from` comes before `to`, which time zones and currencies exist, how many digits a currency has, which types and addresses a webhook may have, or what a policy has to say."""
REPORTS = ("loyalty", "gap", "quality", "recognition", "summary")
NOT_TRIED = "/api/v1/stream"  # it never ends


@pytest.mark.timeout(900)  # a hundred operations, each by several kinds of requests
async def test_schemathesis_finds_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboard.auth.authorization._COMMAND_BURST", 1e9)
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream, FULL_POLICY)
        for number in range(3):
            await upstream.action(f"r-{number}", "10.00", agent_id="A-1", customer_id="C-1")
        async with running(session, ["projections", "seal", "dashboard"], where=ListenAddress(port=0)) as services:
            (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
            bearer = f"Authorization: Bearer {dashboard.token}"
            async with httpx.AsyncClient(base_url=dashboard.address, timeout=20) as client:
                client.headers["Authorization"] = bearer.partition(": ")[2]
                for name in ("actions", "trail", "flags", "loyalty", "gap", "quality", "recognition"):
                    await read_current(client, name)
                complete((await client.get("/openapi.json")).json())
            (session.data_dir / "schemathesis.toml").write_text(RANGES)
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "run",
                f"{dashboard.address}/openapi.json",
                "-H",
                bearer,
                "--exclude-path",
                NOT_TRIED,
                "--max-examples",
                EXAMPLES,
                "--seed",
                "1",
                "--suppress-health-check",
                "all",
                "--no-color",
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=session.data_dir,
            )
            said, _ = await asyncio.wait_for(child.communicate(), 800)
        assert child.returncode == 0, "\n".join(line[:400] for line in said.decode().splitlines())[-9000:]


def complete(document: Document) -> None:
    """Assert that published schemas keep their names, and that each operation documents its answers and errors."""
    assert document["components"]["schemas"].keys() >= PUBLISHED
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            assert one.get("summary"), (method, path)
            good = [answer for status, answer in one["responses"].items() if status.startswith("2")]
            assert good, (method, path)
            assert all("schema" in kind for answer in good for kind in answer.get("content", {}).values()) or (
                path in {NOT_TRIED, "/metrics"}
            ), (method, path)
            assert {"401", "422", "503"} <= one["responses"].keys(), (method, path)
            asks_again = any(parameter["name"] == "If-None-Match" for parameter in one.get("parameters", ()))
            assert asks_again == ("304" in one["responses"]), (method, path)


@pytest.mark.parametrize("name", api_document()["components"]["schemas"])
def test_each_field_has_a_description_and_a_valid_example(name: str) -> None:
    schema = api_document()["components"]["schemas"][name]
    assert schema["description"]
    fields = schema.get("properties", {}) if name != "CloudEvent" else {}  # its example is the whole event
    for part in (schema, *fields.values()):
        assert part.get("description"), part
        assert part["examples"], part
        validator = validator_of(json.dumps(part))
        assert [one.message for example in part["examples"] for one in validator.iter_errors(example)] == []


def enumerations(part: Any, *, is_open: bool = False) -> Iterator[tuple[list[str], bool]]:
    """Yield the lists of known texts in a schema, and whether each stands beside any other text."""
    if isinstance(part, dict):
        if "enum" in part and all(isinstance(value, str) for value in part["enum"]):
            yield part["enum"], is_open
        for name, inner in part.items():
            opens = name == "anyOf" and {"type": "string"} in inner
            for one in inner if isinstance(inner, list) else [inner]:
                yield from enumerations(one, is_open=opens)


def test_answers_allow_values_of_a_later_version_and_requests_do_not() -> None:
    document = api_document()
    schemas = document["components"]["schemas"]
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    inputs = json.dumps([(one.get("requestBody"), one.get("parameters")) for one in operations])
    requests = set(re.findall(r"schemas/(\w+)", inputs))
    found = {name: [*enumerations(schema)] for name, schema in schemas.items()}
    assert {name for name, some in found.items() if some} >= {"ActionAnswer", "ActionRequest", "ActionRow", "Problem"}
    for name, some in found.items():
        assert all(is_open == (name not in requests) for _, is_open in some), name
    fact, record = json_schema("resolution.action.reported.v1"), json_schema("resolution.flag.reviewed.v1")
    assert {is_open for _, is_open in enumerations(fact)} == {False}
    assert {is_open for _, is_open in enumerations(record)} == {True}


def test_each_parameter_has_a_description_and_a_valid_example() -> None:
    for path, methods in api_document()["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], (method, path)
                validator = validator_of(json.dumps(parameter["schema"]))
                assert validator.is_valid(parameter["example"]), (method, path, parameter)


def test_each_operation_has_a_name_of_its_own_and_describes_errors_as_problems() -> None:
    operations = [one for methods in api_document()["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for one in operations:
        errors = {status: answer for status, answer in one["responses"].items() if status >= "400"}
        kinds = {json.dumps(answer["content"]) for answer in errors.values()}
        assert kinds == {'{"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}'}


@pytest.mark.integration
def test_openapi_python_client_generates_a_typed_client_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(api_document()))
    command = [str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--fail-on-warning"]
    done = subprocess.run(
        [*command, "--path", "openapi.json", "--output-path", "client", "--meta", "none"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    page = (tmp_path / "client" / "models" / "action_page.py").read_text()
    assert "items: list[ActionRow]" in page
    assert (tmp_path / "client" / "api" / "sources" / "post_decisions_action.py").exists()
    program = (
        "from client.models import ActionAnswer as A; print(A.from_dict({'outcome': 'of a later version'}).outcome)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "of a later version", done.stderr


@pytest.mark.integration
async def test_every_answer_about_an_earlier_ledger_is_as_its_schema_says(tmp_path: Path) -> None:
    """The golden ledger holds events of every kind; each list and report of it is compared with the document."""
    with tarfile.open(ROOT / "tests" / "golden" / "ledger.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    settings = load_settings({"data_dir": str(tmp_path / "ledger")}, {})
    async with Session(settings) as session, dashboard_of(session) as client:
        for name in ("balances", "actions", "escalations", "flags", "cases", "trail", *REPORTS):
            await read_current(client, name)
        for path in (
            "projections",
            "me",
            "sources",
            "policies",
            "rejections?source=crm",
            "events/3",
            "summary?by=team",
        ):
            assert (await client.get(f"/api/v1/{path}")).status_code == 200
        for form in ("actions?as_of=100", "trail?from=2025-03&limit=3", "escalations?order=asc"):
            assert (await client.get(f"/api/v1/{form}")).status_code == 200
        for action in (await client.get("/api/v1/actions?limit=1000")).json()["items"]:
            assert (await client.get(f"/api/v1/explain/{action['action_id']}")).status_code == 200


@pytest.mark.integration
async def test_an_answer_with_an_undescribed_field_is_noticed() -> None:
    request = httpx.Request("GET", "http://127.0.0.1/api/v1/session")
    await check_answer(httpx.Response(200, json={"known": False, "openid": False, "caller": None}, request=request))
    with pytest.raises(AssertionError, match="otherwise than its schema says"):
        await check_answer(
            httpx.Response(200, json={"known": False, "openid": False, "caller": None, "new": 1}, request=request)
        )


@pytest.mark.parametrize("path", schema_paths())
def test_each_published_schema_is_valid_and_its_fields_are_described(path: str) -> None:
    schema: Document = json.loads(json.dumps(published_schema(path)))
    assert (schema["$schema"], schema["$id"]) == ("https://json-schema.org/draft/2020-12/schema", f"/schemas/{path}")
    assert meta.is_valid(schema)
    validator = Draft202012Validator(schema, validate_formats=True)
    assert [one.message for example in schema["examples"] for one in validator.iter_errors(example)] == []
    for part in (schema, *schema["$defs"].values()):
        for name, field in part.get("properties", {}).items():
            assert field.get("description"), (path, name)
            assert field.get("examples"), (path, name)


@pytest.mark.integration
async def test_every_event_of_an_earlier_ledger_is_as_the_schema_of_its_type_says(tmp_path: Path) -> None:
    with tarfile.open(ROOT / "tests" / "golden" / "ledger.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    settings = load_settings({"data_dir": str(tmp_path / "ledger")}, {})
    found: Counter[str] = Counter()
    async with Session(settings) as session:
        for position in range(1, await session.log.last_position() + 1):
            recorded = await session.log.at(position)
            assert recorded is not None
            stored = json.loads(recorded.data)
            schema = json.dumps(published_schema(f"events/{stored['type']}.json"))
            faults = [one.message for one in Draft202012Validator(json.loads(schema)).iter_errors(stored)]
            assert faults == [], (position, stored["type"], faults)
            found[stored["type"]] += 1
    assert len(found) > 30


@settings_of_hypothesis(max_examples=150)
@given(data=st.data())
def test_facts_that_the_ledger_accepts_are_valid_and_others_are_refused_by_both(data: st.DataObject) -> None:
    """Valid facts are drawn from the classes; one field then gets a value that no type allows."""
    name = data.draw(st.sampled_from(sorted(FACTS)))
    cls = FACTS[name]
    schema = json.loads(json.dumps(published_schema(f"events/{name}.json")))
    example: Document = schema["examples"][0]
    required = {field.name for field in msgspec.structs.fields(cls) if field.required}
    optional = sorted(example["data"].keys() - required)
    kept = required | set(data.draw(st.lists(st.sampled_from(optional), unique=True)) if optional else [])
    fact = {field: value for field, value in example["data"].items() if field in kept}
    if name == "resolution.refund.settled.v1":
        fact["action_id"] = "act-1"
    validator = Draft202012Validator(schema, validate_formats=True)
    decode(cls, json.dumps(fact))
    assert validator.is_valid(example | {"data": fact})
    field = data.draw(st.sampled_from(sorted(fact.keys() - {"data"})))
    wrong = {**fact, field: {"no": "such value"}}
    assert not validator.is_valid(example | {"data": wrong})
    with pytest.raises(FieldError):
        decode(cls, json.dumps(wrong))


@pytest.mark.integration
async def test_schemas_are_read_by_path_with_any_token(session: Session) -> None:
    async with upstream_of(session), dashboard_of(session) as client:
        listed = (await client.get("/schemas")).json()["items"]
        assert "/schemas/events/resolution.purchase.completed.v1.json" in listed
        answer = await client.get("/schemas/messages/ActionRequest.json")
        assert (answer.headers["content-type"], answer.json()) == (
            "application/schema+json",
            json.loads(json.dumps(json_schema("ActionRequest"))),
        )
        assert (await client.get("/schemas/messages/None.json")).status_code == 404
