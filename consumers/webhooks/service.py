"""The role `webhooks`: follows the log, the notifications and the budgets, and sends them to subscribers.

Each subscription has a durable progress of its own on the server, so that a slow receiver delays no other one, and a
crash loses nothing: messages after the progress are sent again, with the same `webhook-id`. Of several processes the
one that has the lease sends; the expected sequence of the progress keeps a second one from going on beside it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from config import topology
from consumers.webhooks.deliveries import AttemptTiming, Deliveries, GoneError
from consumers.webhooks.messages import WebhookMessage, event_message
from consumers.webhooks.sender import MailServer, Sender
from consumers.webhooks.thin_budgets import ThinBudgets
from domain.events.decisions import LEDGER_SOURCE
from domain.webhooks import ESCALATION_STEP, NOTIFICATIONS, THIN_BUDGET
from ledger.background_service import RoleService, restarting
from ledger.encryption.keyring import Keyring
from ledger.errors import ConflictError, LostEventsError, UnavailableError
from ledger.nats.incidents import report
from ledger.store.cloudevents import stored_decoder
from ledger.store.lease import Lease
from ledger.store.log import Log
from ledger.store.role_status import Heartbeat, RoleStatus
from ledger.store.shared_tail import SharedTail
from ledger.store.subscription import Follower, ReadCursor
from projections.engine.events import type_in
from projections.webhooks import KeptProgress, WebhookBook, WebhookProgress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from domain.serialization import JsonObject
    from domain.webhooks import Webhook
    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.log import Recorded
    from projections.engine.storage import ViewStore
    from projections.webhooks import DeadLetter

    type _Maker = Callable[[Recorded], Awaitable[WebhookMessage | None]]

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_KEEP_SECONDS, _KEEP_IDLE_SECONDS = 0.5, 30.0
"""The progress is stored so often: after deliveries, and where only events without a subscriber were read."""
_PAUSE_SECONDS = 1.0
_BUDGET_SECONDS = 5.0


class _Cause(msgspec.Struct):
    """The field by which an event of the ledger names the source of its request."""

    source: str = ""


class _Notice(msgspec.Struct):
    id: str
    time: str
    source: str
    escalation_id: str


class _Worker:
    """Sends the messages of one subscription."""

    def __init__(self, service: WebhookService, webhook: Webhook, kept: KeptProgress | None) -> None:
        self._service, self._webhook = service, webhook
        start = WebhookProgress(events=webhook.after, notices=webhook.notices_after, budgets=webhook.after)
        progress, self._sequence = kept or (start, 0)
        send = partial(service.sender.send, webhook)
        self._deliveries = Deliveries(send, self._bury, progress, service.timing)
        self._kept: object = None
        self.again: asyncio.Queue[str] = asyncio.Queue()
        """Ids of dead letters that are sent again."""
        self.asked: set[str] = set()

    async def run(self) -> None:
        """Send until cancelled, or until the receiver wants nothing more.

        Raises:
            ConflictError: another process sends the messages of this subscription.

        """
        feeds: list[Callable[[], Awaitable[None]]] = [self._again]
        names = self._webhook.types
        if self._webhook.wants(ESCALATION_STEP):
            feeds.append(self._notices)
        if self._webhook.source is None and self._webhook.wants(THIN_BUDGET):
            feeds.append(self._budgets)
        if not NOTIFICATIONS.issuperset(names):
            feeds.append(self._events)
        try:
            async with asyncio.TaskGroup() as group:
                for feed in feeds:
                    group.create_task(restarting(f"webhook {self._webhook.id}", feed))
                group.create_task(self._keep())
                await self._deliveries.failed
        except* GoneError as gone:
            self._deliveries.progress.stopped = str(gone.exceptions[0])
            _log.warning("webhook %s is stopped: %s", self._webhook.id, gone.exceptions[0])
        finally:
            await self._deliveries.stop()
            with suppress(UnavailableError, ConflictError):
                await self._store()

    async def _keep(self) -> None:
        """Store the progress soon after a change, and now and then while only other events pass."""
        seconds = 0.0
        while True:
            await asyncio.sleep(_KEEP_SECONDS)
            seconds += _KEEP_SECONDS
            state = self._deliveries.state()
            if state == self._kept and seconds < _KEEP_IDLE_SECONDS:
                continue
            try:
                await self._store()
            except UnavailableError as error:
                _log.debug("the progress of webhook %s is stored later: %s", self._webhook.id, error)
            else:
                self._kept, seconds = state, 0.0

    async def _store(self) -> None:
        self._sequence = await self._service.book.keep(self._webhook.id, self._deliveries.settled(), self._sequence)

    async def _bury(self, message: WebhookMessage, letter: DeadLetter) -> None:
        """Store a dead letter, as soon as the server answers."""
        if message.feed == "budgets":
            letter = msgspec.structs.replace(letter, message=msgspec.Raw(msgspec.json.encode(message.event)))
        while True:
            try:
                await self._service.book.bury(self._webhook.id, letter)
            except UnavailableError as error:
                _log.warning("a dead letter of webhook %s is stored later: %s", self._webhook.id, error)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    async def _events(self) -> None:
        window = self._deliveries.windows["events"]
        async with aclosing(self._service.log_after(window.read_to)) as batches:
            async for batch in batches:
                for recorded in batch:
                    message = await self._made(self._event, recorded)
                    if message is None:
                        window.skip(recorded.position)
                    else:
                        await self._deliveries.put(message)

    async def _made(self, make: _Maker, recorded: Recorded) -> WebhookMessage | None:
        """Return the message of an event or a notification; none where it cannot be made, which is reported."""
        try:
            return await make(recorded)
        except UnavailableError:
            raise  # a key cannot be read now
        except Exception as error:  # noqa: BLE001 - our own error holds back no later message
            report("a message of a webhook cannot be made", recorded.position, error)
            return None

    async def _event(self, recorded: Recorded) -> WebhookMessage | None:
        return await self._message(recorded) if self._concerns(recorded) else None

    def _concerns(self, recorded: Recorded) -> bool:
        if not self._webhook.wants(type_in(recorded.data).decode(errors="replace")):
            return False
        if self._webhook.source is None:
            return True
        stored = stored_decoder.decode(recorded.data)
        cause = msgspec.json.decode(stored.data, type=_Cause)
        return self._webhook.source in (stored.source, cause.source)

    async def _message(self, recorded: Recorded) -> WebhookMessage:
        data, position, subject = recorded.data, recorded.position, recorded.subject
        return await event_message(data, position, subject, self._service.keys, personal=self._webhook.personal)

    async def _notices(self) -> None:
        window = self._deliveries.windows["notices"]
        service = self._service
        follower = Follower(
            service.client, service.notifications, "webhooks", ReadCursor(window.read_to), gaps=True, subject=_NOTICES
        )
        async for batch in follower.batches():
            for recorded in batch:
                message = await self._made(self._notice, recorded)
                if message is None:
                    window.skip(recorded.position)
                else:
                    await self._deliveries.put(message)

    async def _notice(self, recorded: Recorded) -> WebhookMessage | None:
        notice = msgspec.json.decode(recorded.data, type=_Notice)
        if self._webhook.source not in (None, notice.source):
            return None
        event: JsonObject = {
            "specversion": "1.0",
            "id": notice.id,
            "source": LEDGER_SOURCE,
            "type": ESCALATION_STEP,
            "subject": notice.escalation_id,
            "time": notice.time,
            "datacontenttype": "application/json",
            "data": msgspec.json.decode(recorded.data),
        }
        return WebhookMessage("notices", recorded.position, f"escalation {notice.escalation_id}", event)

    async def _budgets(self) -> None:
        window = self._deliveries.windows["budgets"]
        thin = ThinBudgets(self._service.views, window.read_to)
        while True:
            for message in await asyncio.to_thread(thin.read):
                await self._deliveries.put(message)
            window.skip(thin.position)
            await asyncio.sleep(_BUDGET_SECONDS)

    async def _again(self) -> None:
        """Send the dead letters that an operator or the source asked for, each once."""
        book, name = self._service.book, self._webhook.id
        while True:
            identifier = await self.again.get()
            letter = await book.letter(name, identifier)
            if letter is not None:
                message = await self._message_of(letter)
                kept: DeadLetter | None
                if message is None:
                    kept = msgspec.structs.replace(letter, error="its notification is no longer kept")
                else:
                    kept = await self._deliveries.attempt(message, once=True)
                if kept is not None:
                    await book.bury(name, msgspec.structs.replace(kept, message=letter.message))
                await book.settle(name, identifier, delivered=kept is None)
            self.asked.discard(identifier)

    async def _message_of(self, letter: DeadLetter) -> WebhookMessage | None:
        """Return the message of a dead letter; none if what it told is no longer kept."""
        match letter.feed:
            case "events":
                recorded = await self._service.log.at(letter.position)
                return await self._message(recorded) if recorded is not None else None
            case "notices":
                recorded = await self._service.notifications.at(letter.position)
                return await self._notice(recorded) if recorded is not None else None
            case "budgets":
                event = msgspec.json.decode(letter.message, type=dict[str, object])
                return WebhookMessage("budgets", letter.position, str(event["subject"]), event)


_NOTICES = f"{topology.ESCALATION_SUBJECT}.*"


class WebhookService(RoleService):
    """The webhooks as a service; of several processes of a ledger one sends."""

    def __init__(
        self,
        server: NatsServer,
        log: Log,
        views: ViewStore,
        *,
        private: bool = False,
        mail: MailServer | None = None,
        timing: AttemptTiming = AttemptTiming(),  # noqa: B008 - immutable
    ) -> None:
        """``private`` allows receivers inside the own network; ``timing`` is that of the attempts."""
        super().__init__("webhooks")
        self._server = server
        self._private, self._mail = private, mail
        self.log, self.views, self.timing = log, views, timing
        self.client: LedgerClient
        self.book: WebhookBook
        self.notifications: Log
        self.keys: Keyring
        self.sender: Sender
        self._tail: SharedTail
        self._workers: dict[str, tuple[_Worker, asyncio.Task[None]]] = {}
        self._lease: Lease | None = None
        self._pulse = Heartbeat("webhooks")

    def status(self) -> RoleStatus:
        """Return the status of the role; without details where another process sends."""
        if not self._pulse.active:
            return RoleStatus(role="webhooks", is_working=False)
        is_working = self._lease is not None and self._lease.is_working and not self._pulse.waits
        return RoleStatus(role="webhooks", is_working=is_working, loops=(self._pulse.loop(),))

    async def start(self) -> None:
        """Start to send, unless another process does."""
        self.client = await self.connection(self._server, "webhooks")
        self.book = await WebhookBook.open(self.client)
        self.notifications = await Log.unstamped(self.client, topology.NOTIFY)
        self.keys = await Keyring.open(self.client)
        await self.keys.watch()
        # a connection of its own, where no events delay its answers
        lease = self._lease = Lease(await self.connection(self._server, "webhooks lease"), "webhooks")
        await lease.start()
        self.spawn(restarting("webhooks", partial(self._run, lease), self._pulse, lease.note_failure))

    async def stop(self) -> None:
        """Stop to send, and leave the work to the next process."""
        await self.end_tasks()  # progress is stored before another process goes on
        if self._lease is not None:
            await self._lease.stop()
        await super().stop()

    async def _run(self, lease: Lease) -> None:
        while True:
            self._pulse.active = lease.is_ours
            if lease.is_ours:
                self.sender = Sender(private=self._private, mail=self._mail)
                self._tail = SharedTail(self.client, self.log, "webhooks")
                tail = asyncio.create_task(self._tail.run())
                try:
                    await self._serve(tail, lease)
                finally:
                    tail.cancel()
                    await self._end_workers(list(self._workers))
                    await asyncio.gather(tail, return_exceptions=True)
                    await self.sender.close()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _serve(self, tail: asyncio.Task[None], lease: Lease) -> None:
        """Run a worker for each subscription, as long as this process has the lease."""
        while lease.is_ours:
            if tail.done():
                tail.result()
            try:
                webhooks = {one.id: one for one in await self.book.all()}
                await self._end_workers([name for name in self._workers if name not in webhooks])
                for webhook in webhooks.values():
                    await self._ensure_worker(webhook)
                for name, letters in (await self.book.asked_again()).items():
                    self._send_again(name, letters)
                self._pulse.beat()
            except UnavailableError as error:
                self._pulse.wait(str(error))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _ensure_worker(self, webhook: Webhook) -> None:
        """Start the worker of a subscription, unless it runs or the receiver is gone."""
        if webhook.id in self._workers and not self._workers[webhook.id][1].done():
            return
        kept = await self.book.progress(webhook.id)
        if kept is None or kept.progress.stopped is None:
            worker = _Worker(self, webhook, kept)
            self._workers[webhook.id] = worker, asyncio.create_task(self._work(worker, webhook.id))

    def _send_again(self, name: str, letters: Sequence[str]) -> None:
        if name in self._workers:
            worker = self._workers[name][0]
            for letter in letters:
                if letter not in worker.asked:
                    worker.asked.add(letter)
                    worker.again.put_nowait(letter)

    async def _work(self, worker: _Worker, name: str) -> None:
        try:
            await worker.run()
        except* ConflictError:
            _log.warning("webhook %s: another process sends its messages", name)
        except* LostEventsError as lost:
            self.fail(lost.exceptions[0])
        except* Exception as errors:  # noqa: BLE001 - our own error: the worker begins again
            report("a webhook begins again", name, errors.exceptions[0])

    async def _end_workers(self, names: Sequence[str]) -> None:
        tasks = [self._workers.pop(name)[1] for name in names]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def log_after(self, position: int) -> AsyncGenerator[list[Recorded]]:
        """Yield the log after a position and then live; all workers share one reader of its end."""
        while True:
            begins = await self._tail.start_position()
            if position >= begins:
                batches = self._tail.batches(position)
            else:
                follower = Follower(self.client, self.log, "webhooks", ReadCursor(position), gaps=True)
                batches = follower.batches(until=begins)
            async for batch in batches:
                yield batch
                position = batch[-1].position
