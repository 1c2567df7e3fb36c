"""The list of changes that no oracle notices: each exists, has a reason, and they are few."""

from __future__ import annotations

import pytest

from benchmarks.mutants import ENOUGH, FOLDERS, MODULES
from benchmarks.mutations import mutants_of
from benchmarks.survivors import reasons, unknown, without_reason
from tests.support.environment import ROOT

SHOWN = {"projections.reports.weekly_page", "projections.reports.weekly_report"}
PREVIEWED = {"projections.reports.authority_now"}
"""Compared with the decider's preview (tests/dashboard/test_own_authority.py)."""
"""Modules that show figures of the summary; `tests/reports/test_weekly_report.py` compares them."""


def test_each_survivor_exists_and_has_a_reason() -> None:
    known = reasons()
    assert unknown(known) == []
    assert list(without_reason(known)) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_most_changes_of_a_folder_are_noticed(folder: str) -> None:
    inside = [name for name in MODULES if f"{name}.".startswith(f"{folder}.")]
    of = sum(len(mutants_of(name)) for name in inside)
    left = sum(len(lines) for name, lines in reasons().items() if name in inside)
    assert left <= (1 - ENOUGH) * of


def test_each_module_with_a_figure_is_mutated() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder.replace(".", "/")).rglob("*.py")]
    names = {str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in files}
    assert {name for name in names if not name.endswith("__init__")} - set(MODULES) - SHOWN - PREVIEWED == set()
