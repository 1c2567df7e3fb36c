"""The seal and the archive at a million events: sealing, verification, proofs, archive and restore."""

from __future__ import annotations

import asyncio
import random
import time
from statistics import median
from typing import TYPE_CHECKING

from app.runtime.archive import restore, verify_archive
from app.runtime.seal import verification
from app.runtime.session import Session
from benchmarks.contest import Contest, contest, rate
from benchmarks.ledgers import fact
from config.settings import load_settings
from consumers.seal.archive_service import archive_log, archive_of
from consumers.seal.service import seal_log
from ledger.store.log import Draft
from ledger.store.subscription import Follower
from ledger.transparency.proofs import Proof, prove, verify_proof
from ledger.transparency.sealer import seal_folder

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.contest import Run
    from benchmarks.context import BenchmarkContext

NEEDED = "target"
EVENTS = 1_000_000
PROOFS = 2_000


async def seals(context: BenchmarkContext) -> list[Contest]:
    """Measure each once over the whole log, beside the reading of the same log."""
    number = context.scaled(EVENTS)
    folder = context.folder / "million"
    async with Session(load_settings({"data_dir": str(folder)}, {})) as session:
        await fill(session, number)
        work = _Work(session, number)
        results = [
            await contest(
                "seal, tiles and checkpoints",
                "events per s",
                {"seal": work.seal, "only reading the log": work.read, NEEDED: constant_target(20_000)},
                needs={NEEDED: 1},
                rounds=1,
            ),
            await contest(
                "verify, from the stream",
                "events per s",
                {"audit verify": work.verify, "only reading the log": work.read, NEEDED: constant_target(40_000)},
                needs={NEEDED: 1},
                rounds=1,
            ),
            await contest(
                "archive, to Parquet",
                "events per s",
                {"archive": work.archive, "only reading the log": work.read, NEEDED: constant_target(50_000)},
                needs={NEEDED: 1},
                rounds=1,
            ),
            await contest(
                "verify, from the archive",
                "leaves per s",
                {
                    "all cores": work.verify_archive(None),
                    "one thread": work.verify_archive(1),
                    NEEDED: constant_target(500_000),
                },
                needs={NEEDED: 1},
            ),
            await contest(
                "a proof made, median", "ms", {"prove": work.prove, NEEDED: constant_target(5)}, needs={NEEDED: 1}
            ),
            await contest(
                "a proof checked, median",
                "ms",
                {"verify-proof": work.check, NEEDED: constant_target(1)},
                needs={NEEDED: 1},
            ),
        ]
        results.append(
            await contest(
                "from an event to its signed checkpoint, the slowest of 100",
                "ms",
                {"run seal": lambda _round: _delay(context), NEEDED: constant_target(1_000)},
                needs={NEEDED: 1},
                rounds=1,
            )
        )
    results.append(
        await contest(
            "restore, into an empty server",
            "events per s",
            {"restore": _restoring(context.folder, folder, number), NEEDED: constant_target(20_000)},
            needs={NEEDED: 1},
            rounds=1,
        )
    )
    return results


async def fill(session: Session, number: int) -> None:
    """Record so many purchases, a thousand a batch."""
    for at in range(0, number, 1000):
        await session.log.append([Draft("ledger.fact.bench", fact(one)) for one in range(at, min(at + 1000, number))])


def constant_target(figure: float) -> Run:
    """Return a constant target as a contestant."""

    async def run(_round: int) -> float:
        return figure

    return run


class _Work:
    """Timed operations on one log."""

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._number = number
        self._seal = seal_folder(session.data_dir)
        self._archive = archive_of(session.data_dir)

    async def read(self, _round: int) -> float:
        client, begun = await self._session.connection("read"), time.perf_counter()
        async for _ in Follower(client, self._session.log, "bench").batches(until=self._number):
            pass
        return rate(self._number, begun)

    async def seal(self, _round: int) -> float:
        client, begun = await self._session.connection("seal"), time.perf_counter()
        await seal_log(client, self._session.log, self._seal, until=self._number)
        return rate(self._number, begun)

    async def verify(self, _round: int) -> float:
        begun = time.perf_counter()
        result = await verification(self._session, (), (), progressed=lambda _done, _of: None)
        assert result["findings"] == []
        return rate(self._number, begun)

    async def archive(self, _round: int) -> float:
        client, begun = await self._session.connection("archive"), time.perf_counter()
        assert await archive_log(client, self._session.log, self._archive, self._seal) == self._number
        return rate(self._number, begun)

    def verify_archive(self, processes: int | None) -> Run:
        async def run(_round: int) -> float:
            begun = time.perf_counter()
            found = await verify_archive(
                self._archive.folder, self._seal, (), lambda _done, _of: None, self._session.settings, processes
            )
            assert found == []
            return rate(self._number, begun)

        return run

    async def prove(self, _round: int) -> float:
        return median(self._proofs()[0])

    def _proofs(self) -> tuple[list[float], list[Proof]]:
        """Make proofs of positions all over the log, each from tiles that were not read before."""
        newest = self._seal.checkpoint()
        assert newest is not None
        took, proofs = list[float](), list[Proof]()
        for position in random.Random(7).sample(range(1, newest.size + 1), min(PROOFS, newest.size)):
            begun = time.perf_counter()
            proofs.append(prove(self._seal.tiles(newest.size), newest, position))
            took.append((time.perf_counter() - begun) * 1000)
        return took, proofs

    async def check(self, _round: int) -> float:
        verifiers, took = self._seal.verifiers(), list[float]()
        for proof in self._proofs()[1]:
            begun = time.perf_counter()
            verify_proof(proof, verifiers)
            took.append((time.perf_counter() - begun) * 1000)
        return median(took)


async def _delay(context: BenchmarkContext) -> float:
    """Return milliseconds until an event is sealed, with an event every tenth of a second."""
    session, slowest = context.session, 0.0
    async with context.role("seal"):
        seal = seal_folder(session.data_dir)
        for number in range(101):
            position = await session.log.append([Draft("ledger.fact.bench", fact(number))])
            begun = time.perf_counter()
            while (newest := seal.checkpoint()) is None or newest.size < position:  # noqa: ASYNC110 - a file tells
                await asyncio.sleep(0.005)
            if number:  # the first one also waits for the start of the role and the sealing of older events
                slowest = max(slowest, time.perf_counter() - begun)
            await asyncio.sleep(0.1)
    return slowest * 1000


def _restoring(folder: Path, source: Path, number: int) -> Run:
    async def run(turn: int) -> float:
        async with Session(load_settings({"data_dir": str(folder / f"restored-{turn}")}, {})) as session:
            begun = time.perf_counter()
            done = await restore(session, source / "archive", (), lambda _done, _of: None)
            assert done["restored"] == number
            return rate(number, begun)

    return run
