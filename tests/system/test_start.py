"""`up` in another program's folder, on a server of the user's own, and where an announcement was left behind."""

import asyncio
import json
import logging
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest

from app.runtime.server_options import server_options
from config.settings import SettingsError, load_settings, settings_as_environment, settings_as_options, without_secrets
from ledger.nats.redaction import RedactingFormatter
from resolution_ledger.__main__ import PACKAGES
from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment
from tests.support.nats_servers import free_ports
from tests.support.organisations import BASIC_POLICY
from tests.support.own_server import OwnServer

SCRIPT = Path(sys.executable).with_name("resolution-ledger")
TRAP = "import os\nopen(os.environ['TRAPPED'], 'a').write(__file__ + '\\n')\nprint('TRAPPED')\nraise SystemExit(3)\n"


def initialised(folder: Path) -> OwnServer:
    """Start an operator's own server and create the streams of a ledger."""
    own = OwnServer(folder)
    words = [
        str(SCRIPT),
        "admin",
        "init",
        "--data-dir",
        str(folder / "data"),
        "--nats-url",
        own.settings().nats_url or "",
    ]
    subprocess.run(words, check=True, capture_output=True, env=clean_environment())
    return own


@contextmanager
def started(folder: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start `resolution-ledger` in a folder like a user; its output goes to `log` there."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [SCRIPT, *words],
            cwd=folder,
            env=clean_environment() | environment,
            text=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def until[T](look: Callable[[], T], process: subprocess.Popen[str], log: Path) -> T:
    """Wait until a function returns something; return that."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := look():
            return found
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def announced(data_dir: Path) -> Document:
    """connection.json; empty where it is not there."""
    try:
        found: Document = json.loads((data_dir / "connection.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def served(document: Document) -> bool:
    """Return whether the HTTP API accepts the announced token."""
    headers = {"Authorization": f"Bearer {document['http_token']}"}
    request = urllib.request.Request(f"{document['http_url']}/api/v1/projections", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def command_lines() -> dict[int, str]:
    """Return the command lines of all processes, as every user may read them."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[int(path.parent.name)] = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
    return found


@pytest.mark.integration
def test_up_starts_in_a_folder_that_holds_packages_with_our_names(tmp_path: Path) -> None:
    for name in (*PACKAGES, "msgspec", "uvloop"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(TRAP)
    trapped = tmp_path / "trapped"
    environment = {"TRAPPED": str(trapped), "PYTHONPATH": ""}
    with started(tmp_path, "up", "--port", "0", **environment) as process:
        document = until(lambda: announced(tmp_path / ".resolution-ledger"), process, tmp_path / "log")
        until(lambda: served(document), process, tmp_path / "log")
    assert process.returncode == 0
    assert not trapped.exists(), trapped.read_text()
    assert "TRAPPED" not in (tmp_path / "log").read_text()


@pytest.mark.integration
def test_packages_with_our_names_on_the_users_path_are_not_ours(tmp_path: Path) -> None:
    for name in sorted(PACKAGES - {"resolution_ledger"}):
        (tmp_path / f"{name}.py").write_text(TRAP)
    environment = {"TRAPPED": str(tmp_path / "trapped"), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [SCRIPT, "--version"],
        cwd=tmp_path,
        env=clean_environment() | environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with started(tmp_path, "up", "--port", "0", **environment) as process:
        document = until(lambda: announced(tmp_path / ".resolution-ledger"), process, tmp_path / "log")
        until(lambda: served(document), process, tmp_path / "log")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.integration
def test_an_announcement_that_was_left_behind_goes_before_anything_is_ready(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (dead,) = free_ports(1)
    (data_dir / "connection.json").write_text(json.dumps({"nats_url": f"nats://a:b@127.0.0.1:{dead}"}))
    with started(tmp_path, "up", "--port", "0", "--data-dir", str(data_dir)) as process:
        until((data_dir / "server" / "server.pid").exists, process, tmp_path / "log")
        assert f":{dead}" not in json.dumps(announced(data_dir))
        document = until(lambda: announced(data_dir), process, tmp_path / "log")
        assert f":{dead}" not in document["nats_url"]


@pytest.mark.integration
async def test_up_on_a_server_of_ones_own_serves_and_shows_no_password(tmp_path: Path) -> None:
    own, data_dir, log = initialised(tmp_path), tmp_path / "data", tmp_path / "log"
    words = ("--data-dir", str(data_dir), "--upstream-nats-url", own.settings("upstream").nats_url or "")
    try:
        with started(tmp_path, "up", "--port", "0", f"--nats-url={own.settings().nats_url}", *words) as process:
            document = until(lambda: announced(data_dir), process, log)
            until(lambda: served(document), process, log)
            lines = command_lines()
            assert "up" in lines[process.pid]
            assert len([line for line in lines.values() if str(data_dir) in line]) >= 5  # itself and its children
            assert [line for line in lines.values() if "p-ledger" in line or "p-upstream" in line] == []
            assert document["nats_user"], document["nats_password"] == ("upstream", "p-upstream")
            assert "p-ledger" not in json.dumps(document)
            address = document["nats_url"].replace("upstream:p-upstream@", "")
            client = await nats.connect(address, user=document["nats_user"], password=document["nats_password"])
            body = json.dumps({"request_id": "r-1", "policy": BASIC_POLICY, "published_by": "owner"}).encode()
            reply = await client.request("resolution.decide.crm.policy", body, timeout=20)
            assert json.loads(reply.data)["error"]["code"] == "source_not_allowed"
            await client.close()
            own.process.kill()
            own.process.wait()
            await asyncio.sleep(3)  # long enough for errors to be logged
    finally:
        own.process.kill()
        own.process.wait()
    assert "p-ledger" not in log.read_text()
    assert "up:" in log.read_text()
    assert not announced(data_dir)


@pytest.mark.integration
def test_without_an_address_for_upstreams_the_announcement_has_that_of_the_setting(tmp_path: Path) -> None:
    own, data_dir = initialised(tmp_path), tmp_path / "data"
    url = own.settings().nats_url or ""
    try:
        with started(
            tmp_path, "up", "--port", "0", RESOLUTION_LEDGER_NATS_URL=url, RESOLUTION_LEDGER_DATA_DIR=str(data_dir)
        ) as process:
            document = until(lambda: announced(data_dir), process, tmp_path / "log")
    finally:
        own.process.kill()
        own.process.wait()
    assert (document["nats_url"], document["nats_user"], document["nats_password"]) == (url, "ledger", "p-ledger")


@pytest.mark.parametrize(
    ("words", "left", "found"),
    [
        (["up", "--nats-url", "nats://a:b@c", "--port", "1"], ["up", "--port", "1"], "nats://a:b@c"),
        (["--nats-url=nats://a:b@c", "up"], ["up"], "nats://a:b@c"),
        (["up", "--nats-url", "nats://c"], ["up", "--nats-url", "nats://c"], None),
        (["--nats-url", "nats://a:b@c", "up", "--nats-url", "nats://d"], ["up"], "nats://a:b@c,nats://d"),
        (
            ["up", "--nats-url", "nats://c", "--nats-url=nats://d"],
            ["up", "--nats-url", "nats://c", "--nats-url=nats://d"],
            None,
        ),
        (["--nats-url", "nats://a:b@c", "up", "--nats-url", "nats://d:e@f"], ["up"], "nats://a:b@c,nats://d:e@f"),
        (["publish", "--", "--nats-url", "nats://a:b@c"], ["publish", "--", "--nats-url", "nats://a:b@c"], None),
        (["up", "--nats-url"], ["up", "--nats-url"], None),
    ],
)
def test_passwords_leave_the_command_line(words: list[str], left: list[str], found: str | None) -> None:
    logins = {f"RESOLUTION_LEDGER_NATS_{name}": "" for name in ("USER", "PASSWORD", "TOKEN", "CREDS", "NKEY")}
    expected = {} if found is None else {"RESOLUTION_LEDGER_NATS_URL": found} | logins
    assert without_secrets(words) == (left, expected)


@pytest.mark.integration
def test_a_login_on_the_command_line_replaces_that_of_the_environment(tmp_path: Path) -> None:
    login = {"RESOLUTION_LEDGER_NATS_USER": "ledger", "RESOLUTION_LEDGER_NATS_PASSWORD": "p-ledger"}
    (port,) = free_ports(1)
    done = subprocess.run(
        [SCRIPT, "admin", "doctor", "--nats-url", f"nats://operator:p-operator@127.0.0.1:{port}"],
        cwd=tmp_path,
        env=clean_environment() | login,
        text=True,
        capture_output=True,
        check=False,
    )
    assert "exclude each other" not in done.stderr
    assert "127.0.0.1" in done.stderr


def test_of_another_option_the_last_one_counts() -> None:
    words = ["up", "--upstream-nats-url=nats://a:b@c", "--upstream-nats-url", "nats://d"]
    assert without_secrets(words) == (["up"], {"RESOLUTION_LEDGER_UPSTREAM_NATS_URL": "nats://d"})


def test_child_processes_get_the_settings_of_up_whatever_files_they_find(tmp_path: Path) -> None:
    settings = load_settings({"nats_url": "nats://a:b@c", "data_dir": "here", "allow_lazy_fsync": True}, {})
    options, environment = settings_as_options(settings), settings_as_environment(settings)
    assert "b@c" not in " ".join(options)
    (tmp_path / "resolution-ledger.toml").write_text('replicas = 3\nnats_url = "nats://x:y@z"\n')
    given = {"data_dir": "here", "allow_lazy_fsync": True, "replicas": 1}
    assert load_settings(given, environment, None) == settings
    none = settings_as_environment(load_settings({}, {}))
    assert load_settings({}, none).nats_url is None


def test_no_line_of_a_log_shows_a_password() -> None:
    formatter = RedactingFormatter("%(message)s")
    error = ValueError("cannot reach tls://us-er:s/e?c#r@e:t@host:4222,nats://u:secret@h2")
    record = logging.LogRecord("x", 40, "", 0, "at %s", ("nats://ledger:secret@h:1/x",), (ValueError, error, None))
    text = formatter.format(record)
    assert not re.search("secret|s/e|r@e", text)
    assert "nats://***@h:1/x" in text
    assert "tls://***@host:4222,nats://***@h2" in text


@pytest.mark.integration
@pytest.mark.parametrize(
    "url", ["nats://ledger:sec/ret@127.0.0.1:1", "nats://ledger:sec[ret@h", "nats://l:secret@h:99999"]
)
def test_an_address_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="nats_url") as refused:
        server_options(load_settings({"nats_url": url}, {}))
    assert not re.search("sec", str(refused.value))
    done = subprocess.run(
        [SCRIPT, "report", "balances", "--nats-url", url],
        env=clean_environment(),
        text=True,
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "sec" not in done.stderr + done.stdout
    assert done.stderr.count("\n") == 1
