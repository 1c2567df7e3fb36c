"""Faults by a seed over real processes under load: three short schedules here; twenty, and an upgrade, by `make test-long`.

`python -m tests.support.faults` tries more, and prints the seconds without answers (docs/operate/faults.md).
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from benchmarks.versions import checked_out
from tests.support.environment import long_only
from tests.support.fault_schedules import PROCESSES, kinds_of, schedule_of
from tests.support.fault_topology import Topology
from tests.support.faults import EARLIER, try_schedule, try_seed

QUICK_SEEDS = (1, 5, 36)
"""A cut between a decider and the server; SIGKILL of the server, and a cut; a guard that hangs, and SIGKILL of a decider."""
in_one_loop = pytest.mark.asyncio(loop_scope="module")


def test_a_seed_gives_the_same_schedule_again() -> None:
    for options in ({}, {"quick": True}, {"upgrades": True}):
        assert [schedule_of(seed, **options) for seed in range(50)] == [
            schedule_of(seed, **options) for seed in range(50)
        ]


@pytest.mark.parametrize("servers", [1, 3])
def test_all_kinds_of_faults_happen_to_all_their_targets(servers: int) -> None:
    wanted = {(kind.name, target) for kind in kinds_of(servers) for target in kind.targets}
    schedules = [one for one in map(schedule_of, range(2000)) if one.servers == servers]
    assert {(step.kind, step.target) for one in schedules for step in one.steps} == wanted


def test_a_schedule_with_upgrades_replaces_each_process_once() -> None:
    for seed in range(50):
        upgraded = [step.target for step in schedule_of(seed, upgrades=True).steps if step.kind == "upgrade"]
        assert sorted(upgraded) == sorted(PROCESSES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def topology(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Topology]:
    """Run one server and all roles for all short schedules."""
    async with Topology(tmp_path_factory.mktemp("faults"), servers=1) as running:
        yield running


@pytest.mark.integration
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", QUICK_SEEDS)
@in_one_loop
async def test_a_short_schedule_leaves_everything_right(topology: Topology, seed: int) -> None:
    assert (await try_schedule(topology, schedule_of(seed, quick=True))).problems == []


@long_only
@pytest.mark.integration
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(20))
async def test_a_schedule_leaves_everything_right(seed: int) -> None:
    assert (await try_seed(seed)).problems == []


@long_only
@pytest.mark.integration
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(2))
async def test_an_upgrade_in_the_middle_leaves_everything_right(seed: int) -> None:
    assert (await try_seed(seed, earlier=checked_out(EARLIER))).problems == []
