"""docker-compose.yml: valid, without default passwords, and its services work (run here as processes)."""

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from app.runtime.roles import ROLES
from ledger.errors import UnavailableError
from ledger.nats.client import connect
from ledger.nats.embedded_server import find_binary
from tests.support import forked_cli
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment
from tests.support.organisations import BASIC_POLICY
from tests.support.waiting import eventually

COMPOSE: Document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.mark.integration
def test_the_compose_file_fits_the_compose_schema() -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*checker, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_role_is_a_service_and_its_port_is_published() -> None:
    commands = [service["command"] for service in COMPOSE["services"].values() if service["command"][0] == "run"]
    assert {word for command in commands for word in command} >= set(ROLES)
    dashboard = COMPOSE["services"]["dashboard"]
    assert dashboard["ports"] == [f"127.0.0.1:8321:{dashboard['command'][dashboard['command'].index('--port') + 1]}"]


def test_no_password_has_a_default_and_every_service_is_watched() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert re.findall(r"\$\{\w+\}|\$\{\w+:-", text) == []
    assert len(re.findall(r"PASSWORD:\?", text)) == 6
    for name, service in COMPOSE["services"].items():
        assert name == "init" or service["healthcheck"]["test"], name
        assert service["volumes"], name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_the_server_syncs_always_and_its_passwords_come_from_the_environment() -> None:
    text = (ROOT / "config" / "nats" / "nats-server.conf").read_text()
    assert "sync_interval: always" in text
    names = set(re.findall(r"password: \$(\w+)", text))
    assert names == set(COMPOSE["services"]["nats"]["environment"])
    example = (ROOT / "config" / "nats" / "passwords.example").read_text()
    assert names == set(re.findall(r"^(\w+)=$", example, re.MULTILINE))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Run the services of docker-compose.yml as processes: the server and every role."""
    port, passwords = (
        free_port(),
        {name: f"p@/%41{secrets.token_hex(8)}" for name in COMPOSE["services"]["nats"]["environment"]},
    )
    words = COMPOSE["services"]["nats"]["command"]
    words = [
        str(ROOT / "config" / "nats" / "nats-server.conf") if "nats-server.conf" in word else word for word in words
    ]
    words[words.index("/data")] = str(tmp_path / "nats")
    words[words.index("8222")] = str(free_port())
    command = [str(find_binary(None)), *words, "-a", "127.0.0.1", "-p", str(port)]
    processes = [subprocess.Popen(command, env=passwords, stderr=(tmp_path / "nats.log").open("w"))]
    environment = (
        clean_environment()
        | COMPOSE["x-role"]["environment"]
        | {
            "RESOLUTION_LEDGER_DATA_DIR": str(tmp_path / "data"),
            "RESOLUTION_LEDGER_NATS_URL": f"nats://127.0.0.1:{port}",
            "RESOLUTION_LEDGER_NATS_PASSWORD": passwords["RESOLUTION_LEDGER_PASSWORD"],
        }
    )
    for _ in range(100):
        done = run(environment, *COMPOSE["services"]["init"]["command"])
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    api = free_port()
    for service in COMPOSE["services"].values():
        if service["command"][0] == "run":
            role = [sys.executable, "-m", "app", *service["command"]]
            role = [{"0.0.0.0": "127.0.0.1", "8321": str(api)}.get(word, word) for word in role]
            processes.append(subprocess.Popen(role, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL))
    upstream = f"nats://upstream:{quote(passwords['RESOLUTION_LEDGER_UPSTREAM_PASSWORD'], safe='')}@127.0.0.1:{port}"
    yield environment | {"upstream": upstream, "http": f"http://127.0.0.1:{api}"}
    for process in reversed(processes):
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.timeout(600)
@pytest.mark.integration
async def test_the_compose_services_take_in_decide_and_report(composed: dict[str, str], tmp_path: Path) -> None:
    upstream = await connect(composed["upstream"], "test", wait_seconds=20)

    async def ask(subject: str, body: Document) -> Document:
        reply = await eventually(  # the services may not be up yet
            lambda: upstream.request(subject, json.dumps(body).encode(), timeout=5),
            timeout_seconds=180,
            passing=(Exception,),
            every_seconds=0.1,
        )
        answer: Document = json.loads(reply.data)
        return answer

    (tmp_path / "policy.json").write_text(json.dumps(BASIC_POLICY | {"default_role": "agent"}))
    action = {"request_id": "r-1", "agent_id": "A-1", "kind": "refund", "amount": gbp("5.00"), "reason": "late"}
    refused = await ask("resolution.decide.crm.action", action)
    assert refused["error"]["code"] == "source_not_allowed"  # nobody has registered it
    for words in (
        ("admin", "sources", "add", "crm", "--profile", "desk"),
        ("decide", "policy", str(tmp_path / "policy.json"), "--published-by", "owner"),
    ):
        done = await asyncio.to_thread(run, composed, *words)
        assert done.returncode == 0, done.stderr
    fact = event("p-1", "purchase.completed", order_id="O-1", total=gbp("5.00"))
    assert "seq" in await ask("resolution.inbox.crm", fact)
    assert (await ask("resolution.decide.crm.action", action))["outcome"] == "taken"
    await eventually(
        lambda: ask("resolution.read.crm.receipt", {"id": "p-1"}), lambda receipt: receipt["status"] == "recorded", 60
    )
    await upstream.close()
    balances = await asyncio.to_thread(run, composed, "report", "balances", "--json")
    assert json.loads(balances.stdout)["items"][0]["spent"] == gbp("5.00")
    await eventually(lambda: asyncio.to_thread(reads, f"{composed['http']}/healthz"), lambda status: status == 200, 60)
    assert await asyncio.to_thread(reads, f"{composed['http']}/") == 200
    doctor = await asyncio.to_thread(run, composed, "admin", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    for name, service in COMPOSE["services"].items():
        if service["command"][0] == "run":
            health = await asyncio.to_thread(run, composed, *service["healthcheck"]["test"][2:])
            assert health.returncode == 0, (name, health.stdout)
    beside = await asyncio.to_thread(run, composed, "publish", "-", "--json", stdin=json.dumps(fact))
    assert json.loads(beside.stdout)["duplicate"] == 1


def reads(url: str) -> int:
    """Return the status of a GET; 0 while nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.URLError:
        return 0


def run(environment: dict[str, str], *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return forked_cli.run(list(words), ROOT, environment, stdin, timeout=120)


@pytest.mark.integration
async def test_a_server_with_lazy_fsync_is_refused_unless_allowed(tmp_path: Path) -> None:
    port = free_port()
    config = (
        (ROOT / "config" / "nats" / "nats-server.conf")
        .read_text()
        .replace("sync_interval: always", "sync_interval: 2m")
    )
    (tmp_path / "lazy.conf").write_text(config)
    passwords = dict.fromkeys(COMPOSE["services"]["nats"]["environment"], "pw")
    command = [
        str(find_binary(None)),
        "-c",
        str(tmp_path / "lazy.conf"),
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        "-sd",
        str(tmp_path),
    ]
    server = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        command, env=passwords | {"PATH": os.environ["PATH"]}, stderr=subprocess.DEVNULL
    )
    try:
        environment = clean_environment() | {
            "RESOLUTION_LEDGER_NATS_URL": f"nats://ledger:pw@127.0.0.1:{port}",
            "RESOLUTION_LEDGER_DATA_DIR": str(tmp_path / "data"),
        }
        created = await asyncio.to_thread(run, environment, "admin", "init", "--allow-lazy-fsync")
        assert created.returncode == 0, created.stderr
        refused = await asyncio.to_thread(run, environment, "report", "balances")
        assert refused.returncode == 1
        assert "--allow-lazy-fsync" in refused.stderr
        found = await asyncio.to_thread(run, environment, "admin", "doctor", "--json")
        says = {one["check"]: one for one in json.loads(found.stdout)["items"]}["durability"]
        assert not says["ok"]
        assert "--allow-lazy-fsync" in says["says"]
        allowed = await asyncio.to_thread(run, environment, "report", "balances", "--allow-lazy-fsync")
        assert "EVENTS CAN BE LOST" in allowed.stderr
        assert allowed.returncode == 0
        nobody = await asyncio.to_thread(run, environment, "publish", "-", "--allow-lazy-fsync", stdin="{}")
        assert "run ROLE" in nobody.stderr
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.integration
async def test_wrong_credentials_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no NATS server answers"):
        await connect(f"nats://x:y@127.0.0.1:{free_port()}", "test", wait_seconds=0.5)
