"""Decisions as a service: requests come in by request-reply, each gets an answer.

`action` and `preview` are what people wait for: they are read straight from the connection, without the
steps that FastStream takes for each message (docs/understand/architecture.md). The others are FastStream's.
Where several deciders run, a request goes on to the one that has its holder.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import nats.errors
from faststream.nats import NatsMessage  # noqa: TC002 - FastStream reads the annotations

from config import topology
from consumers.decisions.membership import Membership
from consumers.decisions.pending_request import holder_in
from consumers.decisions.pipeline import DecisionPipeline
from consumers.decisions.state.follower import DecisionState
from consumers.decisions.timers import Timers
from consumers.privacy.field_encryption import may_have_note, seal_request
from consumers.runtime.broker import answered, error_answer, make_broker
from consumers.runtime.request_form import lost_by_sealing
from consumers.runtime.source_tokens import refuse_foreign
from domain.serialization import encode, plain
from ledger.background_service import RoleService, restarting
from ledger.encryption.keyring import Keyring
from ledger.nats.client import frame, is_answerable, text_of
from ledger.nats.incidents import report
from ledger.nats.request_reply import header_of
from ledger.store.event_id_index import EventIdIndex
from ledger.store.role_status import Heartbeat, ReaderStatus, RoleStatus
from ledger.store.streams import stream_config

if TYPE_CHECKING:
    from pathlib import Path

    from faststream.nats import NatsBroker
    from nats.aio.subscription import Subscription

    from consumers.decisions.pending_request import PendingRequest
    from domain.events.decisions import EscalationForwarded, EscalationRequested
    from ledger.nats.client import LedgerClient
    from ledger.nats.connection_options import NatsServer
    from ledger.store.log import Log

_log = logging.getLogger(__name__)
_QUEUE = "decisions"
_OTHER_SECONDS = 1.0
_ANSWER_TO = b"Answer-To"
_NO_POLICY = "no policy is in force, so every request is refused: publish one with `resolution-ledger decide policy`"
_ANY_ROLE = "any"
HOT = ("action", "preview")
WORDS = {
    "action": "Take an action: decided, recorded, answered.",
    "preview": "The same request and answer, nothing taken; without `amount`, what this agent could give.",
    "hold": "Settle or void what an action held.",
    "reversal": "Undo an action, all or a part.",
    "escalation": "File an escalation; approve, deny, withdraw or forward one.",
    "budget": "Grant a holder more for the present period, or transfer what another has left.",
    "policy": "Publish a policy, in force or in the shadow of the one in force.",
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
    ) -> None:
        super().__init__("decider")
        self._client = client
        self._reader = reader
        self._log = log
        self._history = history
        self._read = Heartbeat("the log")
        self.directory = DecisionState(EventIdIndex.open_exclusive(indexes, "decisions"))
        self.decider = DecisionPipeline(log, self.directory, history=history)
        self.decider.on_escalation(self._notify)
        self.decider.answered = self._send_all
        self._members = Membership(client, self._note_others)
        owns = lambda holder: self._members.owner_of(holder) is None  # noqa: E731
        self._clock = Timers(self.decider, self.directory, log, owns, history=history)
        self._outgoing: list[bytes] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._doors: list[Subscription] = []
        self.broker = make_broker(server, "decisions")
        declare_decisions(self.broker, self)

    async def start(self) -> None:
        """Read the log to its end, then begin to decide."""
        self._keys = await Keyring.open(self._client)
        await self._keys.watch()
        await self.directory.follow(self._reader, self._log, until=await self._log.last_position())
        inbox = await stream_config(self._client, topology.INBOX) or {}
        self.decider.old_names_until = int(inbox.get("metadata", {}).get(topology.TOKENS_SINCE, 0))
        self.spawn(self.directory.follow(self._reader, self._log))
        self.spawn(restarting("the decider", self.decider.run))
        self.spawn(self._clock.run())
        self.spawn(self.directory.keep_writing())
        from_others = f"{topology.DECIDERS_SUBJECT}.{self._members.name}.*.*"
        self._doors.append(await self._client.subscribe_raw(from_others, self._on_forwarded))
        await self._members.start()
        for operation in HOT:
            subject = f"{topology.DECIDE_SUBJECT}.*.{operation}"
            self._doors.append(await self._client.subscribe_raw(subject, self._on_request, _QUEUE))
        await self.broker.start()
        await self._client.flush()

    async def stop(self) -> None:
        """Leave; whoever waits for an answer asks again."""
        await self._members.stop()
        with suppress(nats.errors.Error):
            for door in self._doors:
                await self._client.unsubscribe_raw(door)
        await self.broker.stop()
        await super().stop()
        await self.directory.close()

    def status(self) -> RoleStatus:
        """Return how the decider is."""
        self._read.beat(self.directory.read_to)
        reading = ReaderStatus("the log", self.directory.read_to, self._read.still_seconds)
        policies = self.directory.policies
        ruled = bool(policies.newest_version) if self._history else policies.in_force(self.decider.now) is not None
        lacks = (_NO_POLICY,) if not ruled and self.directory.staff.everybody(_ANY_ROLE) else ()
        index = self.directory.index.path
        absent = () if index.exists() else (f"index/{index.name}",)
        return RoleStatus(
            role="decisions",
            history=self._history,
            readings=(reading,),
            absent=absent,
            lacks=lacks,
            loops=(self.decider.pulse.loop(), self._clock.pulse.loop()),
        )

    async def ask(self, operation: str, source: str, body: bytes) -> bytes:
        """The answer to a request."""
        refuse_foreign(source)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if may_have_note(body) or operation == "flag":
            sealed = await seal_request(self._keys, source, body)
            self.decider.submit(
                source, operation, sealed, partial(_settle, answer), sealed=True, refusal=lost_by_sealing(body)
            )
        else:
            self.decider.submit(source, operation, body, partial(_settle, answer))
        return await answer

    def _note_others(self, others: bool) -> None:
        self.decider.elsewhere = self._elsewhere if others else None

    def _on_request(self, subject: bytes, reply: bytes, _headers: bytes, body: bytes) -> None:
        if reply and not is_answerable(reply):
            report("a request names a reply subject that is never answered", reply)
            return
        try:
            text = text_of(subject)
            _, _, token, operation = text.split(".")
            self._take(token, operation, body, reply)
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            self._reply(reply, error_answer(error))

    def _take(self, source: str, operation: str, body: bytes, reply: bytes) -> None:
        refuse_foreign(source)
        if may_have_note(body):
            task = asyncio.create_task(self._with_note(source, operation, body, reply))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        elif self._members.others and reply and (owner := self._members.owner_of(holder_in(body))):
            self._send_on(owner, source, operation, body, reply)  # who decides it reads it
        else:
            self.decider.submit(source, operation, body, lambda answer: self._reply(reply, answer), answer_to=reply)

    async def _with_note(self, source: str, operation: str, body: bytes, reply: bytes) -> None:
        """A request that says something about a person: sealed first, so that nothing is recorded that is not."""
        try:
            sealed = await seal_request(self._keys, source, body)
            self.decider.submit(
                source,
                operation,
                sealed,
                lambda answer: self._reply(reply, answer),
                answer_to=reply,
                sealed=True,
                refusal=lost_by_sealing(body),
            )
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            self._reply(reply, error_answer(error))

    def _on_forwarded(self, subject: bytes, reply: bytes, headers: bytes, body: bytes) -> None:
        reply = reply or header_of(headers, _ANSWER_TO) or b""
        try:
            _, _, _, source, operation = subject.decode().split(".")
            give = partial(self._reply, reply)
            self.decider.submit(source, operation, body, give, here=True, sealed=True)
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            self._reply(reply, error_answer(error))

    def _elsewhere(self, waiting: PendingRequest, holder: str | None) -> bool:
        """Send a request on to the decider that has its holder, which answers in our place."""
        owner = self._members.owner_of(holder)
        if owner is None:
            return False
        if waiting.answer_to:
            self._send_on(owner, waiting.token, waiting.operation, waiting.body, waiting.answer_to)
        else:
            task = asyncio.create_task(self._ask_elsewhere(owner, waiting))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return True

    def _send_on(self, owner: str, source: str, operation: str, body: bytes, answer_to: bytes) -> None:
        # As a header: the server takes no message with another account's reply subject as its own.
        headers = _ANSWER_TO + b": " + answer_to + b"\r\n"
        self._send(frame(_door_of(owner, source, operation).encode(), body, headers=headers))

    async def _ask_elsewhere(self, owner: str, waiting: PendingRequest) -> None:
        """The other's answer; where none comes, our own: asked twice, a request has one answer."""
        subject = _door_of(owner, waiting.token, waiting.operation)
        try:
            answer = (await self._client.request(subject, waiting.body, timeout=_OTHER_SECONDS)).data
        except (nats.errors.Error, TimeoutError):
            self._members.lost(owner)
            self.decider.submit(
                waiting.token, waiting.operation, waiting.body, waiting.pass_on, here=True, sealed=waiting.sealed
            )
        else:
            waiting.pass_on(answer)

    def _notify(self, record: EscalationRequested | EscalationForwarded) -> None:
        asked = {
            "escalation_id": record.escalation_id,
            "team_id": getattr(record, "team_id", None),
            "requested_by": record.agent_id,
            "to": list(record.to),
            "amount": record.amount.wire(),
            "due": plain(record.due),
        }
        self._send(frame(topology.ESCALATION_SUBJECT.encode(), encode(asked)))

    def _reply(self, subject: bytes, answer: bytes) -> None:
        if subject:
            self._send(frame(subject, answer))

    def _send(self, message: bytes) -> None:
        """Send a message together with the others of its group."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._send_all)
        self._outgoing.append(message)

    def _send_all(self) -> None:
        messages, self._outgoing = self._outgoing, []
        if not messages:
            return
        try:
            self._client.send(b"".join(messages))
        except nats.errors.Error as error:  # who waits asks again, and gets the first answer
            _log.warning("%d messages lost: %s", len(messages), error)


def _door_of(owner: str, source: str, operation: str) -> str:
    return f"{topology.DECIDERS_SUBJECT}.{owner}.{source}.{operation}"


def _settle(future: asyncio.Future[bytes], answer: bytes) -> None:
    if not future.done():  # else nobody waits any more
        future.set_result(answer)


def declare_decisions(broker: NatsBroker, service: DecisionService | None, *, hot: bool = False) -> None:
    """The decisions' operations on a broker; ``hot`` ones too for their description."""
    for operation, words in WORDS.items():
        if hot or operation not in HOT:
            _declare(broker, service, operation, words)


def _declare(broker: NatsBroker, service: DecisionService | None, operation: str, words: str) -> None:
    @broker.subscriber(f"{topology.DECIDE_SUBJECT}.*.{operation}", queue=_QUEUE, title=operation, description=words)
    async def decide(message: NatsMessage) -> bytes:
        assert service is not None
        return await answered(message, partial(service.ask, operation), checks_token=True)
