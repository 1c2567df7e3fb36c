"""Other systems: nothing is loaded that Windows lacks, and commands work from there against a ledger elsewhere."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import read_audit
from tests.support.builders import event
from tests.support.environment import LONG, ROOT, clean_environment, long_only
from tests.support.source_code import MODULES, ROOMS, module_name, modules_of, syntax_tree
from tests.support.up_process import UpProcess

UNIX_ONLY = {
    "crypt",
    "fcntl",
    "grp",
    "nis",
    "ossaudiodev",
    "posix",
    "pty",
    "pwd",
    "readline",
    "resource",
    "spwd",
    "syslog",
    "termios",
    "tty",
    "uvloop",
}
PRETENCE = """
import asyncio, os, shutil, signal, subprocess, sys, time
# Libraries decide by system when they are loaded: these are what they are here.
import click, cryptography.x509, fastapi, faststream.nats, filelock, httptools, msgspec, nats, numpy, prometheus_client
import rich.console, rich.progress, rich.table, sqlalchemy.dialects.sqlite, uvicorn.protocols.http.httptools_impl
import mcp, opentelemetry.exporter.otlp.proto.http.trace_exporter
import eventsourcing.domain, eventsourcing.persistence, mpmath, yaml, logging.handlers, pathlib, tempfile, multiprocessing
for name in UNIX_ONLY:
    sys.modules[name] = None
for module, names in {
    os: ("O_NONBLOCK", "fork", "getuid", "geteuid", "getgid", "setpriority", "WNOHANG", "killpg", "setsid"),
    signal: ("SIGKILL", "SIGHUP", "SIGSTOP", "SIGCONT", "SIGUSR1"),
    time: ("clock_gettime", "CLOCK_MONOTONIC", "CLOCK_BOOTTIME", "tzset"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
def refuse(*_words):
    raise NotImplementedError
asyncio.SelectorEventLoop.add_signal_handler = refuse
asyncio.SelectorEventLoop.connect_read_pipe = refuse
def refuse_link(*_words, **_more):
    raise OSError("a required privilege is not held")
os.symlink = refuse_link
import ssl
ssl.enum_certificates = lambda _store: ()
sys.platform = "win32"
"""


def top_level(path: Path) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is loaded, on Windows, too."""
    waiting = list(syntax_tree(path).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If):
            test = ast.unparse(node.test)
            if test == "TYPE_CHECKING" or "win32" in test:
                continue
            waiting += [*node.body, *node.orelse]
        elif isinstance(node, ast.ClassDef | ast.Try | ast.With):
            waiting += node.body
        yield node


@pytest.mark.parametrize("room", ROOMS)
def test_a_module_loads_nothing_that_windows_lacks(room: str) -> None:
    for path in modules_of(room):
        for node in top_level(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not {name.split(".")[0] for name in names} & UNIX_ONLY, (module_name(path), names)


@pytest.mark.parametrize("room", ROOMS)
def test_text_files_name_their_encoding(room: str) -> None:
    """Windows and some containers read and write another encoding where none is named."""
    calls = [(path, node) for path in modules_of(room) for node in ast.walk(syntax_tree(path))]
    for path, node in calls:
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        values = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        of_path = called == "open" and isinstance(node.func, ast.Name | ast.Attribute) and set(values) & set("rwax")
        if called in ("read_text", "write_text") or (of_path and not set(values) & {"rb", "wb", "ab"}):
            locks = values == ["a"]  # an empty file, for its lock
            assert locks or any(word.arg == "encoding" for word in node.keywords), f"{path}:{node.lineno}"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a ledger and return its address, as of another machine."""
    folder = tmp_path_factory.mktemp("elsewhere")
    up = UpProcess(folder)
    up.wait_until_up()
    password = json.loads((folder / "server" / "passwords.json").read_text())["ledger"]
    port = json.loads((folder / "server" / "address.json").read_text())["port"]
    yield f"nats://ledger:{password}@127.0.0.1:{port}"
    assert up.stop() == 0


def on_windows(code: str, folder: Path, url: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python without the modules that Windows lacks."""
    environment = clean_environment() | {"USERNAME": "owner"} | ({"RESOLUTION_LEDGER_NATS_URL": url} if url else {})
    return subprocess.run(
        [sys.executable, "-P", "-c", f"UNIX_ONLY = {UNIX_ONLY!r}\n{PRETENCE}\n{code}", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


COMMAND = "from resolution_ledger.__main__ import main\nmain()"


@pytest.mark.integration
def test_every_module_loads(tmp_path: Path) -> None:
    names = [module_name(path) for path in MODULES if path.stem != "__main__"]
    code = f"from importlib import import_module\nfor name in {names!r}:\n    import_module(name)\nprint('loaded')"
    done = on_windows(code, tmp_path, None)
    assert done.stdout == "loaded\n", done.stderr


@long_only
@pytest.mark.integration
def test_commands_work_against_a_ledger_elsewhere(elsewhere: str, tmp_path: Path) -> None:
    joined = event("ev-1", "employee.joined", employee_id="A-1", role="agent", team_ids=["t"])
    bought = event("ev-2", "purchase.completed", order_id="Bestellung №7", total={"amount": "9.00", "currency": "GBP"})
    (tmp_path / "facts.jsonl").write_text(
        "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in (joined, bought)), encoding="utf-8"
    )

    def run(*words: str) -> str:
        done = on_windows(COMMAND, tmp_path, elsewhere, *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    assert json.loads(run("publish", "facts.jsonl", "--json"))["recorded"] == 2
    run("decide", "policy", str(ROOT / "config" / "policies" / "contact-centre.yaml"), "--published-by", "owner")
    words = [
        "decide",
        "action",
        "--agent",
        "A-1",
        "--kind",
        "refund",
        "--amount",
        "5.00",
        "--reason",
        "späte Lieferung",
    ]
    assert json.loads(run(*words, "--json"))["outcome"] == "taken"
    for _ in range(2):  # views are made, then found
        assert json.loads(run("report", "balances", "--json"))["items"][0]["spent"]["amount"] == "5.00"
    assert "№7" in run("audit", "replay")
    assert "A-1" in run("audit", "trail", "--agent", "A-1")
    for report in ("gap", "loyalty", "quality", "recognition", "escalations", "actions")[: None if LONG else 1]:
        run("report", report, "--json")
    run("admin", "projections", "rebuild")
    run("admin", "rejected", "list")
    run("audit", "flags")


@pytest.mark.integration
@pytest.mark.parametrize("words", [("report", "balances"), ("up",), ("publish", "-")])
def test_without_a_server_a_command_names_the_remedy(words: tuple[str, ...], tmp_path: Path) -> None:
    done = on_windows(COMMAND, tmp_path, None, *words)
    assert done.returncode == 1
    assert "name one elsewhere with --nats-url" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_user_without_a_name_may_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run under a user id without a name."""

    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert read_audit._user() == f"uid {os.getuid()}"
