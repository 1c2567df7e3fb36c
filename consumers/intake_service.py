"""The intake as a service: takes the inbox in batches, and answers what became of an event.

The inbox is pulled by hand: FastStream's batches go through a queue entry and a coroutine for each message,
which the intake has no time for (docs/architecture.md). Receipts are FastStream's.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import nats.errors
from faststream.nats import NatsMessage  # noqa: TC002 - FastStream reads the annotations

from config import topology
from consumers.acceptance import Rejection, accept, check_new, wrong_token
from consumers.broker import answered, make_broker
from consumers.forgetting import forget_again
from consumers.intake import Intake
from consumers.intake_lanes import IntakeLanes
from consumers.rejections import Message, RejectedEntry, id_token, rejected_owner
from consumers.request_form import read_question
from consumers.service import fails_with
from domain.requests import RequestError
from domain.wire import encode
from ledger.cloudevents import name_key
from ledger.connection import text_of
from ledger.content_modes import headers_of
from ledger.errors import LedgerError, UnavailableError
from ledger.incidents import report
from ledger.index import NameIndex
from ledger.keys import Keys
from ledger.names import fact_token, token_of_source
from ledger.pull import Pull, Pulled, as_pulled
from ledger.streams import ensure_consumer, ensure_stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from faststream.nats import NatsBroker

    from ledger.connection import LedgerClient
    from ledger.log import Log

_log = logging.getLogger(__name__)
_ACK = b"PUB %b 4\r\n+ACK\r\n"
_NAK = b"PUB %b 4\r\n-NAK\r\n"
_WATCH_SECONDS = 5.0
_PAUSE_SECONDS = 0.3
_FAILED_SECONDS = 2.0
_IDS_AT_MOST = 1000


class ReceiptRequest(msgspec.Struct, frozen=True):
    """Which events: one ``id``, or up to 1000 ``ids``; ``source`` where its token is not itself.

    Any text may be asked for: also an id that no event may have has a receipt, which says so.
    """

    id: str | None = None
    ids: tuple[str, ...] = ()
    source: str | None = None


class IntakeService:
    """Start it, and wait for ``failed``, which ends only when the log is not what it was."""

    _intake: Intake
    _lanes: IntakeLanes
    _keys: Keys

    def __init__(self, url: str, client: LedgerClient, log: Log, rejected: Log, index_path: Path, *,
                 replicas: int = 1) -> None:  # fmt: skip
        self._client = client
        self._log = log
        self._rejected = rejected
        self._replicas = replicas
        self._index = NameIndex(index_path)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self.broker = make_broker(url, "intake")
        declare_intake(self.broker, self)

    async def start(self) -> None:
        """Begin to take in and to answer."""
        await ensure_consumer(self._client, topology.INBOX, topology.intake_consumer())
        self._keys = await Keys.open(self._client)
        await self._keys.watch()
        await forget_again(self._keys, self._log)
        self._intake = Intake(self._log, self._rejected, self._index, self._keys)
        self._lanes = IntakeLanes(self._intake, self._acknowledge, self._lost)
        self._tasks = [
            asyncio.create_task(self._take_in()),
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._destroy_day_keys()),
        ]
        self._tasks[0].add_done_callback(fails_with(self.failed, "intake"))
        await self.broker.start()

    async def stop(self) -> None:
        """Leave; what is not acknowledged stays in the inbox, and is recognised when it comes again."""
        await self.broker.stop()
        await self._lanes.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._index.close()

    async def _take_in(self) -> None:
        while True:
            pull = Pull(self._client, topology.INBOX, topology.INTAKE_CONSUMER, 2 * topology.INTAKE_BATCH, as_pulled)
            try:
                await pull.start()
                while True:
                    batch = await pull.next(topology.INTAKE_BATCH)
                    await self._lanes.take([_message(pulled) for pulled in batch])
                    await self._intake.trim(self._client)
            except (UnavailableError, nats.errors.Error) as error:
                _log.debug("the intake waits for the server: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                self._give_back(pull.left())
            except Exception as error:  # noqa: BLE001 - an error of ours delays the intake, and does not end it
                report("the intake failed and begins again", error, error)
                await asyncio.sleep(_FAILED_SECONDS)
                self._give_back(pull.left())
            finally:
                with suppress(nats.errors.Error):
                    await pull.stop()

    def _give_back(self, messages: list[Pulled]) -> None:
        """Let the inbox hand them out again at once, not when it has waited for them long enough."""
        with suppress(nats.errors.Error):
            self._client.send(b"".join([_NAK % pulled.reply for pulled in messages]))

    def _acknowledge(self, messages: Sequence[Message]) -> None:
        with suppress(nats.errors.Error):  # they are handed out again, and recognised
            self._client.send(b"".join([_ACK % message.reply for message in messages]))

    def _lost(self, error: LedgerError) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    async def receipt(self, token: str, body: bytes) -> bytes:
        """What became of events of this source."""
        request = read_question(ReceiptRequest, body)
        ids = request.ids or ((request.id,) if request.id is not None else ())
        if not 0 < len(ids) <= _IDS_AT_MOST:
            raise RequestError("invalid", f"name one `id`, or up to {_IDS_AT_MOST} `ids`", "id")
        sources = [request.source] if request.source is not None else await self._intake.sources_behind(token)
        if request.source is not None and token not in (token_of_source(request.source), fact_token(request.source)):
            raise RequestError("source_mismatch", wrong_token(token, request.source), "source")
        if len(sources) > 1:
            text = f"{' and '.join(map(repr, sources[:3]))} share the token {token}: name one, or use its own token"
            raise RequestError("source_mismatch", text, "source")
        return await self._receipts(token, sources[0], ids, as_list=bool(request.ids))

    async def _receipts(self, token: str, source: str, ids: tuple[str, ...], *, as_list: bool) -> bytes:
        found = self._positions(source, ids)
        if len(found) < len(ids):
            await self._intake.catch_up(f"{topology.FACT_SUBJECT}.{fact_token(source)}")
            found = self._positions(source, ids)
        tokens = {token, token_of_source(source)}
        if self._index.sources_of(fact_token(source)) == [source]:
            tokens.add(fact_token(source))  # nobody else's rejections can be there
        items = [
            {"id": name, "status": "recorded", "position": found[name]}
            if name in found
            else await self._rejected_or_pending(tokens, name)
            for name in ids
        ]
        return encode({"items": items} if as_list else items[0])

    async def check(self, token: str, body: bytes) -> bytes:
        """What the intake would say of this event, as far as it can be known without the log; nothing is recorded."""
        found = check_new(accept(body, datetime.now(UTC), token=token))
        if isinstance(found, Rejection):
            error = {"code": found.code, "message": found.message, "field": found.field}
            return encode({"accepted": False, "error": error})
        return encode({"accepted": True, "type": found.type, "id": found.id})

    def _positions(self, source: str, ids: tuple[str, ...]) -> dict[str, int]:
        keys = {name_key(source, name): name for name in ids}
        return {keys[key]: entry.position for key, entry in self._index.find(list(keys)).items()}

    async def _rejected_or_pending(self, tokens: Iterable[str], name: str) -> dict[str, Any]:
        subjects = [f"{topology.REJECTED_SUBJECT}.{token}.{id_token(name)}.*" for token in tokens]
        rejections = [one for subject in subjects if (one := await self._rejected.last(subject)) is not None]
        if not rejections:
            return {"id": name, "status": "pending"}
        entry = msgspec.json.decode(max(rejections).data, type=RejectedEntry)
        error = {"code": entry.code, "message": entry.message, "field": entry.field}
        return {"id": name, "status": "rejected", "error": error}

    async def _destroy_day_keys(self) -> None:
        """Keys of days whose rejected events are gone go, too."""
        while True:
            for days in range(topology.REJECTED_DAYS + 1, 2 * topology.REJECTED_DAYS):
                with suppress(LedgerError):
                    await self._keys.destroy(rejected_owner(datetime.now(UTC) - timedelta(days=days)))
            await asyncio.sleep(24 * 3600)

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
    """The intake's operations on a broker; without a service only for their description."""
    if service is None:
        broker.subscriber(
            f"{topology.INBOX_SUBJECT}.*",
            title="inbox",
            description="Facts, one CloudEvent a message. The PubAck means: durable, and will be recorded or rejected.",
        )(_described)

    @broker.subscriber(
        f"{topology.READ_SUBJECT}.*.receipt",
        queue="intake",
        title="receipt",
        description="What became of an event: recorded at a position, rejected and why, or pending.",
    )
    async def receipt(message: NatsMessage) -> bytes:
        assert service is not None
        return await answered(message, service.receipt)

    @broker.subscriber(
        f"{topology.READ_SUBJECT}.*.check",
        queue="intake",
        title="check",
        description="Whether the intake would take this event, and if not, why. Nothing is recorded.",
    )
    async def check(message: NatsMessage) -> bytes:
        assert service is not None
        return await answered(message, service.check)


async def _described(message: NatsMessage) -> None:
    """Stands for the pull loop in the AsyncAPI document."""


def _message(pulled: Pulled) -> Message:
    headers = headers_of(pulled.headers) if pulled.headers else ()
    return Message(text_of(pulled.subject), pulled.data, headers, pulled.reply, pulled.headers)
