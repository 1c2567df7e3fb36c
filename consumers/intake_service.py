"""The intake as a service: takes the inbox in batches, and answers what became of an event."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec
from faststream import AckPolicy
from faststream.nats import JStream, NatsMessage, PullSub

from config import topology
from consumers.broker import answered, make_broker, source_of
from consumers.intake import Intake, Message, RejectedEntry, id_token
from domain.requests import RequestError
from domain.wire import Id, decode, encode
from ledger.cloudevents import name_key
from ledger.errors import LedgerError
from ledger.index import NameIndex
from ledger.log import Log
from ledger.streams import ensure_consumer, ensure_stream

if TYPE_CHECKING:
    from pathlib import Path

    from faststream.message import StreamMessage
    from faststream.nats import NatsBroker
    from nats.aio.client import Client
    from nats.aio.msg import Msg

_log = logging.getLogger(__name__)
_WATCH_SECONDS = 5.0
_IDS_AT_MOST = 1000


class ReceiptRequest(msgspec.Struct, frozen=True):
    """Which events: one ``id``, or up to 1000 ``ids``; ``source`` where its token is not itself."""

    id: Id | None = None
    ids: tuple[Id, ...] = ()
    source: Id | None = None


class IntakeService:
    """Start it, and wait for ``failed``, which ends only when the log is not what it was."""

    def __init__(self, url: str, client: Client, log: Log, rejected: Log, index_path: Path, *,
                 replicas: int = 1) -> None:  # fmt: skip
        self._client = client
        self._log = log
        self._rejected = rejected
        self._replicas = replicas
        self._index = NameIndex(index_path)
        self._intake = Intake(log, rejected, self._index)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watching: asyncio.Task[None] | None = None
        self.broker = make_broker(url, "intake")
        declare_intake(self.broker, self)

    async def start(self) -> None:
        """Begin to take in and to answer."""
        await ensure_consumer(self._client, topology.INBOX, topology.intake_consumer())
        await self.broker.start()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Finish the batch in hand and leave; what is not acknowledged stays in the inbox."""
        if self._watching:
            self._watching.cancel()
        await self.broker.stop()
        self._index.close()

    async def take(self, messages: list[Msg]) -> None:
        """Take in one batch and acknowledge it."""
        try:
            await self._intake.take([_message(message) for message in messages])
            for message in messages:
                await message.ack()
            await self._intake.trim(self._client)
        except LedgerError as error:
            _log.error("the intake stops: %s", error)  # noqa: TRY400 - the message says it all
            if not self.failed.done():
                self.failed.set_exception(error)
            await asyncio.Event().wait()  # take nothing more; the process is about to end

    async def receipt(self, token: str, body: bytes) -> bytes:
        """What became of events of this source."""
        request = decode(ReceiptRequest, body, at="")
        ids = request.ids or ((request.id,) if request.id is not None else ())
        if not 0 < len(ids) <= _IDS_AT_MOST:
            raise RequestError("invalid", f"name one `id`, or up to {_IDS_AT_MOST} `ids`", "id")
        found = self._positions(token, request.source, ids)
        if len(found) < len(ids):
            await self._intake.catch_up(f"{topology.FACT_SUBJECT}.{token}")
            found = self._positions(token, request.source, ids)
        items = [
            {"id": name, "status": "recorded", "position": found[name]}
            if name in found
            else await self._rejected_or_pending(token, name)
            for name in ids
        ]
        return encode({"items": items} if request.ids else items[0])

    def _positions(self, token: str, source: str | None, ids: tuple[str, ...]) -> dict[str, int]:
        sources = [source] if source is not None else (self._index.sources_of(token) or [token])
        found: dict[str, int] = {}
        for known in sources:
            keys = {name_key(known, name): name for name in ids}
            found.update((keys[key], entry.position) for key, entry in self._index.find(list(keys)).items())
        return found

    async def _rejected_or_pending(self, token: str, name: str) -> dict[str, Any]:
        last = await self._rejected.last(f"{topology.REJECTED_SUBJECT}.{token}.{id_token(name)}.*")
        if last is None:
            return {"id": name, "status": "pending"}
        entry = msgspec.json.decode(last.data, type=RejectedEntry)
        error = {"code": entry.code, "message": entry.message, "field": entry.field}
        return {"id": name, "status": "rejected", "error": error}

    async def _watch(self) -> None:
        """A consumer or stream that somebody deleted would make the pull spin in silence."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                for stream in topology.streams(self._replicas):
                    await ensure_stream(self._client, stream)
                await ensure_consumer(self._client, topology.INBOX, topology.intake_consumer())
            except LedgerError as error:
                _log.warning("intake: %s", error)


def declare_intake(broker: NatsBroker, service: IntakeService | None) -> None:
    """The intake's operations on a broker; without a service only for its description."""

    async def raw_messages(message: StreamMessage[Any]) -> Any:
        return message.raw_message

    @broker.subscriber(
        f"{topology.INBOX_SUBJECT}.*",
        stream=JStream(topology.INBOX, declare=False),
        durable=topology.INTAKE_CONSUMER,
        pull_sub=PullSub(batch_size=topology.INTAKE_BATCH, timeout=0.05, batch=True),
        ack_policy=AckPolicy.MANUAL,
        decoder=raw_messages,
        title="inbox",
        description="Facts, one CloudEvent a message. The PubAck means: durable, and will be recorded or rejected.",
    )
    async def inbox(messages: Any) -> None:
        if service:
            await service.take(messages)

    @broker.subscriber(
        f"{topology.READ_SUBJECT}.*.receipt",
        queue="intake",
        title="receipt",
        description="What became of an event: recorded at a position, rejected and why, or pending.",
    )
    async def receipt(message: NatsMessage) -> bytes:
        assert service is not None
        raw = message.raw_message
        return await answered(lambda: service.receipt(source_of(raw), raw.data))


def _message(raw: Msg) -> Message:
    tokens = raw.reply.split(".")  # $JS.ACK.<stream>.<consumer>.<tries>.<sequence>.<...>.<time>.<pending>
    return Message(raw.subject, raw.data, raw.headers, f"{tokens[-4]}-{tokens[-2]}")
