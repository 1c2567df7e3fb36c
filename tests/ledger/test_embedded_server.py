"""The embedded server: shared by commands, stopped by its last user, found again after a SIGKILL."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest

from app.runtime.session import Session
from config.settings import load_settings
from ledger.errors import NoLedgerError, ServerStartError
from ledger.nats.embedded_server import EmbeddedServer, find_binary
from tests.support.environment import ROOT
from tests.support.up_process import UpProcess
from tests.support.waiting import block_until

CONFIG = Path(str(resources.files("config") / "nats" / "nats-server.conf"))


def alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        "defunct" not in Path(f"/proc/{pid}/status").read_text()
        and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    )


@pytest.mark.integration
def test_a_second_user_finds_it_and_the_last_one_stops_it(tmp_path: Path) -> None:
    first, second = EmbeddedServer(tmp_path, CONFIG), EmbeddedServer(tmp_path, CONFIG)
    first.start()
    pid = first.pid()
    second.start()
    assert (second.pid(), second.port) == (pid, first.port)
    first.stop()
    assert alive(pid)
    second.stop()
    assert not alive(pid)


def launched_by_another(data_dir: Path) -> subprocess.Popen[str]:
    """Start a process that starts the server and then sleeps."""
    program = (
        "import sys, time; from pathlib import Path; from ledger.nats.embedded_server import EmbeddedServer\n"
        f"s = EmbeddedServer(Path({str(data_dir)!r}), Path({str(CONFIG)!r})); s.start(); print('up', flush=True); time.sleep(60)"
    )
    user = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert user.stdout
    assert user.stdout.readline() == "up\n"
    return user


@pytest.mark.integration
def test_a_sigkilled_user_does_not_block_the_next(tmp_path: Path) -> None:
    user = launched_by_another(tmp_path)
    user.kill()
    user.communicate()
    with EmbeddedServer(tmp_path, CONFIG) as server:
        pid = server.pid()
        assert alive(pid)
    assert not alive(pid)


@pytest.mark.integration
def test_a_sigkilled_server_is_started_again(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, CONFIG) as server:
        pid = server.pid()
        assert pid
        os.kill(pid, signal.SIGKILL)
        while alive(pid):
            os.waitpid(pid, 0)
    with EmbeddedServer(tmp_path, CONFIG) as server:
        assert server.pid() != pid


@pytest.mark.integration
def test_a_user_of_a_lower_priority_uses_the_server_and_never_starts_it(tmp_path: Path) -> None:
    child = EmbeddedServer(tmp_path, CONFIG, starts=False)
    with pytest.raises(ServerStartError, match="`up` starts it"):
        child.start()
    with EmbeddedServer(tmp_path, CONFIG) as server:
        child.start()
        pid = server.pid()
        assert pid
        os.kill(pid, signal.SIGKILL)
        block_until(lambda: not alive(pid))
        assert not child.revive()
        block_until(server.revive)  # the kernel releases the lock a moment later
        assert child.pid() == server.pid() != pid
        child.stop()
        assert alive(server.pid())


@pytest.mark.integration
def test_a_zombie_server_is_started_again(tmp_path: Path) -> None:
    """The starting process has ended and process 1 does not reap children, as in a container."""
    parent = launched_by_another(tmp_path)
    with EmbeddedServer(tmp_path, CONFIG) as server:
        pid = server.pid()
        assert pid
        os.kill(pid, signal.SIGKILL)
        while "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            time.sleep(0.01)
        deadline = time.monotonic() + 10
        while not server.revive() and time.monotonic() < deadline:
            time.sleep(0.01)  # the kernel releases the lock a moment later
        revived = server.pid()
        assert revived != pid
        assert alive(revived)
    parent.kill()
    parent.communicate()
    if revived and alive(revived):  # its other user was killed and cannot end it
        os.kill(revived, signal.SIGKILL)


@pytest.mark.integration
def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, CONFIG) as server:
        passwords = tmp_path / "server" / "passwords.json"
        assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
        assert len(set(json.loads(passwords.read_text()).values())) == 5
        assert server.passwords["upstream"] in server.url("upstream")


@pytest.mark.integration
def test_a_wrong_binary_or_configuration_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ServerStartError, match=r"2\.12"):
        find_binary("/bin/false")
    named = tmp_path / "nats-server"
    for version, is_accepted in {"2.11.11": False, "2.12.0": False, "2.12.4": True, "2.14.0": True}.items():
        named.write_text(f"#!/bin/sh\necho nats-server: v{version}\n")
        named.chmod(0o755)
        if is_accepted:
            assert find_binary(str(named)) == named
        else:
            with pytest.raises(ServerStartError, match=r"2\.12\.4"):
                find_binary(str(named))
    broken = tmp_path / "broken.conf"
    broken.write_text("jetstream { nonsense: yes }\n")
    with pytest.raises(ServerStartError, match="nonsense"):
        EmbeddedServer(tmp_path, broken).start()


async def test_a_command_that_only_reads_refuses_a_folder_without_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(NoLedgerError, match="holds no ledger"):
        async with Session(load_settings({"data_dir": str(tmp_path / "none")}, {}), reads_only=True):
            pass
    assert not (tmp_path / "none").exists()


def test_up_announces_itself_privately_and_stops_cleanly(up: UpProcess) -> None:
    document = up.wait_until_up()
    path = up.data_dir / "connection.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert document["nats_url"].startswith(f"nats://{document['nats_user']}:{document['nats_password']}@127.0.0.1:")
    assert document["nats_user"] == "upstream"
    pid = EmbeddedServer(up.data_dir, CONFIG).pid()
    assert pid
    roles = {"decisions": up.process.pid, "server": pid} | up.children()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    late = {role for role, one in roles.items() if os.getpriority(os.PRIO_PROCESS, one) > own}
    assert late == {"projections", "guard", "seal"}
    assert roles.keys() - late == {"decisions", "server", "dashboard"}
    assert up.stop() == 0
    assert not path.exists()
    assert not alive(pid)


@pytest.mark.integration
def test_up_starts_again_after_a_sigkill_without_help(tmp_path: Path) -> None:
    first = UpProcess(tmp_path / "data")
    first.wait_until_up()
    first.process.kill()
    first.process.communicate()
    second = UpProcess(tmp_path / "data")
    second.wait_until_up()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and len(projectors(tmp_path)) > 1:
        time.sleep(0.1)  # the killed one's child sees its standard input end
    assert len(projectors(tmp_path)) == 1
    assert second.stop() == 0
    assert projectors(tmp_path) == []


def projectors(tmp_path: Path) -> list[str]:
    """Processes that run projections of this data directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "projections" in line and str(tmp_path) in line:
            found.append(line)
    return found


def test_a_second_up_is_refused_and_leaves_the_first_alone(up: UpProcess) -> None:
    up.wait_until_up()
    second = UpProcess(up.data_dir)
    output, _ = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    assert "runs already" in output
    assert (up.data_dir / "connection.json").exists()
    assert up.stop() == 0
