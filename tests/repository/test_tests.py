"""Rules of the tests themselves: their folders, what they share, how long they sleep."""

import ast
from pathlib import Path

import pytest

from tests.support.environment import ROOT
from tests.support.source_code import syntax_tree

TESTS = ROOT / "tests"
FOLDERS = {
    "cli",
    "dashboard",
    "decisions",
    "domain",
    "eventsourcing",
    "importing",
    "intake",
    "ledger",
    "privacy",
    "projections",
    "reports",
    "repository",
    "system",
}
"""One folder a part of the product, as the contents of `docs/understand/architecture.md` name them."""
SHARED = {"support", "golden", "node"}
MODULES = sorted(TESTS.rglob("test_*.py"))
SUPPORT = sorted((TESTS / "support").glob("*.py"))
LONGEST_SLEEP_SECONDS = 1.0


def name_of(path: Path) -> str:
    return str(path.relative_to(TESTS))


def test_each_test_is_in_the_folder_of_a_part() -> None:
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))}
    assert folders == FOLDERS | SHARED
    assert {path.relative_to(TESTS).parts[0] for path in MODULES} == FOLDERS


def test_tests_share_code_through_the_support_folder_alone() -> None:
    for path in [*MODULES, *SUPPORT]:
        nodes = ast.walk(syntax_tree(path))
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        others = {name for name in imported if name.startswith("tests.") and not name.startswith("tests.support")}
        assert others == set(), name_of(path)


@pytest.mark.parametrize("path", SUPPORT, ids=name_of)
def test_each_helper_says_what_it_does(path: Path) -> None:
    tree = syntax_tree(path)
    helpers = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    silent = [one.name for one in helpers if not one.name.startswith("_") and not ast.get_docstring(one)]
    assert ast.get_docstring(tree)
    assert silent == []


@pytest.mark.parametrize("folder", sorted(FOLDERS | {"support"}))
def test_a_long_sleep_has_a_reason(folder: str) -> None:
    """A sleep of more than a second carries a comment in its line; polling is quicker, and does not fail a slow machine."""
    calls = [(path, node) for path in (TESTS / folder).glob("*.py") for node in ast.walk(syntax_tree(path))]
    for path, node in calls:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep"):
            continue
        seconds = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else 0
        if isinstance(seconds, int | float) and seconds > LONGEST_SLEEP_SECONDS:
            line = path.read_text(encoding="utf-8").splitlines()[node.lineno - 1]
            assert "#" in line, f"{name_of(path)}:{node.lineno}: {seconds} seconds"
