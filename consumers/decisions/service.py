"""The role `decisions`: answers requests by request-reply. Of several deciders one answers, and the others stand by.

Agents wait for `action` and `preview`, so these are read straight from the connection, without FastStream's steps for
each message (docs/decisions/nats-connections.md). FastStream reads the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import nats.errors
from faststream.nats import NatsMessage  # noqa: TC002 - FastStream reads the annotations

from config import topology
from consumers.decisions.notifications import Notifications
from consumers.decisions.pending_request import COMMANDS
from consumers.decisions.pipeline import DecisionPipeline
from consumers.decisions.state.follower import INDEX_NAME, DecisionState, snapshots_of
from consumers.decisions.timers import Timers
from consumers.privacy.field_encryption import encrypt_request, may_have_note
from consumers.runtime.broker import answered, error_answer, make_broker
from consumers.runtime.precedence import Precedence
from consumers.runtime.request_form import lost_by_encryption
from consumers.runtime.source_tokens import refuse_foreign
from ledger import traces
from ledger.background_service import RoleService, restarting
from ledger.encryption.keyring import Keyring
from ledger.nats.client import frame, is_answerable, text_of
from ledger.nats.incidents import report
from ledger.nats.request_reply import header_of
from ledger.store.event_id_index import EventIdIndex
from ledger.store.lease import Lease
from ledger.store.role_status import Heartbeat, ReaderStatus, RoleStatus
from ledger.store.streams import stream_config

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from faststream.nats import NatsBroker
    from nats.aio.subscription import Subscription

    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.spans import RequestSpan
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_QUEUE = "decisions"
_SETTLED_SECONDS = 2.0
_PAUSE_SECONDS = 0.3
_NO_POLICY = "no policy is in force, so every request is refused: publish one with `resolution-ledger decide policy`"
_ANY_ROLE = "any"
_PAGE = "dashboard"
"""The source of the page's requests: they are recorded with `via: http`, those of the commands with `via: cli`."""
_OPERATOR = b"Operator"
"""The header of the page's requests for bearers of an operator's token: recorded with `via: http-operator`."""
FAST_OPERATIONS = ("action", "preview")
DESCRIPTIONS = {
    "action": "Take an action: it is decided, recorded and answered.",
    "preview": "Preview the answer to an action. Without `amount`: the most that this agent could give.",
    "hold": "Settle or void the hold of an action.",
    "reversal": "Reverse an action, or a part of it.",
    "escalation": "File, approve, deny, withdraw or forward an escalation.",
    "budget": "Grant a holder more for the current period, or transfer an amount between two holders.",
    "policy": "Propose a policy, approve a proposal or object to it. Operators publish without a proposal.",
    "flag": "Review a flag, or answer one as the person concerned.",
}


class DecisionService(RoleService):
    """The decisions as a service; it fails where the log has changed."""

    _keys: Keyring

    def __init__(
        self,
        server: NatsServer,
        client: LedgerClient,
        reader: LedgerClient,
        log: Log,
        indexes: Path,
        *,
        history: bool = False,
        admits_unregistered: bool = True,
        precedence: Precedence | None = None,
    ) -> None:
        """``reader`` is a connection for reading the log; ``indexes`` is the folder of the state's index.

        ``history``: requests name their own times, for an imported history. ``admits_unregistered``: sources that no
        operator registered may request actions. ``precedence`` is the decider's in this process.
        """
        super().__init__("decider")
        self._client = client
        self._reader = reader
        self._log = log
        self._history = history
        self._precedence = precedence or Precedence()
        self._reading = Heartbeat("the log")
        index = EventIdIndex.open_exclusive(indexes, INDEX_NAME)
        self.state = DecisionState(index, admits_unregistered=admits_unregistered)
        self.pipeline = DecisionPipeline(log, self.state, history=history)
        self.pipeline.on_answers = self._send_all
        self._changed = asyncio.Event()
        self._lease = Lease(client, "decisions", self._changed.set)
        self._timers = Timers(self.pipeline, self.state, log, lambda: self._lease.is_ours, history=history)
        self._notifications = Notifications(self.state, log)
        self._outgoing: list[bytes] = []
        self._requests: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Subscription] = []
        self._server = server
        self._broker: NatsBroker | None = None

    async def start(self) -> None:
        """Read the log to its end, then start to decide, or to stand by for the process that does."""
        self._keys = await Keyring.open(self._client)
        await self._keys.watch()
        await self._notifications.open(self._client)
        await self.state.follow(self._reader, self._log, until=await self._log.last_position())
        inbox = await stream_config(self._client, topology.INBOX) or {}
        self.pipeline.old_keys_until = int(inbox.get("metadata", {}).get(topology.TOKENS_SINCE, 0))
        self.spawn(self.state.follow(self._reader, self._log))
        self.spawn(restarting("the decider", self.pipeline.run, on_failure=self._lease.note_failure))
        self.spawn(self.state.keep_writing())
        self.spawn(self._notifications.run())
        copies, index = snapshots_of(self._client), self.state.index.path
        self.spawn(copies.keep_going(index, lambda: self.state.written_to, lambda: self._lease.is_ours))
        await self._connect_broker()
        await self._lease.start()
        await self._take_turn()
        self.spawn(self._timers.run())
        self.spawn(restarting("the decider's turn", self._take_turns))

    async def stop(self) -> None:
        """Hand the work over, then stop; clients retry the requests that got no answer."""
        await self._lease.hand_over()
        await self._stand_by()
        await self._lease.stop()
        await super().stop()
        await self.state.close()

    async def _take_turns(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._take_turn()
            except Exception as error:  # noqa: BLE001 - nobody else answers while this process has the lease
                report("a decider's turn could not begin", error, error)
                self._lease.note_failure()
                self._changed.set()
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _take_turn(self) -> None:
        """Start or stop to answer, depending on whether this process has the lease."""
        if self._lease.is_ours and not self._subscriptions:
            await self.state.reach_or_read_on(self._log, await self._log.last_position())
            try:
                await self._answer_requests()
            except BaseException:
                await self._stand_by()
                raise
            self._lease.confirm()
        elif not self._lease.is_ours and self._subscriptions:
            await self._stand_by()
            await self._connect_broker()

    async def _connect_broker(self) -> NatsBroker:
        """Return a connected broker, which a standby keeps so that its turn begins in a moment."""
        if self._broker is None:
            broker = make_broker(self._server, "decisions")
            declare_decisions(broker, self)
            await broker.connect()
            self._broker = broker
        return self._broker

    async def _answer_requests(self) -> None:
        for operation in FAST_OPERATIONS:
            subject = f"{topology.DECIDE_SUBJECT}.*.{operation}"
            self._subscriptions.append(await self._client.subscribe_raw(subject, self._on_request, _QUEUE))
        own = f"{topology.OPERATE_SUBJECT}.*.*"
        self._subscriptions.append(await self._client.subscribe_raw(own, self._on_request, _QUEUE))
        await (await self._connect_broker()).start()
        await self._client.flush()

    async def _stand_by(self) -> None:
        """Stop to answer new requests; those that wait are answered."""
        subscriptions, self._subscriptions = self._subscriptions, []
        broker, self._broker = self._broker, None
        with suppress(nats.errors.Error):
            await self._client.drain_raw(subscriptions)
        if broker is not None:
            if self._requests:
                await asyncio.wait(self._requests, timeout=_SETTLED_SECONDS)
            await self.pipeline.settled(_SETTLED_SECONDS)
            await broker.stop()

    def status(self) -> RoleStatus:
        """Return the status of the decider."""
        self._reading.beat(self.state.position)
        reading = ReaderStatus("the log", self.state.position, self._reading.still_seconds)
        policies, now = self.state.policies, self.pipeline.now
        has_policy = bool(policies.newest_version) if self._history else policies.in_force(now) is not None
        lacks = (_NO_POLICY,) if not has_policy and self.state.staff.everybody(_ANY_ROLE) else ()
        index = self.state.index.path
        absent = () if index.exists() else (f"index/{index.name}",)
        return RoleStatus(
            role="decisions",
            is_working=self._lease.is_working and bool(self._subscriptions),
            history=self._history,
            readings=(reading,),
            absent=absent,
            lacks=lacks,
            loops=(self.pipeline.pulse.loop(), self._timers.pulse.loop(), self._notifications.pulse.loop()),
            totals=(*self.pipeline.answers.totals(), *self.pipeline.durations.totals()),
        )

    async def ask(self, operation: str, source: str, body: bytes) -> bytes:
        """Return the answer to a request; ``source`` is the source's token."""
        refuse_foreign(source)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        give = partial(_settle, answer)
        span = None if traces.spans is None else traces.spans.current_request()
        if may_have_note(body) or operation == "flag":
            await self._submit_encrypted(source, operation, body, give, span=span)
        else:
            self.pipeline.submit(source, operation, body, give, span=span)
        return await answer

    async def _submit_encrypted(
        self,
        source: str,
        operation: str,
        body: bytes,
        give: Callable[[bytes], None],
        *,
        via: str | None = None,
        span: RequestSpan | None = None,
    ) -> None:
        """Encrypt the personal text of a request before it is submitted, so that it is never recorded unencrypted."""
        encrypted = await encrypt_request(self._keys, source, body)
        refusal = lost_by_encryption(body)
        self.pipeline.submit(source, operation, encrypted, give, encrypted=True, refusal=refusal, via=via, span=span)

    def _on_request(self, subject: bytes, reply: bytes, headers: bytes, body: bytes) -> None:
        if reply and not is_answerable(reply):
            report("a request names a reply subject that is never answered", reply)
            return
        self._precedence.asked_at = time.monotonic()
        try:
            _, kind, token, operation = text_of(subject).split(".")
            via = None if kind == "decide" else _via(token, headers)
            give, span = partial(self._reply, reply), None
            if traces.spans is not None:
                span = traces.spans.request(_decide_subject(token, operation), headers)
                give = partial(span.answer, give)
            if may_have_note(body) or operation == "flag":
                refuse_foreign(token)
                self._run_beside(self._take_with_note(token, operation, body, give, via, span))
            else:
                self.pipeline.submit(token, operation, body, give, via=via, span=span)
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            self._reply(reply, error_answer(error))

    async def _take_with_note(
        self,
        source: str,
        operation: str,
        body: bytes,
        give: Callable[[bytes], None],
        via: str | None,
        span: RequestSpan | None,
    ) -> None:
        try:
            await self._submit_encrypted(source, operation, body, give, via=via, span=span)
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            give(error_answer(error))

    def _run_beside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def notifications(self, token: str, body: bytes) -> bytes:
        """Return the kept notifications of a source."""
        return await self._notifications.answer(token, body)

    def _reply(self, subject: bytes, answer: bytes) -> None:
        """Queue an answer, to be sent together with the other messages of its group."""
        if subject:
            if not self._outgoing:
                asyncio.get_running_loop().call_soon(self._send_all)
            self._outgoing.append(frame(subject, answer))

    def _send_all(self) -> None:
        messages, self._outgoing = self._outgoing, []
        if not messages:
            return
        try:
            self._client.send(b"".join(messages))
        except nats.errors.Error as error:  # a retry gets the first answer
            _log.warning("%d messages lost: %s", len(messages), error)


def _via(token: str, headers: bytes) -> str:
    """Return the way of a request of the ledger's own commands or page."""
    if token != _PAGE:
        return "cli"
    return "http" if header_of(headers, _OPERATOR) is None else "http-operator"


def _decide_subject(source: str, operation: str) -> str:
    """Return the subject of a request as its span names it: a sender may invent an operation, of any length."""
    return f"{topology.DECIDE_SUBJECT}.{source}.{operation if operation in COMMANDS else 'unknown'}"


def _settle(future: asyncio.Future[bytes], answer: bytes) -> None:
    if not future.done():  # otherwise the client has given up
        future.set_result(answer)


def declare_decisions(broker: NatsBroker, service: DecisionService | None, *, fast: bool = False) -> None:
    """Declare the operations of decisions on a broker; ``fast`` ones too, for the AsyncAPI document."""
    for operation, description in DESCRIPTIONS.items():
        if fast or operation not in FAST_OPERATIONS:
            _declare(broker, service, operation, description)

    @broker.subscriber(
        f"{topology.READ_SUBJECT}.*.notifications",
        queue=_QUEUE,
        title="notifications",
        description="The kept notifications about escalations of this source, after a sequence.",
    )
    async def notifications(message: NatsMessage) -> bytes:
        assert service is not None
        return await answered(message, service.notifications, checks_token=True)


def _declare(broker: NatsBroker, service: DecisionService | None, operation: str, description: str) -> None:
    subject = f"{topology.DECIDE_SUBJECT}.*.{operation}"

    @broker.subscriber(subject, queue=_QUEUE, title=operation, description=description)
    async def decide(message: NatsMessage) -> bytes:
        assert service is not None
        return await answered(message, partial(service.ask, operation), checks_token=True)
