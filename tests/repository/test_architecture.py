"""The house: who may import whom, how long a function may be, no cycles, and that all of it is ours."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ledgers import ROOT

ROOMS = {
    "domain": set(),
    "ledger": set(),
    "config": set(),
    "projections": {"domain", "ledger"},
    "consumers": {"domain", "ledger", "projections", "config"},
    "dashboard": {"domain", "ledger", "projections", "config"},
    "app": {"domain", "ledger", "projections", "consumers", "config", "dashboard", "resolution_ledger"},
    "resolution_ledger": {"app", "config"},
}
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, typing_only: bool) -> Iterator[str]:
    """Modules of ours that a module imports; without ``typing_only`` only what runs."""
    tree = ast.parse(path.read_text())
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in hidden and not typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    used = {name.split(".")[0] for name in imports(path, typing_only=True)} & (ROOMS.keys() | {"tests", "benchmarks"})
    assert used <= ROOMS[room] | {room}


def test_modules_do_not_import_in_circles() -> None:
    names = {name_of(path): path for path in MODULES}
    graph = {
        name: {used for used in imports(path, typing_only=False) if used in names and used != name}
        for name, path in names.items()
    }
    while graph:
        leaves = {name for name, used in graph.items() if not used & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        for name in leaves:
            del graph[name]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 70, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[-2] == "domain"], ids=name_of)
def test_the_domain_has_no_clock_no_chance_no_files(path: Path) -> None:
    text = path.read_text()
    for word in ("datetime.now", "time.time", "random", "uuid", "pathlib", "asyncio", "secrets"):
        assert word not in text


@pytest.mark.parametrize("room", ROOMS)
def test_each_package_is_ours(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__file__
    assert Path(module.__file__).is_relative_to(ROOT)
