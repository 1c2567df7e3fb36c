"""The functions that one action passes, from the arrival of its request to its answer.

    python -m benchmarks.decision_path [--json]

A decider on an embedded server answers two kinds of requests with a known agent, a policy in force and a cached budget:
a plain action, and one with a customer and an interaction. `sys.monitoring` reports each function that is entered,
coroutines also where they are resumed. Functions of `consumers/` and `domain/decisions/` are counted, apart from the
codec of requests; all others are in the totals. A function counts where at least half of the requests enter it, so that
the timers and the readers beside a request do not count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from app.runtime.roles import running
from app.runtime.session import Session
from benchmarks.ledgers import POLICY
from config.settings import load_settings
from consumers.decisions.service import DecisionService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

    from ledger.nats.client import LedgerClient

ROOT = Path(__file__).parents[1]
OURS = ("consumers", "domain", "ledger", "projections", "config", "app")
COUNTED = ("consumers/", "domain/decisions/")
CODEC = frozenset(
    {
        "consumers/decisions/pending_request.py",
        "consumers/privacy/field_encryption.py",
        "consumers/runtime/request_form.py",
        "consumers/runtime/source_tokens.py",
        "domain/decisions/recorded_commands.py",
    }
)
"""The modules between the bytes of a request and its typed command."""
REQUESTS: dict[str, dict[str, str]] = {
    "plain": {},
    "with customer and interaction": {"customer_id": "C-1", "interaction_id": "I-1"},
}
"""Kind of request -> the fields that it has beside those of a plain one."""
_ARRIVAL, _ANSWER = DecisionService._on_request.__code__, DecisionService._send_all.__code__  # noqa: SLF001
_WARM, _MEASURED = 20, 20
"""Requests before and during the measurement; a ledger is new, so that the budgets are opened by the first."""
_events = sys.monitoring.events


class CallPath(NamedTuple):
    """The path of one kind of request: each of our functions with the calls of it in one request."""

    calls: dict[tuple[str, str], int]
    """Module and qualified name -> calls."""

    @property
    def counted(self) -> dict[str, list[str]]:
        """The functions of `consumers/` and `domain/decisions/` without the codec, by module."""
        return {module: functions for module, functions in self.with_codec.items() if module not in CODEC}

    @property
    def with_codec(self) -> dict[str, list[str]]:
        """The functions of `consumers/` and `domain/decisions/`, by module."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for module, function in sorted(self.calls):
            if module.startswith(COUNTED):
                found[module].append(function)
        return dict(found)

    @property
    def functions(self) -> int:
        """The number of counted functions."""
        return sum(map(len, self.counted.values()))


class CallRecorder:
    """Records the functions of this product that are entered between a request's arrival and its answer."""

    def __init__(self) -> None:
        self._current: Counter[CodeType] | None = None
        self.requests: list[Counter[CodeType]] = []
        """One count for each request that was answered."""

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record in a context."""
        tool = sys.monitoring.PROFILER_ID
        sys.monitoring.use_tool_id(tool, "decision path")
        try:
            sys.monitoring.register_callback(tool, _events.PY_START, self._on_entry)
            sys.monitoring.register_callback(tool, _events.PY_RESUME, self._on_entry)
            sys.monitoring.register_callback(tool, _events.PY_RETURN, self._on_return)
            sys.monitoring.set_events(tool, _events.PY_START | _events.PY_RESUME | _events.PY_RETURN)
            yield
        finally:
            sys.monitoring.set_events(tool, 0)
            sys.monitoring.free_tool_id(tool)

    def _on_entry(self, code: CodeType, _offset: int) -> object:
        if code is _ARRIVAL:
            self._current = Counter()
        if not code.co_filename.startswith(str(ROOT)):
            return sys.monitoring.DISABLE
        if self._current is not None:
            self._current[code] += 1
        return None

    def _on_return(self, code: CodeType, _offset: int, _value: object) -> object:
        if code is not _ANSWER:
            return sys.monitoring.DISABLE
        if self._current is not None:
            self.requests.append(self._current)
            self._current = None
        return None

    def path(self) -> CallPath:
        """Return the functions that at least half of the requests entered, with the calls in most requests."""
        entered = Counter(code for request in self.requests for code in request)
        usual = [code for code, times in entered.items() if times * 2 >= len(self.requests)]
        calls = {}
        for code in usual:
            place = Path(code.co_filename).relative_to(ROOT)
            if place.parts[0] in OURS:
                most = Counter(request[code] for request in self.requests).most_common(1)[0][0]
                calls[str(place), code.co_qualname] = most
        return CallPath(calls)


async def _ask(client: LedgerClient, number: int, fields: dict[str, str]) -> None:
    request = {
        "request_id": f"r-{number}",
        "agent_id": "A-1",
        "kind": "refund",
        "reason": "late",
        "amount": {"amount": "1.00", "currency": "GBP"},
        **fields,
    }
    answer = await client.request("resolution.decide.bench.action", json.dumps(request).encode(), timeout=10)
    assert b'"taken"' in answer.data, answer.data


async def paths(folder: Path) -> dict[str, CallPath]:
    """Return the path of each kind of request, on a new ledger in a folder."""
    found = {}
    async with (
        Session(load_settings({"data_dir": str(folder)}, {})) as session,
        running(session, ("decisions",)),
    ):
        client = await session.upstream("bench")
        policy = {"request_id": "policy", "policy": POLICY, "published_by": "bench"}
        await session.client.request("resolution.operate.bench.policy", json.dumps(policy).encode(), timeout=10)
        number = 0
        for name, fields in REQUESTS.items():
            recorder = CallRecorder()
            for _ in range(_WARM):
                number += 1
                await _ask(client, number, fields)
            with recorder.recording():
                for _ in range(_MEASURED):
                    number += 1
                    await _ask(client, number, fields)
            found[name] = recorder.path()
    return found


def document_of(found: dict[str, CallPath]) -> dict[str, dict[str, object]]:
    """Return the paths as a document for machines."""
    return {
        name: {
            "functions": path.functions,
            "modules": len(path.counted),
            "counted": path.counted,
            "with_codec": path.with_codec,
            "all_functions": len(path.calls),
            "all_calls": sum(path.calls.values()),
        }
        for name, path in found.items()
    }


def table_of(name: str, path: CallPath) -> Table:
    """Return the table of one kind of request: each counted module with its functions."""
    title = f"an action, {name}: {path.functions} functions in {len(path.counted)} modules"
    caption = (
        f"with the codec of requests: {sum(map(len, path.with_codec.values()))} functions in {len(path.with_codec)} "
        f"modules; of all packages: {len(path.calls)} functions, called {sum(path.calls.values())} times"
    )
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("module")
    table.add_column("functions", justify="right")
    table.add_column("names, and calls where there are several")
    for module, functions in path.counted.items():
        calls = [path.calls[module, function] for function in functions]
        names = [one if times == 1 else f"{one} ({times})" for one, times in zip(functions, calls, strict=True)]
        table.add_row(module, str(len(functions)), ", ".join(names))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the document on standard output, instead of tables")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="resolution-ledger-bench-") as folder:
        found = asyncio.run(paths(Path(folder) / "ledger"))
    if options.json:
        print(json.dumps(document_of(found)))
        return
    console = Console(width=None if sys.stdout.isatty() else 150)
    for name, path in found.items():
        console.print(table_of(name, path))


if __name__ == "__main__":
    main()
