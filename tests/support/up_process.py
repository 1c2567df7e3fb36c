"""`resolution-ledger up` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.documents import Document
from tests.support.environment import ROOT, clean_environment


def operator_url(data_dir: Path) -> str:
    """Return the address of the embedded server of a running `up` with the ledger's own user, for operators' requests."""
    password = json.loads((data_dir / "server" / "passwords.json").read_text())["ledger"]
    port = json.loads((data_dir / "server" / "address.json").read_text())["port"]
    return f"nats://ledger:{password}@127.0.0.1:{port}"


class UpProcess:
    """A running `up`: every role and an embedded server on one data directory."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "up", "--data-dir", str(data_dir), *options],
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_up(self) -> Document:
        """Wait until it says that it is up; return the document of `connection.json`.

        A role may warn before; the text of an `up` that ends instead is in the error.
        """
        assert self.process.stdout
        said: list[str] = []
        for line in self.process.stdout:
            said.append(line)
            if "is up" in line:
                document: Document = json.loads((self.data_dir / "connection.json").read_text())
                return document
        raise AssertionError("".join(said))

    def children(self) -> dict[str, int]:
        """Return the ids of its processes for other roles, each by the first of its roles."""
        found: dict[str, int] = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                words = (path / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if parent == self.process.pid and "run" in words:
                found[words[words.index("run") + 1]] = int(path.name)
        return found

    def stop(self) -> int:
        """Terminate it as a supervisor does (SIGTERM); return the exit status."""
        self.process.terminate()
        self.process.communicate(timeout=30)
        return self.process.returncode
