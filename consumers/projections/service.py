"""The role `projections`: runs each projection in a task of its own, so that one that stops does not stop the others.

It reads the log without FastStream: a view commits its own position, so there is nothing to acknowledge. FastStream
publishes the updates of views.
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
from consumers.runtime.broker import answered, make_broker
from consumers.runtime.source_watch import SourceWatch
from domain.serialization import encode
from ledger.background_service import RoleService, restarting
from ledger.errors import UnavailableError
from ledger.store.cloudevents import time_text
from ledger.store.role_status import Heartbeat, ReaderStatus, RoleStatus
from ledger.store.shared_tail import SharedTail
from projections.engine.projector import run_for_ever
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faststream.nats import NatsBroker
    from faststream.nats.publisher.usecase import LogicPublisher

    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.log import Log
    from projections.engine.projection import Projection
    from projections.engine.projector import Build
    from projections.engine.storage import ViewStore

_log = logging.getLogger(__name__)
_AGAIN_SECONDS = 10.0
"""The time after a build that ended early, for instance because memory was short."""


class ProjectionService(RoleService):
    """The projections as a service; it fails where the log has changed behind a view."""

    def __init__(
        self,
        server: NatsServer,
        log: Log,
        views: ViewStore,
        build: Build | None = None,
        *,
        admits_unregistered: bool = True,
    ) -> None:
        """``build`` brings views that are far behind to the end of the log, in other processes.

        ``admits_unregistered``: sources that no operator registered may ask for briefs.
        """
        super().__init__("projections")
        self._server = server
        self._log = log
        self._views = views
        self._build = build
        self._pulses = {name: Heartbeat(name, lambda: False) for name in MODELS}
        self.broker = make_broker(server, "projections")
        self._updates = declare_views(self.broker)
        self._sources = SourceWatch(log, admits_unregistered=admits_unregistered)
        declare_briefs(self.broker, Briefs(log.client, log, views, self._sources))

    async def start(self) -> None:
        """Start to read the log."""
        await self._sources.read()
        self.spawn(restarting("the registry of sources", partial(self._sources.follow, self._log.client)))
        await self.broker.start()
        tail = SharedTail(await self.connection(self._server, "projections"), self._log, "projections")
        self.spawn(tail.run())
        for name, make in sorted(MODELS.items()):
            run = partial(self._run, make(), await self.connection(self._server, f"projection {name}"), tail)
            self.spawn(restarting(f"the projection {name}", run, self._pulses[name]))

    def status(self) -> RoleStatus:
        """Return the status of the views that this process runs, read from their databases."""
        readings, absent = [], []
        for name, pulse in self._pulses.items():
            if pulse.active:
                model = MODELS[name]()
                try:
                    progress = self._views.progress_of(model)
                except UnavailableError as error:
                    absent.append(str(error))
                    break
                if progress is None and (generation := self._views.live_generation(model)) is not None:
                    absent.append(self._views.place_of(model, generation))
                    continue
                stop = progress.stopped if progress is not None else None
                stopped = "" if stop is None else f"position {stop.position} ({stop.type}): {stop.reason}"
                position = None if progress is None else progress.anchor.position
                readings.append(ReaderStatus(name, position, pulse.still_seconds, stopped, pulse.is_queued))
        loops = tuple(pulse.loop() for pulse in self._pulses.values() if pulse.active)
        return RoleStatus(
            role="projections", is_working=bool(loops), loops=loops, readings=tuple(readings), absent=tuple(absent)
        )

    async def stop(self) -> None:
        """Stop; each view keeps its position."""
        await super().stop()
        await self.broker.stop()

    async def _run(self, model: Projection, client: LedgerClient, tail: SharedTail) -> None:
        pulse = self._pulses[model.name]

        async def committed(position: int) -> None:
            pulse.beat(position)
            update = {"position": position, "at": time_text(datetime.now(UTC))}
            await self._updates[model.name].publish(encode(update))

        build = None if self._build is None else partial(self._built, self._build, pulse, committed)
        while True:
            with self._views.claim(model.name) as ours:
                pulse.active = ours
                if ours:
                    await run_for_ever(model, self._views, client, self._log, tail, committed, build)
            await asyncio.sleep(self._views.claim_seconds)  # a report or another process runs it

    @staticmethod
    async def _built(
        build: Build,
        pulse: Heartbeat,
        committed: Callable[[int], Awaitable[None]],
        name: str,
        _progressed: Callable[[int], Awaitable[None]],
        *,
        anew: bool,
    ) -> None:
        """Let a view be built, and show the outcome on its pulse."""

        async def progressed(position: int) -> None:
            pulse.is_queued = False
            if anew:  # readers see the live generation, which is another one
                pulse.beat(position)
            else:
                await committed(position)

        pulse.is_queued = True
        try:
            await build(name, progressed, anew=anew)
        except UnavailableError as error:
            pulse.is_queued = False
            pulse.wait(str(error))
            await asyncio.sleep(_AGAIN_SECONDS)
            raise
        finally:
            pulse.is_queued = False


def declare_briefs(broker: NatsBroker, briefs: Briefs | None) -> None:
    """Declare the queries that views answer."""

    @broker.subscriber(
        f"{topology.READ_SUBJECT}.*.brief",
        queue="briefs",
        title="brief",
        description="A customer's interactions, actions and open promises, and the amounts available now.",
    )
    async def brief(message: NatsMessage) -> bytes:
        assert briefs is not None
        return await answered(message, briefs.answer)


def declare_views(broker: NatsBroker) -> dict[str, LogicPublisher]:
    """Return a publisher of updates for each view."""
    return {
        name: broker.publisher(
            f"{topology.VIEWS_SUBJECT}.{name}",
            title=name,
            description="{position, at} after each commit of the view.",
        )
        for name in MODELS
    }
