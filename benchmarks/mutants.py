"""Mutate comparisons, numbers and operators of the reports, and check that an oracle of the reports notices it.

Run ``python -m benchmarks.mutants``. Each mutant changes one comparison, one number or one arithmetic operator of a
module. A forked process makes the mutated module, builds the reports of fixed histories, and compares them with the
oracle's figures. Only histories whose report runs the mutated function are tried, and the first difference ends the
trial. Results are kept in `.benchmarks/mutants.json`: a run continues where the last one ended, until the module or an
oracle changes.

A mutant that changes no figure survives. `tests/reports/oracle/survivors.toml` gives the reason of each survivor. The
command fails where a reason is absent, where the file names a mutant that is noticed, or where an oracle notices less
than 80 % of a folder's mutants.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import survivors
from benchmarks.mutations import Mutant, mutants_of, mutated
from tests.support import oracle_histories
from tests.support.oracle_histories import Check

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Iterator, Sequence
    from types import CodeType, ModuleType

MODULES = {
    "domain.analytics.averages": "summary",
    "domain.analytics.consistency": "quality",
    "domain.analytics.labels": "quality",
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
    "projections.reports.beyond_authority": "ranges",
    "projections.reports.case_file": "explanation",
    "projections.reports.consistency": "ranges",
    "projections.reports.decision_foundation": "explanation",
    "projections.reports.empowerment_gap": "gap",
    "projections.reports.explanation": "explanation",
    "projections.reports.explanation_text": "explanation",
    "projections.reports.limit_simulation": "gap",
    "projections.reports.loyalty": "loyalty",
    "projections.reports.policy_simulation": "what_if",
    "projections.reports.recognition": "recognition",
    "projections.reports.service_quality": "quality",
    "projections.reports.summary": "summary",
    "projections.reports.unused_authority": "unused_authority",
    "projections.views.careers": "careers",
}
"""Each module, and the report whose oracle should notice its mutants."""
FOLDERS = ("domain.analytics", "projections.reports", "projections.views.careers")
"""Folders, and a module that counts by itself."""
ENOUGH = 0.8
"""The least share of a folder's mutants that an oracle notices."""
RESULTS = Path(".benchmarks/mutants.json")
ORACLES = ("tests/reports/oracle/*.sql", "tests/support/*_histories.py", "tests/support/*_comparisons.py")
_TOOL = sys.monitoring.COVERAGE_ID
_IN_MODULES = ("app.", "dashboard.", "domain.", "projections.", "tests.support.")


class Trial(NamedTuple):
    """A check of a report over one history, the CPU seconds that it takes, and the functions that it runs."""

    check: Check
    seconds: float
    runs: frozenset[tuple[str, int]]


class Result(NamedTuple):
    """The check that noticed a mutant, or ``None``; ``state`` identifies the module and the oracles."""

    noticed_by: str | None
    state: str


def trials_of(report: str, modules: Sequence[str]) -> list[Trial]:
    """Return the trials of a report, the shortest first.

    Raises:
        AssertionError: the report differs from its oracle without any mutation.

    """
    imported = [importlib.import_module(name) for name in modules]
    files = {module.__file__ for module in imported}
    cached = [value for module in imported for value in vars(module).values() if hasattr(value, "cache_clear")]
    found: list[Trial] = []
    for check in oracle_histories.checks_of(report):
        runs: set[tuple[str, int]] = set()

        def started(code: CodeType, _offset: int, runs: set[tuple[str, int]] = runs) -> object:
            if code.co_filename in files:
                runs.add((code.co_filename, code.co_firstlineno))
            return sys.monitoring.DISABLE

        assert not check.differs(), f"{check.name} differs from its oracle before any mutation"
        for value in cached:
            value.cache_clear()  # else the check would not run the function again
        sys.monitoring.use_tool_id(_TOOL, "mutants")
        sys.monitoring.register_callback(_TOOL, sys.monitoring.events.PY_START, started)
        sys.monitoring.set_events(_TOOL, sys.monitoring.events.PY_START)
        sys.monitoring.restart_events()
        begin = time.process_time()
        check.differs()
        seconds = time.process_time() - begin
        sys.monitoring.set_events(_TOOL, sys.monitoring.events.NO_EVENTS)
        sys.monitoring.free_tool_id(_TOOL)
        found.append(Trial(check, seconds, frozenset(runs)))
    return sorted(found, key=lambda one: one.seconds)


def install(name: str, tree: ast.Module) -> None:
    """Run a mutated module in the place of the module, also for modules that took names from it."""
    module = importlib.import_module(name)
    before = dict(vars(module))
    exec(compile(tree, module.__file__ or name, "exec"), vars(module))
    for other in [one for known, one in sys.modules.items() if known.startswith(_IN_MODULES)]:
        _rebind(other, before, module)


def _rebind(other: ModuleType, before: dict[str, object], module: ModuleType) -> None:
    for key, value in list(vars(other).items()):
        if key in before and before[key] is value and not key.startswith("__"):
            setattr(other, key, vars(module).get(key, value))


class Workers:
    """Forked processes, at most ``most`` at a time, each of which tries one mutant."""

    def __init__(self, most: int, ended: Callable[[Mutant, str | None], None]) -> None:
        self._most, self._ended = most, ended
        self._running: dict[int, tuple[Mutant, int]] = {}

    def start(self, mutant: Mutant, trials: Sequence[Trial]) -> None:
        """Try a mutant; wait first where ``most`` processes run."""
        if len(self._running) >= self._most:
            self._wait()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            _try(mutant, trials, writing)
        os.close(writing)
        self._running[child] = mutant, reading

    def finish(self) -> None:
        """Wait for all processes."""
        while self._running:
            self._wait()

    def _wait(self) -> None:
        child, status = os.waitpid(-1, 0)
        mutant, reading = self._running.pop(child)
        with os.fdopen(reading) as told:
            names = told.read().splitlines()
        self._ended(mutant, names[-1] if status else None)


def _try(mutant: Mutant, trials: Sequence[Trial], writing: int) -> None:
    """Run trials until one differs, fails or does not end; the last name written is that of the trial."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the process ends here
    most = 10 + 10 * int(sum(one.seconds for one in trials))
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    status = 1
    try:
        os.write(writing, b"import\n")
        install(mutant.module, mutated(mutant))
        for one in trials:
            os.write(writing, f"{one.check.name}\n".encode())
            if one.check.differs():
                break
        else:
            status = 0
    finally:
        os._exit(status)


class Run:
    """A run over modules, with the results of earlier runs; ``trust`` keeps them where an oracle has changed."""

    def __init__(self, workers: int, *, trust: bool) -> None:
        self.trust, self._workers = trust, workers
        self.results = _known_results()
        self._new: dict[str, Result] = {}
        self._oracles = b"".join(path.read_bytes() for pattern in ORACLES for path in sorted(Path().glob(pattern)))
        self._started, self._states = Counter[str](), dict[str, str]()

    def over(self, report: str, modules: Sequence[str]) -> None:
        """Try all mutants of modules whose result is not known."""
        todo = [one for name in modules for one in mutants_of(name) if not self._known(one)]
        if not todo:
            return
        trials = trials_of(report, modules)
        workers = Workers(self._workers, self._ended)
        for mutant in todo:
            running = [one for one in trials if mutant.function is None or mutant.function in one.runs]
            last = self.results.get(mutant.key)
            running.sort(key=lambda one: last is None or one.check.name != last.noticed_by)
            workers.start(mutant, running)
        workers.finish()

    def _known(self, mutant: Mutant) -> bool:
        last = self.results.get(mutant.key)
        return last is not None and (last.state == self._state(mutant.module) or (self.trust and bool(last.noticed_by)))

    def _state(self, module: str) -> str:
        if module not in self._states:
            source = Path(importlib.import_module(module).__file__ or "").read_bytes()
            self._states[module] = hashlib.sha256(source + self._oracles).hexdigest()[:16]
        return self._states[module]

    def _ended(self, mutant: Mutant, noticed_by: str | None) -> None:
        self._new[mutant.key] = self.results[mutant.key] = Result(noticed_by, self._state(mutant.module))
        if noticed_by is None:
            print(f"survived  {mutant.module}:{mutant.line}  {mutant.change}", flush=True)
        self._started[mutant.module] += 1
        if self._started[mutant.module] % 20 == 0:
            self.save()

    def save(self) -> None:
        """Write the results, beside those of another run that may have ended in the meantime."""
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(_known_results() | self._new, indent=1), encoding="utf-8")


def _known_results() -> dict[str, Result]:
    told = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return {key: Result(*value) for key, value in told.items()}


def _shares(chosen: Sequence[str], left: set[str]) -> Iterator[str]:
    """Yield the share of noticed mutants of each module and folder; a folder with too few begins with a star."""
    every = {name: [one.key for one in mutants_of(name)] for name in chosen}
    found = {name: sum(key not in left for key in keys) for name, keys in every.items()}
    for name in chosen:
        yield f"  {name}: {found[name]} of {len(every[name])}"
    for folder in FOLDERS:
        inside = [name for name in chosen if f"{name}.".startswith(f"{folder}.")]
        noticed, of = sum(found[name] for name in inside), sum(len(every[name]) for name in inside)
        if of:
            yield f"{' ' if noticed >= ENOUGH * of else '*'} {folder}: {noticed} of {of}, {noticed / of:.1%}"


def main() -> None:
    """Try mutants; print the survivors and the share that was noticed, by module and folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(MODULES))
    parser.add_argument(
        "--survivors", action="store_true", help="try again only what survived or is new: fast, while oracles grow"
    )
    parser.add_argument("--write", action="store_true", help="write the survivors to survivors.toml, with old reasons")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    options = parser.parse_args()
    run = Run(options.workers, trust=options.survivors)
    try:
        for report in dict.fromkeys(MODULES.values()):
            run.over(report, [name for name in options.modules if MODULES[name] == report])
    finally:
        run.save()
    left = [one for name in options.modules for one in mutants_of(name) if run.results[one.key].noticed_by is None]
    shares = list(_shares(options.modules, {one.key for one in left}))
    print(*shares, sep="\n")
    if options.write:
        survivors.write(left, options.modules)
    wrong = survivors.problems(left, options.modules)
    print(*wrong, sep="\n")
    sys.exit(bool(wrong) or any(line.startswith("*") for line in shares))


if __name__ == "__main__":
    main()
