"""Rules of the house: imports between rooms, purity of the domain, no circles, short functions, one formatter."""

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.environment import ROOT
from tests.support.source_code import MODULES, module_name, modules_of, syntax_tree

ROOMS = {
    "domain": set(),
    "ledger": set(),
    "config": set(),
    "projections": {"domain", "ledger"},
    "consumers": {"domain", "ledger", "projections", "config"},
    "dashboard": {"domain", "ledger", "projections", "config"},
    "resolution_ledger": {"domain", "ledger", "projections", "app", "config"},
    "app": {"domain", "ledger", "projections", "consumers", "config", "dashboard", "resolution_ledger"},
}
"""Who may import whom. The public face re-exports from ``domain`` and ``projections``, and starts the command line."""
PURE = {
    "__future__",
    "bisect",
    "copy",
    "collections",
    "dataclasses",
    "datetime",
    "difflib",
    "enum",
    "eventsourcing",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "math",
    "mpmath",
    "msgspec",
    "numpy",
    "re",
    "statistics",
    "typing",
    "unicodedata",
    "urllib",  # urllib.parse
    "zoneinfo",
}
"""Libraries that the domain may import: none of them does I/O, reads a clock or draws random numbers by itself."""
IMPURE = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "np.load", "np.save"}
FILES_OF_A_FOLDER = 24


@cache
def imports(path: Path, *, typing_only: bool) -> frozenset[str]:
    """Return the names that a module imports; without ``typing_only`` only those that are imported at run time."""
    return frozenset(_imports(syntax_tree(path), typing_only=typing_only))


def _imports(tree: ast.Module, *, typing_only: bool) -> Iterator[str]:
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


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    graph = {name: used & graph.keys() for name, used in graph.items()}
    while graph:
        leaves = {name for name, used in graph.items() if not used & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        for name in leaves:
            del graph[name]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    ours = ROOMS.keys() | {"tests", "benchmarks"}
    for path in modules_of(room):
        used = {name.split(".")[0] for name in imports(path, typing_only=True)} & ours
        assert used <= ROOMS[room] | {room}, module_name(path)


def test_the_table_of_rooms_in_the_documents_is_current() -> None:
    page = (ROOT / "docs" / "understand" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)/` \| .+ \| (.+) \|$", page, re.MULTILINE))
    words = {"nothing of ours": set(), "all of them": ROOMS["app"]}
    assert {room: words.get(text, set(text.split(", "))) for room, text in rows.items()} == ROOMS


def test_the_public_face_is_typed_and_imports_only_its_names() -> None:
    path = ROOT / "resolution_ledger" / "__init__.py"
    used = {name.split(".")[0] for name in imports(path, typing_only=True)} & ROOMS.keys()
    assert used == {"domain", "projections", "resolution_ledger"}
    assert "Any" not in path.read_text().split()


def test_modules_form_no_circle() -> None:
    names = {module_name(path): path for path in MODULES}
    assert_no_circle(
        {name: set(imports(path, typing_only=False)) & names.keys() - {name} for name, path in names.items()}
    )


@pytest.mark.parametrize("room", ROOMS)
def test_the_folders_of_a_room_form_no_circle(room: str) -> None:
    """Modules in the room's own folder stand outside: some put the folders together, some are used by all of them."""
    folders = {
        path.name: [module_name(module) for module in path.rglob("*.py")]
        for path in (ROOT / room).iterdir()
        if path.is_dir() and any(path.glob("*.py"))
    }
    home = {module: folder for folder, modules in folders.items() for module in modules}
    graph: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        if (here := home.get(module_name(path))) is not None and module_name(path).startswith(f"{room}."):
            graph[here] |= {home[name] for name in imports(path, typing_only=False) if name in home} - {here}
    assert_no_circle(dict(graph))


@pytest.mark.parametrize("room", ROOMS)
def test_functions_stay_short(room: str) -> None:
    for path in modules_of(room):
        for node in ast.walk(syntax_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 70, f"{module_name(path)}.{node.name} has {length} lines"


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[len(ROOT.parts)] == "domain"], ids=module_name)
def test_the_domain_is_pure(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path, typing_only=True)} - {"domain"}
    assert used <= PURE, f"imports {sorted(used - PURE)}"
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert f"{node.value.id}.{node.attr}" not in IMPURE, f"line {node.lineno}: {node.value.id}.{node.attr}"
        if isinstance(node, ast.Name):
            assert node.id not in {"open", "print", "input"}, f"line {node.lineno}: {node.id}"


def test_no_folder_holds_too_many_files() -> None:
    counts: dict[Path, int] = defaultdict(int)
    for path in MODULES:
        counts[path.parent] += 1
    assert {str(folder): number for folder, number in counts.items() if number > FILES_OF_A_FOLDER} == {}


@pytest.mark.parametrize("folder", [*ROOMS, "tests", "benchmarks"])
def test_the_formatter_has_no_exceptions(folder: str) -> None:
    mark = "# " + "fmt:"
    assert [str(path) for path in (ROOT / folder).rglob("*.py") if mark in path.read_text()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_each_package_is_ours(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__file__
    assert Path(module.__file__).is_relative_to(ROOT)
