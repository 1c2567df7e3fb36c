"""Mutate comparisons and constants of the reports, and count the mutants that an oracle of the reports notices.

Run ``python -m benchmarks.mutants``. Each mutant changes one comparison, one number or one arithmetic operator of a
module. A forked process makes the mutated module, builds the reports of random histories, and compares them with the
oracle's figures. A mutant that changes no figure survives; it is printed with its line.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import os
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tests.support import oracle_histories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

MODULES = {
    "domain.analytics.consistency": "quality",
    "domain.analytics.empowerment_gap": "gap",
    "domain.analytics.unused_authority": "gap",
    "domain.analytics.procedure_cost": "gap",
    "domain.analytics.service_quality": "quality",
    "domain.analytics.satisfaction": "quality",
    "domain.analytics.recognition": "recognition",
    "domain.analytics.retention": "loyalty",
    "domain.analytics.loyalty.estimators": "loyalty",
    "domain.analytics.loyalty.evaluation": "loyalty",
    "domain.analytics.loyalty.experiments": "loyalty",
    "domain.analytics.loyalty.matching": "loyalty",
    "domain.analytics.loyalty.purchases": "loyalty",
    "projections.reports.empowerment_gap": "gap",
    "projections.reports.loyalty": "loyalty",
    "projections.reports.policy_simulation": "what_if",
    "projections.reports.recognition": "recognition",
    "projections.reports.service_quality": "quality",
    "projections.reports.summary": "summary",
}
"""Each module, and the report whose oracle should notice its mutants."""
_SECONDS = 60
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


class Mutant(NamedTuple):
    """A mutant of a module: the number of its place in the tree, its line, and what changes."""

    module: str
    place: int
    line: int
    change: str


def mutants(name: str) -> Iterator[tuple[Mutant, ast.Module]]:
    """Yield the mutants of a module, each with the whole mutated tree."""
    module = importlib.import_module(name)
    with open(module.__file__ or "", encoding="utf-8") as file:  # noqa: PTH123 - a module's own file
        tree = ast.parse(file.read())
    for place, node in enumerate(ast.walk(tree)):
        for change, mutate in _changes(node):
            mutated = copy.deepcopy(tree)
            mutate(list(ast.walk(mutated))[place])
            yield Mutant(name, place, getattr(node, "lineno", 0), change), ast.fix_missing_locations(mutated)


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            other = _COMPARISONS.get(type(operator))
            if other is not None:
                yield f"{type(operator).__name__} -> {other.__name__}", _comparison(at, other)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        new = _OPERATORS[type(node.op)]
        yield f"{type(node.op).__name__} -> {new.__name__}", lambda one: setattr(one, "op", new())
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = node.value
        assert isinstance(value, int | float)
        yield f"{value} -> {value + 1}", lambda one: setattr(one, "value", value + 1)


def _comparison(at: int, other: type[ast.cmpop]) -> Callable[[ast.AST], None]:
    def mutate(node: ast.AST) -> None:
        assert isinstance(node, ast.Compare)
        node.ops[at] = other()

    return mutate


def install(name: str, tree: ast.Module) -> None:
    """Run a mutated module in the place of the module, also for modules that took names from it."""
    module = importlib.import_module(name)
    before = dict(vars(module))
    exec(compile(tree, module.__file__ or name, "exec"), vars(module))
    for other in [
        one for known, one in sys.modules.items() if known.startswith(("domain.", "projections.", "tests.support."))
    ]:
        _rebind(other, before, module)


def _rebind(other: ModuleType, before: dict[str, object], module: ModuleType) -> None:
    for key, value in list(vars(other).items()):
        if key in before and before[key] is value and not key.startswith("__"):
            setattr(other, key, vars(module).get(key, value))


def noticed(name: str, tree: ast.Module, differs: Callable[[], bool]) -> bool:
    """Return whether a forked process with the mutated module notices a difference, fails or does not end."""
    child = os.fork()
    if not child:
        signal.alarm(_SECONDS)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the process ends here
        status = 1
        try:
            install(name, tree)
            status = 1 if differs() else 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] != 0


def main() -> None:
    """Print the survivors of each module with their reasons, and the share of mutants that were noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(MODULES))
    chosen = parser.parse_args().modules
    total, killed = Counter[str](), Counter[str]()
    checks: dict[str, Callable[[], bool]] = {}
    for name in chosen:
        report = MODULES[name]
        if report not in checks:
            checks[report] = oracle_histories.checks_of(report)
            assert not checks[report](), f"{report} differs from its oracle before any mutation"
        for mutant, tree in mutants(name):
            total[name] += 1
            if noticed(name, tree, checks[report]):
                killed[name] += 1
            else:
                print(f"survived  {name}:{mutant.line}  {mutant.change}", flush=True)
        print(f"{name}: {killed[name]} of {total[name]} noticed", flush=True)
    for folder in ("domain.analytics", "projections.reports"):
        every, found = (sum(n for name, n in of.items() if name.startswith(folder)) for of in (total, killed))
        if every:
            print(f"{folder}: {found} of {every} noticed, {found / every:.1%}")


if __name__ == "__main__":
    main()
