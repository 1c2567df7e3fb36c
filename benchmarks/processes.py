"""A version's processes: its commands and its roles, run from outside on a data directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmarks.versions import Version

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_SECONDS = 120


class CommandError(Exception):
    """A command or role of a version failed; the message holds the end of its output."""


@dataclass(frozen=True)
class Ledger:
    """A data directory, and the version whose commands and roles use it."""

    version: Version
    data_dir: Path

    def run(self, *words: str, seconds: float = _PATIENCE_SECONDS) -> str:
        """Run a command to its end; return its standard output.

        Raises:
            CommandError: its exit status is not 0, or it takes longer than ``seconds``.
        """
        command = self._command(*words)
        try:
            done = subprocess.run(
                command,
                cwd=self.version.folder,
                env=self.version.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"`{' '.join(words)}` of {self.version.name} did not end in {seconds:g} s") from error
        if done.returncode:
            raise CommandError(
                f"`{' '.join(words)}` of {self.version.name} ended with {done.returncode}: {done.stderr}"
            )
        return done.stdout

    def timed(self, *words: str) -> float:
        """Run a command to its end and discard its output; return the CPU seconds of its own process.

        Raises:
            CommandError: its exit status is not 0.
        """
        process = subprocess.Popen(
            self._command(*words),
            cwd=self.version.folder,
            env=self.version.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise CommandError(f"`{' '.join(words)}` of {self.version.name} ended with {process.returncode}")
        return used.ru_utime + used.ru_stime

    def document(self, *words: str) -> Any:
        """Run a command with ``--json``; return its document."""
        return json.loads(self.run(*words, "--json"))

    @contextmanager
    def up(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Run `up` in a context that begins when it answers."""
        with self._started(self._command("up", *options), "is up") as process:
            yield process

    @contextmanager
    def role(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run roles in one process while the context lasts."""
        with self._started(self._command("run", *words), " runs") as process:
            yield process

    def _command(self, *words: str) -> list[str]:
        return self.version.command(*words, "--data-dir", str(self.data_dir))

    @contextmanager
    def _started(self, command: list[str], ready: str) -> Iterator[subprocess.Popen[str]]:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir.parent / f"{self.data_dir.name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.version.folder,
                env=self.version.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                process_group=0,
            )
        try:
            assert process.stdout
            _until(process, process.stdout, ready, command)
            yield process
        finally:
            _end(process)

    def server_url(self, password: str) -> str:
        """Return the embedded server's current address, for an upstream with this password."""
        port = json.loads((self.data_dir / "server" / "address.json").read_text())["port"]
        return f"nats://upstream:{password}@127.0.0.1:{port}"


def _until(process: subprocess.Popen[str], lines: IO[str], word: str, command: list[str]) -> None:
    """Wait for the output line of a process that is ready."""
    read = []
    for line in lines:
        read.append(line)
        if word in line:
            return
    process.wait(_PATIENCE_SECONDS)
    raise CommandError(f"`{' '.join(command)}` ended with {process.returncode}: {''.join(read[-5:])}")


def _end(process: subprocess.Popen[str]) -> None:
    """Stop a process by SIGTERM, so that it stops its children and its server; by SIGKILL if that takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()
