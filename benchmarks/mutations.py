"""Mutants of a module: one comparison, number or arithmetic operator changed."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_TELLING = (
    ast.Compare,
    ast.BinOp,
    ast.BoolOp,
    ast.UnaryOp,
    ast.IfExp,
    ast.Call,
    ast.Subscript,
    ast.Tuple,
    ast.keyword,
    ast.arguments,
    ast.Dict,
)


class Mutant(NamedTuple):
    """A mutant of a module.

    ``place`` is the number of the changed node in the tree, ``part`` that of the comparison in a chain. ``where`` names
    the class or function, ``change`` the expression before and after. ``function`` is the file and first line of the
    function, ``None`` for code that runs at import.
    """

    module: str
    place: int
    part: int
    line: int
    where: str
    change: str
    function: tuple[str, int] | None

    @property
    def key(self) -> str:
        """Return the name of the mutant; it stays the same while its function does."""
        return f"{self.module}:{self.where}: {self.change}"


def mutated(mutant: Mutant) -> ast.Module:
    """Return the mutated tree of the mutant's module."""
    tree, _ = _parsed(mutant.module)
    _change(list(ast.walk(tree))[mutant.place], mutant.part)
    return tree


@cache
def mutants_of(name: str) -> list[Mutant]:
    """Return the mutants of a module."""
    tree, file = _parsed(name)
    scopes, parents = dict[ast.AST, tuple[str, int | None]](), dict[ast.AST, ast.AST]()
    _note(tree, ("", None), scopes, parents)
    told = Counter[str]()
    found: list[Mutant] = []
    for place, node in enumerate(ast.walk(tree)):
        for part in _parts(node):
            where, first = scopes[node]
            change = _changed_text(node, part, parents)
            told[f"{where} {change}"] += 1
            number = told[f"{where} {change}"]
            change += f" ({number})" if number > 1 else ""
            function = None if first is None else (file, first)
            found.append(Mutant(name, place, part, getattr(node, "lineno", 0), where or "module", change, function))
    return found


def _parsed(name: str) -> tuple[ast.Module, str]:
    file = importlib.import_module(name).__file__ or ""
    with open(file, encoding="utf-8") as text:  # noqa: PTH123 - a module's own file
        return ast.parse(text.read()), file


def _note(
    node: ast.AST,
    scope: tuple[str, int | None],
    scopes: dict[ast.AST, tuple[str, int | None]],
    parents: dict[ast.AST, ast.AST],
) -> None:
    """Note the class or function of each node, and its parent; decorators and defaults run outside the function."""
    inner = scope
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        inner = f"{scope[0]}.{node.name}".lstrip("."), first
    elif isinstance(node, ast.ClassDef):
        inner = f"{scope[0]}.{node.name}".lstrip("."), scope[1]
    scopes[node] = scope
    body = getattr(node, "body", ()) if inner is not scope else ()
    for child in ast.iter_child_nodes(node):
        parents[child] = node
        _note(child, inner if not body or child in body else scope, scopes, parents)


def _parts(node: ast.AST) -> Iterator[int]:
    if isinstance(node, ast.Compare):
        yield from (at for at, operator in enumerate(node.ops) if type(operator) in _COMPARISONS)
    elif (isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS) or (
        isinstance(node, ast.Constant) and type(node.value) in (int, float)
    ):
        yield 0


def _change(node: ast.AST, part: int, *, back: bool = False) -> None:
    """Change a node, or take the change back."""
    if isinstance(node, ast.Compare):
        node.ops[part] = _COMPARISONS[type(node.ops[part])]()
    elif isinstance(node, ast.BinOp):
        node.op = _OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value = node.value - 1 if back else node.value + 1


def _changed_text(node: ast.AST, part: int, parents: dict[ast.AST, ast.AST]) -> str:
    """Return the smallest telling expression around a node, before and after the change; the node stays unchanged."""
    around, inside = node, node
    while not isinstance(around, (*_TELLING, ast.stmt)):
        inside, around = around, parents[around]

    def text() -> str:
        if not isinstance(around, ast.Dict):
            return ast.unparse(around)
        place = next(at for at, value in enumerate(around.values) if value is inside)
        key = around.keys[place]
        return f"{'**' if key is None else ast.unparse(key)}: {ast.unparse(around.values[place])}"

    before = text()
    _change(node, part)
    after = text()
    _change(node, part, back=True)
    return f"{before} -> {after}"
