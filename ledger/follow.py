"""Reading the log in order and following it live, by pulling in batches."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from typing import TYPE_CHECKING, NamedTuple

import nats.errors

from ledger.errors import LostEventsError, UnavailableError
from ledger.log import Log, Recorded, digest_of
from ledger.streams import js_api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

_log = logging.getLogger(__name__)
_SECOND_NS = 1_000_000_000
_HEARTBEAT_SECONDS = 1
_EXPIRES_SECONDS = 30
PULL_EVENTS = 4000


class Anchor(NamedTuple):
    """The last event a reader took: its position (0: none) and the hash of its data."""

    position: int = 0
    digest: str = ""


async def verify_anchor(log: Log, anchor: Anchor, reader: str) -> None:
    """Check that the log still shows what a reader took last.

    Raises:
        LostEventsError: it does not: sequence numbers may have been reused after damage.

    """
    if not anchor.position:
        return
    found = await log.at(anchor.position)
    if found is None:
        raise LostEventsError(f"{reader} has read an event that is gone", anchor.position)
    if digest_of(found.data) != anchor.digest:
        raise LostEventsError(f"{reader} has read another event", anchor.position)


class Follower:
    """Reads one stream in order from behind an anchor, and then live.

    Gaps in delivery are read again; a gap in the stream itself, or an event that is not what it was,
    raises. Use a connection made with ``lean=True``.
    """

    def __init__(self, client: Client, log: Log, name: str, anchor: Anchor = Anchor(),
                 subjects: Sequence[str] = ()) -> None:  # fmt: skip
        self._client = client
        self._log = log
        self._name = name
        self._subjects = list(subjects)
        self.anchor = anchor
        self._buffer: list[Recorded] = []
        self._wake = asyncio.Event()
        self._subscription: Subscription | None = None
        self._consumer = ""
        self._outstanding = 0
        self._delivered = 0
        self._lost = False
        self._pending = 1

    async def batches(self, *, until: int | None = None) -> AsyncIterator[list[Recorded]]:
        """Batches of events, oldest first; without ``until`` for ever.

        Raises:
            LostEventsError: the stream does not show what was read before, or has a gap.

        """
        await verify_anchor(self._log, self.anchor, self._name)
        if until is not None and until <= self.anchor.position:
            return
        try:
            while True:
                batch = await self._next_batch()
                if not batch:
                    continue
                if until is not None and batch[-1].position >= until:
                    yield [event for event in batch if event.position <= until]
                    return
                yield batch
        finally:
            await self.close()

    async def _next_batch(self) -> list[Recorded]:
        try:
            if self._subscription is None:
                await self._start()
            if not self._buffer and self._outstanding <= 0:
                await self._pull()
        except (UnavailableError, nats.errors.Error) as error:
            _log.debug("%s waits for the server: %s", self._name, error)
            await self._restart()
            return []
        if not self._buffer and not self._lost:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), 3 * _HEARTBEAT_SECONDS)
            except TimeoutError:
                self._lost = True
        batch, self._buffer = self._buffer, []
        if batch:
            self._check_gaps(batch)
            self.anchor = Anchor(batch[-1].position, digest_of(batch[-1].data))
        if self._lost:
            await self._restart()
        return batch

    def _check_gaps(self, batch: list[Recorded]) -> None:
        if self._subjects:
            return
        expected = self.anchor.position + 1
        for event in batch:
            if event.position != expected:
                raise LostEventsError("an event is missing", expected)
            expected += 1

    async def _start(self) -> None:
        inbox = self._client.new_inbox()
        self._consumer = f"{self._name}-{secrets.token_hex(4)}"
        config: dict[str, object] = {
            "name": self._consumer,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.anchor.position + 1,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 60 * _SECOND_NS,
        }
        if self._subjects:
            config["filter_subjects"] = self._subjects
        body = {"stream_name": self._log.stream, "config": config, "action": "create"}
        answer = await js_api(self._client, f"CONSUMER.CREATE.{self._log.stream}.{self._consumer}", body)
        if "error" in answer:
            message = f"{self._name} cannot read {self._log.stream}: {answer['error'].get('description')}"
            raise UnavailableError(message)
        self._delivered = 0
        self._outstanding = 0
        self._lost = False
        self._subscription = await self._client.subscribe(
            inbox, cb=self._on_message, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    async def _pull(self) -> None:
        assert self._subscription is not None
        self._outstanding = PULL_EVENTS
        request = {
            "batch": PULL_EVENTS,
            "expires": _EXPIRES_SECONDS * _SECOND_NS,
            "idle_heartbeat": _HEARTBEAT_SECONDS * _SECOND_NS,
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._log.stream}.{self._consumer}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=self._subscription.subject)

    async def _on_message(self, message: Msg) -> None:
        reply = message.reply
        if reply.startswith("$JS.ACK."):
            tokens = reply.split(".")
            self._delivered += 1
            if int(tokens[-3]) != self._delivered:
                self._lost = True
            elif not self._lost:
                self._buffer.append(Recorded(int(tokens[-4]), message.subject, message.data))
                self._outstanding -= 1
        else:
            status = (message.headers or {}).get("Status")
            if status == "408":
                self._outstanding = 0
            elif status != "100":  # the consumer is gone, or the server is going
                self._lost = True
        if not self._wake.is_set():
            self._wake.set()

    async def _restart(self) -> None:
        await self.close()
        await asyncio.sleep(0.2)
        try:
            await verify_anchor(self._log, self.anchor, self._name)
        except UnavailableError:
            await asyncio.sleep(0.3)

    async def close(self) -> None:
        """Forget the consumer; reading may go on later from the anchor."""
        subscription, self._subscription = self._subscription, None
        self._buffer = []
        self._lost = False
        if subscription is None or self._client.is_closed:
            return
        try:
            await subscription.unsubscribe()
            await self._client.publish(f"$JS.API.CONSUMER.DELETE.{self._log.stream}.{self._consumer}")
        except nats.errors.Error as error:
            _log.debug("%s: %s", self._name, error)  # the server forgets it by itself after a minute
