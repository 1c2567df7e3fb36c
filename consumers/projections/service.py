"""The runner of projections: each follows the log by itself; one that stops does not stop the others.

No FastStream subscriber: a view's position is in the view, committed with it, so there is nothing to
acknowledge. What FastStream publishes is the news that a view has moved.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from faststream.nats import NatsMessage  # noqa: TC002 - FastStream reads the annotations

from config import topology
from consumers.queries.briefs import Briefs
from consumers.runtime.background_service import fails_with, keep_going
from consumers.runtime.broker import answered, make_broker
from domain.serialization import encode
from ledger.nats.client import connect
from ledger.store.cloudevents import time_text
from ledger.store.role_status import Pulse, Reading, RoleStatus
from ledger.store.shared_tail import SharedTail
from projections.engine.projector import run_for_ever
from projections.engine.storage import claim, live_generation, progress_of, views_folder
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from faststream.nats import NatsBroker
    from faststream.nats.publisher.usecase import LogicPublisher

    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.log import Log
    from projections.engine.projection import Projection
    from projections.engine.storage import Progress

_log = logging.getLogger(__name__)
_CLAIM_SECONDS = 0.2


class ProjectionService:
    """Start it, and wait for ``failed``, which ends only when the log is not what it was."""

    def __init__(self, server: NatsServer, log: Log, data_dir: Path) -> None:
        self._server = server
        self._log = log
        self._folder = views_folder(data_dir)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._clients: list[LedgerClient] = []
        self._pulses = {name: Pulse(name, lambda: False) for name in MODELS}
        self.broker = make_broker(server, "projections")
        self._news = declare_views(self.broker)
        declare_briefs(self.broker, Briefs(log.client, log, self._folder))

    async def start(self) -> None:
        """Begin to follow."""
        self._folder.mkdir(parents=True, exist_ok=True)
        await self.broker.start()
        tail = SharedTail(await self._connected("projections"), self._log, "projections")
        self._begin(tail.run())
        for name, make in MODELS.items():
            run = partial(self._run, make(), await self._connected(f"projection {name}"), tail)
            self._begin(keep_going(f"the projection {name}", run, self._pulses[name]))

    def status(self) -> RoleStatus:
        """Return how far each view is that this process runs, as it stands in its file."""
        readings, absent = [], []
        for name, pulse in self._pulses.items():
            if pulse.active:
                model = MODELS[name]()
                progress = progress_of(self._folder, model)
                if progress is None and (generation := live_generation(self._folder, model)) is not None:
                    absent.append(f"views/{name}.g{generation}.sqlite")
                    continue
                stop = progress.stopped if progress is not None else None
                stopped = "" if stop is None else f"position {stop.position} ({stop.type}): {stop.reason}"
                position = None if progress is None else progress.anchor.position
                readings.append(Reading(name, position, pulse.still_seconds, stopped))
        loops = tuple(pulse.loop() for pulse in self._pulses.values() if pulse.active)
        return RoleStatus(role="projections", loops=loops, readings=tuple(readings), absent=tuple(absent))

    async def _connected(self, name: str) -> LedgerClient:
        client = await connect(self._server, name)
        self._clients.append(client)
        return client

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(fails_with(self.failed, "projections"))
        self._tasks.append(task)

    async def stop(self) -> None:
        """Leave; each view keeps its position."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()
        await self.broker.stop()

    async def _run(self, model: Projection, client: LedgerClient, tail: SharedTail) -> None:
        pulse = self._pulses[model.name]

        async def committed(progress: Progress) -> None:
            pulse.beat(progress.anchor.position)
            news = {"position": progress.anchor.position, "at": time_text(datetime.now(UTC))}
            await self._news[model.name].publish(encode(news))

        while True:
            with claim(self._folder, model.name) as ours:
                pulse.active = ours
                if ours:
                    await run_for_ever(model, self._folder, client, self._log, tail, committed)
            await asyncio.sleep(_CLAIM_SECONDS)  # a report is catching up, or another runner runs it


def declare_briefs(broker: NatsBroker, briefs: Briefs | None) -> None:
    """The requests that views answer."""

    @broker.subscriber(
        f"{topology.READ_SUBJECT}.*.brief",
        queue="briefs",
        title="brief",
        description="A customer's matters, promises, actions so far, and what this agent may give now.",
    )
    async def brief(message: NatsMessage) -> bytes:
        assert briefs is not None
        return await answered(message, briefs.answer)


def declare_views(broker: NatsBroker) -> dict[str, LogicPublisher]:
    """A publisher of news for each view."""
    return {
        name: broker.publisher(
            f"{topology.VIEWS_SUBJECT}.{name}",
            title=name,
            description="{position, at} after each commit of the view.",
        )
        for name in MODELS
    }
