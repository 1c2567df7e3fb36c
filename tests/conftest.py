"""Fixtures of all tests: ledgers on real servers, each in a temporary folder and on a port of its own.

A test that starts a process or connects to a server is an integration test. The fixtures here mark it; a test that
starts its own says so with `pytest.mark.integration`. All others are `make test-fast`, and are held to it.
"""

from __future__ import annotations

import gc
import os
import secrets
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import settings

from app.runtime.session import Session
from config.settings import load_settings
from ledger.persistence import JetStreamFactory
from tests.support import forked_cli
from tests.support.environment import ROOT, clean_environment
from tests.support.isolation import Isolation
from tests.support.nats_servers import Cluster, Server
from tests.support.prepared_ledgers import PreparedLedger, prepared_ledger
from tests.support.up_process import UpProcess
from tests.support.upstreams import Upstream, upstream_of, wait_until_answering

if TYPE_CHECKING:
    import subprocess

pytest.register_assert_rewrite("tests.support.decision_scenarios")  # its assertions show what differs

# A busy machine is no finding: tests of properties are bounded by pytest's timeout alone.
settings.register_profile("ledger", deadline=None, max_examples=25)
settings.register_profile("fast", deadline=None, max_examples=15)  # `make test-fast`
settings.register_profile("long", deadline=None, max_examples=100)  # `make test-long`
settings.load_profile("ledger")


gc.set_threshold(50_000, 20, 50)  # a collection looks at all imported modules and kept syntax trees

_OUTSIDE = {"session", "_shared_ledger", "command", "prepared", "up", "nats_server", "cluster"}
"""Fixtures that start processes; `upstream`, `es_env` and `factories` rest on them."""
_isolation = Isolation()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that uses a fixture with a process as an integration test.

    Those wait for other processes on a machine that may be busy: one that fails runs once more, and the summary names it.
    """
    for item in items:
        if isinstance(item, pytest.Function) and _OUTSIDE & set(item.fixturenames):
            item.add_marker(pytest.mark.integration)
        if item.get_closest_marker("integration") is not None:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_collection_finish() -> None:
    """Keep modules and tests out of the garbage collector's sight, since they live until the end."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let them be collected, since libraries report objects that are not."""
    gc.unfreeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Refuse processes and connections while a test is set up that is no integration test."""
    with nullcontext() if item.get_closest_marker("integration") else _isolation.enforced():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Refuse them while it runs; fail it although the code under test has swallowed the error.

    The end of the last test of a module is not guarded: fixtures of the whole module end with it, too.
    """
    if item.get_closest_marker("integration") is not None:
        return (yield)
    with _isolation.enforced():
        result = yield
    if _isolation.attempts:
        pytest.fail(f"not marked `integration`, but: {_isolation.attempts}")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Collect garbage after each file: circles hold whole databases, of which the collector sees a few objects."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
    return result


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    """Open a new ledger on an embedded server, in a folder of its own."""
    async with Session(load_settings({"data_dir": str(tmp_path / "data")}, {})) as opened:
        yield opened


@pytest.fixture
async def upstream(session: Session) -> AsyncIterator[Upstream]:
    """Run intake and decisions on the session's ledger, and give an upstream beside them."""
    async with upstream_of(session) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _shared_ledger(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Upstream]:
    folder = tmp_path_factory.mktemp("shared")
    async with Session(load_settings({"data_dir": str(folder / "data")}, {})) as session, upstream_of(session) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def shared_upstream(_shared_ledger: Upstream) -> Upstream:
    """Run intake and decisions on one ledger for all tests of a module that ask for it.

    Each of those tests uses ids of its own, and is marked `asyncio(loop_scope="module")`. While other tests run, the
    module's event loop answers no PING, and the server may have closed its connections.
    """
    await wait_until_answering(_shared_ledger)
    return _shared_ledger


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `resolution-ledger` in a process of its own, on a data directory of the test's."""

    def run(
        *arguments: str, data_dir: Path | None = tmp_path / "data", stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        where = ("--data-dir", str(data_dir)) if data_dir else ()
        return forked_cli.run([*arguments, *where], ROOT, clean_environment(), stdin, timeout=240)

    return run


@pytest.fixture
def prepared(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Callable[..., PreparedLedger]:
    """Put a copy of the ledger that a command makes into the test's data directory; the command runs once in a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return partial(prepared_ledger, shared, tmp_path / "data")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[UpProcess]:
    """Start `up`, and stop it when the test ends."""
    started = UpProcess(tmp_path / "data")
    yield started
    if started.process.poll() is None:
        started.stop()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a plain nats-server for all tests of one process; each test uses streams of its own."""
    with Server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three plain nats-servers of the test's own, as one cluster."""
    with Cluster(tmp_path / "cluster") as started:
        yield started


@pytest.fixture
def es_env(nats_server: Server) -> dict[str, str]:
    """Return the settings of an `eventsourcing` application on JetStream, with streams of its own."""
    return {
        "PERSISTENCE_MODULE": "ledger.persistence",
        "NATS_URL": nats_server.url,
        "NATS_STREAM": f"t{secrets.token_hex(6)}",
    }


@pytest.fixture
def factories(es_env: dict[str, str]) -> Iterator[Callable[[], JetStreamFactory]]:
    """Return a maker of factories on the same streams, each with a connection and caches of its own."""
    made: list[JetStreamFactory] = []

    def make() -> JetStreamFactory:
        made.append(JetStreamFactory(es_env))
        return made[-1]

    yield make
    for factory in made:
        factory.close()
