"""docker-compose.yml and docker-compose.laptop.yml: valid, hardened, without default passwords; a server with lazy fsync.

test_deployment.py runs the services of docker-compose.yml as processes.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
import yaml

from app.runtime.roles import ROLES
from ledger.errors import UnavailableError
from ledger.nats.client import connect
from ledger.nats.embedded_server import find_binary
from tests.support import forked_cli
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment, long_only
from tests.support.waiting import eventually

COMPOSE: Document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
LAPTOP: Document = yaml.safe_load((ROOT / "docker-compose.laptop.yml").read_text())
SERVICES: Document = COMPOSE["services"] | LAPTOP["services"]
LASTING = {name: service for name, service in SERVICES.items() if service["restart"] == "unless-stopped"}
"""Services that stay up; the others prepare something and end."""
OURS = ("resolution-ledger", "resolution-ledger-nats")
"""Images that the Dockerfile makes."""
NATS_PASSWORDS = {
    name: value
    for name, value in COMPOSE["services"]["nats-1"]["environment"].items()
    if name.endswith("PASSWORD") and value.startswith("${")
}


@pytest.mark.integration
@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.laptop.yml"])
def test_a_compose_file_fits_the_compose_schema(name: str) -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*checker, str(ROOT / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("document", [COMPOSE, LAPTOP], ids=["compose", "laptop"])
def test_each_image_of_ours_is_built_by_one_service_and_never_pulled(document: Document) -> None:
    """Several builds of one tag at the same time fail with `image already exists`."""
    services = [one for one in document["services"].values() if one["image"] in OURS]
    built = Counter(one["image"] for one in services if "build" in one)
    assert built == dict.fromkeys({one["image"] for one in services}, 1)
    assert all("build" in one or one["pull_policy"] == "never" for one in services)


def test_every_role_runs_twice() -> None:
    processes: Counter[str] = Counter()
    for service in COMPOSE["services"].values():
        if service.get("command", [""])[0] == "run":
            for role in {*service["command"]} & {*ROLES}:
                processes[role] += service["deploy"]["replicas"]
    assert processes == dict.fromkeys(ROLES, 2)


def test_what_one_process_at_a_time_writes_is_in_a_volume_of_both() -> None:
    """The others keep derived files only, of their own; views are in PostgreSQL."""
    for name, service in COMPOSE["services"].items():
        roles = {*service.get("command", ())} & {*ROLES}
        if service["image"] == "resolution-ledger" and roles:
            shared = roles & {"seal", "archive"}
            assert ("ledger:/data" if shared else "/data") in service["volumes"], name
            reads = roles & {"projections", "webhooks", "dashboard"}
            assert ("RESOLUTION_LEDGER_DATABASE_URL" in service["environment"]) == bool(reads), name


def test_no_password_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert re.findall(r"\$\{\w+\}|\$\{\w+:?-", text) == []
    example = (ROOT / "config" / "passwords.example").read_text()
    assert {*re.findall(r"\$\{(\w+):\?", text)} == {*re.findall(r"^(\w+)=$", example, re.MULTILINE)}
    given = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name or "SECRET" in name
    ]
    assert given
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]*\}", value) for value in given)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"} & service.keys()
    if service["image"] not in OURS and not service["image"].startswith("grafana/"):  # its image has a user of its own
        assert re.fullmatch(r"postgres|[1-9]\d*:[1-9]\d*", service["user"])
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:")
    for volume in service.get("volumes", ()):
        if volume.startswith("./"):
            assert volume.endswith(":ro"), volume
            assert (ROOT / volume.split(":")[0]).exists(), volume


def test_the_images_of_the_dockerfile_have_a_user() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1:]
    for stage in (stages[0], stages[-1]):
        assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE) == ["10001:10001"]
    made = re.search(r"mkdir (.+) && chown ledger:ledger (.+)$", stages[-1], re.MULTILINE)
    assert made
    assert made[1] == made[2]
    mounted = {
        volume.removesuffix(":ro").rpartition(":")[2]
        for service in SERVICES.values()
        if service["image"] == OURS[0]
        for volume in service["volumes"]
    }
    assert {*made[1].split()} == mounted


@pytest.mark.parametrize("name", LASTING)
def test_a_service_that_stays_up_is_watched_and_has_a_limit(name: str) -> None:
    service = LASTING[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["deploy"]["resources"]["limits"]["memory"]
    if service["image"] == OURS[0]:
        words = service["command"]
        roles = ROLES if words[0] == "up" else [word for word in words if word in ROLES]
        asked = re.findall(r"--role[ =](\w+)", " ".join(service["healthcheck"]["test"]))
        assert asked == [*roles]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_it_needs(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        lasts = needed in LASTING
        assert how == {"condition": "service_healthy" if lasts else "service_completed_successfully"}, needed
    named = {volume.split(":")[0] for volume in SERVICES[name].get("volumes", ()) if ":" in volume}
    file = LAPTOP if name in LAPTOP["services"] else COMPOSE
    assert {volume for volume in named if not volume.startswith("./")} <= file["volumes"].keys()


def test_the_server_syncs_always_and_its_passwords_come_from_the_environment() -> None:
    text = (ROOT / "config" / "nats" / "nats-server.conf").read_text()
    assert "sync_interval: always" in text
    assert set(re.findall(r"password: \$(\w+)", text)) == NATS_PASSWORDS.keys()
    cluster = (ROOT / "config" / "nats" / "cluster.conf").read_text()
    assert 'include "nats-server.conf"' in cluster
    variables = {*re.findall(r": \$(\w+)", cluster)}
    for number in (1, 2, 3):
        environment = COMPOSE["services"][f"nats-{number}"]["environment"]
        assert {one for one in environment if "_SERVER_" in one} == variables
        assert environment["RESOLUTION_LEDGER_SERVER_NAME"] == f"nats-{number}"


@pytest.mark.integration
@long_only
async def test_the_container_for_a_laptop_runs_everything(tmp_path: Path) -> None:
    service = LAPTOP["services"]["ledger"]
    api = free_port()
    environment = clean_environment() | {"RESOLUTION_LEDGER_DATA_DIR": str(tmp_path / "data")}
    words = [{"0.0.0.0": "127.0.0.1", "8321": str(api)}.get(word, word) for word in service["command"]]
    program = subprocess.Popen([sys.executable, "-m", "app", *words], cwd=ROOT, env=environment)  # noqa: ASYNC220
    try:
        check = service["healthcheck"]["test"][2:]

        async def health() -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(run, environment, *check)

        await eventually(health, lambda done: done.returncode == 0, 120, every_seconds=1)
        assert await asyncio.to_thread(reads, f"http://127.0.0.1:{api}/") == 200
    finally:
        program.terminate()
        program.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
    passwords = dict.fromkeys(NATS_PASSWORDS, "pw")
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
