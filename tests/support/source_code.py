"""The repository's own source code, parsed, for tests of its rules."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def syntax_tree(path: Path) -> ast.Module:
    """Return a module's syntax tree; it is parsed once a test run, and callers leave it as it is."""
    return ast.parse(path.read_text(encoding="utf-8"))
