"""The repository's own source code, for tests of its rules."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from tests.support.environment import ROOT

ROOMS = ("domain", "ledger", "config", "projections", "consumers", "dashboard", "app", "resolution_ledger")
"""The top-level packages that the product is made of."""
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def modules_of(room: str) -> list[Path]:
    """Return the modules of a room."""
    return [path for path in MODULES if path.relative_to(ROOT).parts[0] == room]


@cache
def syntax_tree(path: Path) -> ast.Module:
    """Return a module's syntax tree; it is parsed once a test run, and callers leave it as it is."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module_name(path: Path) -> str:
    """Return the dotted name by which a module of the repository is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
