"""`resolution-ledger` in processes of their own that need not import everything each time: forked from one that has."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Protocol, Self

from tests.support.documents import Document

_PRELOADED = [
    "app.cli.main",
    "app.cli.commands.admin",
    "app.cli.commands.admin_records",
    "app.cli.commands.admin_sources",
    "app.health.checks",
    "app.cli.commands.audit_trail",
    "app.cli.commands.decide",
    "app.cli.commands.audit_flags",
    "app.cli.commands.report_loyalty",
    "app.cli.commands.publish",
    "app.cli.commands.report_views",
    "app.cli.commands.audit_verify",
    "app.cli.commands.run",
    "app.cli.commands.admin_tokens",
    "app.cli.commands.report_what_if",
    "app.cli.commands.report_gap",
    "app.cli.commands.report_quality",
    "app.cli.commands.report_recognition",
    "app.runtime.session",
    "app.runtime.views",
    "consumers.guard.flag_writer",
    "projections.reports.empowerment_gap",
    "projections.reports.service_quality",
    "projections.reports.recognition",
    "projections.reports.policy_simulation",
]
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(_PRELOADED)
_starting = threading.Lock()


class CommandLine(Protocol):
    """The fixture `command`: runs `resolution-ledger` with these words on the test's data directory."""

    def __call__(
        self, *arguments: str, data_dir: Path | None = ..., stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; ``data_dir`` names another data directory, or none."""
        ...


def json_of(done: subprocess.CompletedProcess[str], status: int = 0) -> Document:
    """Return the JSON document that a command printed, after a look at its exit status."""
    assert done.returncode == status, done.stderr + done.stdout
    document: Document = json.loads(done.stdout)
    return document


def run(
    arguments: list[str], folder: Path, environment: dict[str, str], stdin: str | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run the command line with these arguments; return its exit status and its output."""
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin or "")
        given.seek(0)
        status = _run(arguments, folder, environment, [one.fileno() for one in (given, out, err)], timeout)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, status, out.read(), err.read())


def _run(
    arguments: list[str], folder: Path, environment: dict[str, str], streams: Sequence[int], timeout: float
) -> int:
    """Run the command line on these open files; return its exit status."""
    process = _forks.Process(target=_main, args=(arguments, folder, environment, [_File(one) for one in streams]))
    with _starting:
        process.start()
        # Else the next start, in another thread, asks for this one's exit status, and that can be read only once.
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined] # private
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise subprocess.TimeoutExpired(arguments, timeout)
    return process.exitcode or 0


_PROGRAM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as door:
    door.connect({door!r})
    socket.send_fds(door, [b" "], [0, 1, 2])
    door.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    door.shutdown(socket.SHUT_WR)
    sys.exit(int(door.recv(9)))
"""


class Program:
    """A context with a program `resolution-ledger` in a folder of its own, for shells: it asks this process to fork.

    A signal to it does not reach the forked process, so it is for commands that end by themselves.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="cli"))  # the path of a socket is short
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(self.folder / "door"))
        self._door.listen()
        program = self.folder / "resolution-ledger"
        program.write_text(_PROGRAM.format(python=sys.executable, door=str(self.folder / "door")))
        program.chmod(0o755)
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)  # ends the waiting
        self._door.close()
        shutil.rmtree(self.folder)

    def _listen(self) -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._serve, args=self._door.accept()[:1], daemon=True).start()

    def _serve(self, asked: socket.socket) -> None:
        with asked:
            _, streams, _, _ = socket.recv_fds(asked, 1, 3)
            arguments, folder, environment = json.loads(b"".join(iter(lambda: asked.recv(1 << 16), b"")))
            status = _run(arguments, Path(folder), environment, streams, self._timeout)
            for one in streams:
                os.close(one)
            asked.sendall(str(status).encode())


class _File:
    """An open file, handed to another process."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[type, tuple[object]]:
        return _Received, (DupFd(self.number),)


class _Received:
    def __init__(self, duplicate: Any) -> None:
        self.number: int = duplicate.detach()


def _main(arguments: list[str], folder: Path, environment: dict[str, str], files: list[_Received]) -> None:
    for number, file in enumerate(files):
        os.dup2(file.number, number)
        os.close(file.number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["resolution-ledger", *arguments]

    from app.cli.main import main

    main(arguments)
