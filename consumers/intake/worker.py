"""The recording part of the intake: pulls messages from all inboxes, and acknowledges recorded and rejected ones.

It pulls without FastStream, which takes a queue entry and a coroutine for each message
(docs/decisions/nats-connections.md).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import nats.errors

from config import topology
from consumers.intake.inbox_message import message_of
from consumers.intake.inboxes import Inboxes
from consumers.intake.lanes import IntakeLanes
from consumers.intake.places import places_gone
from ledger import traces
from ledger.background_service import BackgroundService
from ledger.nats.inbox_routes import SourceRoutes
from ledger.nats.incidents import report
from ledger.store.fan_in import FanIn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from consumers.intake.inbox_message import Message
    from consumers.intake.recorder import Intake
    from ledger.nats.client import LedgerClient
    from ledger.store.lease import Lease
    from ledger.store.role_status import Heartbeat

_ACK = b"PUB %b 4\r\n+ACK\r\n"
_IDLE_SECONDS = 1.0
_HELD_SECONDS = 0.02
_FAILED_SECONDS = 2.0


class InboxSettings(NamedTuple):
    """The routes of an embedded server, the replicas of new streams, and whether to create deleted streams again."""

    routes: SourceRoutes | None
    replicas: int
    creates: bool


class IntakeWorker(BackgroundService):
    """The part of the intake that records, from ``start`` to ``stop``."""

    def __init__(
        self,
        client: LedgerClient,
        intake: Intake,
        inboxes: InboxSettings,
        known: Iterable[str],
        pulse: Heartbeat,
        lease: Lease,
        failed: asyncio.Future[None],
    ) -> None:
        """``known`` are the sources with recorded events."""
        super().__init__("intake", failed)
        self._client = client
        self._intake = intake
        self._pulse, self._lease = pulse, lease
        gone = partial(places_gone, client)
        self._lanes = IntakeLanes(intake, self._acknowledge, self.fail, gone, lease.note_failure)
        self._fan_in = FanIn(client, topology.INTAKE_CONSUMER)
        self._inboxes = Inboxes(client, self._fan_in, inboxes.routes, inboxes.replicas, creates=inboxes.creates)
        self._inboxes.on_handover = intake.read_again
        self._inboxes.last_noted = intake.places.last_of
        self._known = known

    async def start(self) -> None:
        """Take over all inboxes, then start to record."""
        await self._fan_in.start()
        await self._inboxes.open(self._known)
        self._intake.on_source = self._inboxes.learn
        for work in (self._record, self._inboxes.run, self._inboxes.recover):
            self.spawn(work())

    async def stop(self) -> None:
        """Stop; the next intake gets the messages that are not acknowledged, in their order."""
        await self._fan_in.stop()
        await super().stop()
        await self._lanes.stop()

    async def _record(self) -> None:
        while True:
            wait = _HELD_SECONDS if self._inboxes.holds else _IDLE_SECONDS
            try:
                batch = await self._inboxes.admit(await self._fan_in.next(topology.INTAKE_BATCH, wait))
                with traces.batch(topology.INBOX, "intake", ((one.headers, one.data) for one in batch)):
                    await self._lanes.take([message_of(one) for one in batch])
                self._pulse.beat()
            except Exception as error:  # noqa: BLE001 - our own errors delay the intake, and must not end it
                report("the intake failed and begins again", error, error)
                self._lease.note_failure()
                self._pulse.wait(f"an error of ours, see the log: {error!r}")
                self._fan_in.lose(self._fan_in.streams)  # the server delivers the pulled messages again
                await asyncio.sleep(_FAILED_SECONDS)

    def _acknowledge(self, messages: Sequence[Message]) -> None:
        self._lease.note_success()
        with suppress(nats.errors.Error):  # they are delivered again, and are duplicates then
            self._client.send(b"".join([_ACK % message.reply for message in messages]))
