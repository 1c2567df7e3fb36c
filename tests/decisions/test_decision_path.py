"""The path of an action stays short: functions and modules from the arrival of a request to its answer."""

from pathlib import Path

import pytest

from benchmarks.decision_path import paths

pytestmark = pytest.mark.integration
MOST = {"plain": (44, 13), "with customer and interaction": (52, 13)}
"""Kind of request -> the most functions and modules of `consumers/` and `domain/decisions/`, without the codec.

Two of them ask whether a fact has reported this action already, which is one question more than before rules 3. Three
see to it that another decider's events on the same subjects were read, since one may be the first answer."""


async def test_an_action_passes_few_functions_and_modules(tmp_path: Path) -> None:
    found = await paths(tmp_path / "ledger")
    assert found.keys() == MOST.keys()
    for name, path in found.items():
        functions, modules = MOST[name]
        assert path.functions <= functions, path.counted
        assert len(path.counted) <= modules, path.counted
