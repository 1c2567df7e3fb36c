"""The role `intake`: records facts when it is this process's turn, and answers requests about events."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from faststream.nats import NatsMessage  # noqa: TC002 - FastStream reads the annotations

from config import topology
from consumers.intake.event_check import EventCheck
from consumers.intake.inbox_message import Message, events_in
from consumers.intake.receipts import Receipts
from consumers.intake.recorder import Intake
from consumers.intake.validation import Rejection
from consumers.intake.worker import InboxSettings, IntakeWorker
from consumers.privacy.erasure import forget_again
from consumers.rejections import rejected_owner
from consumers.runtime.broker import answered, make_broker
from consumers.runtime.precedence import Precedence
from consumers.runtime.source_watch import SourceWatch
from domain.serialization import encode
from ledger.background_service import RoleService, restarting
from ledger.encryption.keyring import Keyring
from ledger.errors import LedgerError
from ledger.store.event_id_index import EventIdIndex
from ledger.store.lease import Lease
from ledger.store.role_status import Heartbeat, RoleStatus
from ledger.store.snapshots import Snapshots, restore_alone

if TYPE_CHECKING:
    from pathlib import Path

    from faststream.nats import NatsBroker

    from consumers.intake.validation import Accepted
    from domain.serialization import JsonObject
    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.nats.inbox_routes import SourceRoutes
    from ledger.store.content_modes import Headers
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_STANDBY_SECONDS = 1.0


def snapshots_of(client: LedgerClient) -> Snapshots:
    """Return the copies of the intake's index in its present layout."""
    return Snapshots(client, "intake", "1")


async def restore_intake_index(client: LedgerClient, path: Path) -> None:
    """Bring a missing index near the log's end by a copy, before any process of this directory has it open."""
    await restore_alone(snapshots_of(client), path)


class IntakeService(RoleService):
    """The intake as a service; it fails where the log has changed.

    Of several intakes on one ledger, one records. The others stand by and answer requests.
    """

    _intake: Intake
    _keys: Keyring
    _receipts: Receipts

    def __init__(
        self,
        server: NatsServer,
        client: LedgerClient,
        log: Log,
        rejected: Log,
        index_path: Path,
        *,
        replicas: int = 1,
        routes: SourceRoutes | None = None,
        creates: bool = False,
        admits_unregistered: bool = True,
        precedence: Precedence | None = None,
    ) -> None:
        """``admits_unregistered``: sources that no operator registered may send facts.

        ``creates``: create deleted streams of the ledger again; deleted streams of sources are always created.
        ``precedence`` is that of the decider in this process.
        """
        super().__init__("intake")
        self._client = client
        self._log = log
        self._rejected = rejected
        self._inboxes = InboxSettings(routes, replicas, creates)
        self._precedence = precedence or Precedence()
        self._index = EventIdIndex(index_path)
        self._pulse = Heartbeat("inboxes")
        self._sources = SourceWatch(log, admits_unregistered=admits_unregistered)
        self._check = EventCheck(self._sources)
        self._changed = asyncio.Event()
        self._lease = Lease(client, "intake", self._changed.set)
        self._worker: IntakeWorker | None = None
        self.broker = make_broker(server, "intake")
        declare_intake(self.broker, self)

    async def start(self) -> None:
        """Start to answer, and to record unless another intake does."""
        self._keys = await Keyring.open(self._client)
        await self._keys.watch()
        await forget_again(self._keys, self._log)
        await self._sources.read()
        self.spawn(restarting("the registry of sources", partial(self._sources.follow, self._client)))
        self._intake = Intake(self._log, self._rejected, self._index, self._keys, self._sources)
        self._intake.precedence = self._precedence
        self._receipts = Receipts(self._client, self._log, self._rejected, self._index, self._keys, self._intake)
        await self._lease.start()
        await self._take_turn()
        self.spawn(restarting("the intake's turn", self._take_turns, on_failure=self._lease.note_failure))
        self.spawn(restarting("the end of day keys", self._destroy_day_keys))
        copies = snapshots_of(self._client)
        self.spawn(copies.keep_going(self._index.path, self._index.position, lambda: self._worker is not None))
        await self.broker.start()

    async def stop(self) -> None:
        """Stop; messages that are not acknowledged stay in the inbox."""
        await self.broker.stop()
        await super().stop()
        if self._worker is not None:
            await self._worker.stop()
        await self._lease.stop()  # last, because the next intake takes over at once
        self._index.close()

    def status(self) -> RoleStatus:
        """Return the status of the intake."""
        index = self._index.path
        absent = () if index.exists() else (f"index/{index.name}",)
        totals = (*self._intake.recorded.totals(), *self._intake.rejected.totals())
        loops = (self._pulse.loop(),)
        is_working = self._lease.is_working and not self._lease.is_failing and self._worker is not None
        return RoleStatus(role="intake", is_working=is_working, loops=loops, absent=absent, totals=totals)

    async def _take_turns(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STANDBY_SECONDS):
                    await self._changed.wait()
            if self._worker is None:
                self._pulse.beat()  # this intake stands by
            if self._changed.is_set():
                self._changed.clear()
                await self._take_turn()

    async def _take_turn(self) -> None:
        """Start or stop to record, depending on whether it is this intake's turn."""
        if self._lease.is_ours and self._worker is None:
            known = self._index.sources(f"{topology.FACT_SUBJECT}.")
            worker = IntakeWorker(
                self._client, self._intake, self._inboxes, known, self._pulse, self._lease, self.failed
            )
            try:
                await worker.start()
            except BaseException:
                self._changed.set()
                await worker.stop()
                raise
            self._worker = worker
        elif not self._lease.is_ours and self._worker is not None:
            _log.info("another intake records; this one stands by")
            worker, self._worker = self._worker, None
            await worker.stop()

    async def receipt(self, token: str, body: bytes) -> bytes:
        """Return the receipts of events, or of a message, of this source."""
        return await self._receipts.answer(token, body)

    async def check(self, token: str, body: bytes, headers: Headers = ()) -> bytes:
        """Return whether the intake would accept an event or each event of a batch, as far as this depends on them."""
        events, batch = events_in(Message("", body, headers, b""))
        found = await self._check.results(token, [(event.data, event.headers) for event in events])
        answers = [_check_answer(one) for one in found]
        return encode(answers[0] if batch is None else {"items": answers})

    async def _destroy_day_keys(self) -> None:
        """Destroy the day keys of expired rejections."""
        while True:
            for days in range(topology.REJECTED_DAYS + 1, 2 * topology.REJECTED_DAYS):
                with suppress(LedgerError):
                    await self._keys.destroy(rejected_owner(datetime.now(UTC) - timedelta(days=days)))
            await asyncio.sleep(24 * 3600)


def declare_intake(broker: NatsBroker, service: IntakeService | None) -> None:
    """Declare the intake's operations on a broker; without a service, for the AsyncAPI document."""
    if service is None:
        broker.subscriber(
            f"{topology.INBOX_SUBJECT}.*",
            title="inbox",
            description="Facts, one CloudEvent each. The PubAck means: durable, and will be recorded or rejected.",
        )(_described)

    @broker.subscriber(
        f"{topology.READ_SUBJECT}.*.receipt",
        queue="intake",
        title="receipt",
        description="The outcome of an event or message: recorded, rejected with a reason, pending or unknown.",
    )
    async def receipt(message: NatsMessage) -> bytes:
        assert service is not None
        return await answered(message, service.receipt, checks_token=True)

    @broker.subscriber(
        f"{topology.READ_SUBJECT}.*.check",
        queue="intake",
        title="check",
        description="Check whether the intake would accept an event. Nothing is recorded.",
    )
    async def check(message: NatsMessage) -> bytes:
        assert service is not None
        headers = tuple((message.raw_message.headers or {}).items())
        return await answered(message, lambda token, body: service.check(token, body, headers))


def _check_answer(found: Accepted | Rejection) -> JsonObject:
    """Return the answer of ``check`` for one event."""
    if isinstance(found, Rejection):
        return {"accepted": False, "error": {"code": found.code, "message": found.message, "field": found.field}}
    return {"accepted": True, "type": found.type, "id": found.id}


async def _described(message: NatsMessage) -> None:
    """Represent the pull loop in the AsyncAPI document."""
