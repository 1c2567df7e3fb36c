"""Notifications: each step of an escalation, told to the source that filed it, and kept for a week.

They are derived from the log, as views are, so a crash between a decision and its notification loses none: the last
notification that is stored, and the decision state's file, say where to go on. Each decider does this; the server drops
the second copy of a notification, which has the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from config import topology
from consumers.runtime.request_form import read_query
from consumers.runtime.source_tokens import read_token
from domain.commands import NotificationsRequest, RequestError
from domain.decisions.notices import notice_of
from domain.events.decisions import EscalationRequested, EscalationStep
from domain.serialization import encode
from ledger.errors import LedgerError
from ledger.nats.incidents import report
from ledger.store.log import Draft, Log
from ledger.store.role_status import Heartbeat
from ledger.store.subject_tokens import token_of_source
from projections.engine.events import UnknownEventError, read_event, type_in, types_of

if TYPE_CHECKING:
    from consumers.decisions.state.follower import DecisionState
    from ledger.nats.client import LedgerClient
    from projections.engine.events import Event

_log = logging.getLogger(__name__)
_TYPES = types_of(EscalationRequested, EscalationStep)
_NAMES = frozenset(name.encode() for name in _TYPES)
_PAUSE_SECONDS = 0.5
_ANSWER_BYTES = 700_000


class _Waiting(NamedTuple):
    """A notification that must be stored, and the position of its event."""

    position: int
    draft: Draft


class _Stored(msgspec.Struct):
    """The field of a stored notification by which its reader goes on."""

    position: int


class Notifications:
    """Stores the notifications of the steps that the decision state reads, in the task ``run``; answers queries."""

    def __init__(self, state: DecisionState, log: Log) -> None:
        self._state = state
        self._ledger = log
        self._stored: Log
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._done_to = 0
        self.pulse = Heartbeat("notifications", lambda: bool(self._waiting))

    async def open(self, client: LedgerClient) -> None:
        """Find the steps that were not told yet, before the decision state reads on."""
        self._stored = await Log.unstamped(client, topology.NOTIFY)
        newest, known = await self._stored.last(">"), self._state.notified_to
        told = 0 if newest is None else msgspec.json.decode(newest.data, type=_Stored).position
        self._done_to = min(max(told, known or 0), await self._ledger.last_position())
        if newest is None and known is None:  # a ledger of an earlier version, which stored none
            self._done_to = self._state.position
        self._state.on_escalation = self._note
        self._state.notified = lambda: self._waiting[0].position - 1 if self._waiting else self._state.position
        read_to = self._state.position
        if self._done_to == read_to:
            return
        async for batch in self._ledger.subject_batches(">", self._done_to):
            for recorded in batch:
                if recorded.position > read_to:
                    return
                if type_in(recorded.data) in _NAMES:
                    try:
                        self._note(read_event(recorded, _TYPES), None)
                    except UnknownEventError as error:
                        report("a step of an escalation cannot be told", recorded.position, error)

    async def run(self) -> None:
        """Store what waits, in the order of the log, for ever."""
        while True:
            try:
                while self._waiting:
                    await self._stored.append([self._waiting[0].draft])
                    self._waiting.popleft()
                self.pulse.beat()
            except LedgerError as error:
                _log.warning("notifications wait: %s", error)
                self.pulse.wait(str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            await self._wake.wait()
            self._wake.clear()

    def _note(self, event: Event, asked: EscalationRequested | None) -> None:
        """Note a step; ``asked`` is the escalation's first one, where it is known."""
        record = event.body
        assert isinstance(record, EscalationRequested | EscalationStep)
        kept_since = datetime.now(UTC) - timedelta(days=topology.NOTIFY_DAYS)
        if event.position <= self._done_to or event.recorded < kept_since:
            return
        source = getattr(record, "requested_by_source", None) or (record if asked is None else asked).source
        notice = notice_of(record, source, event.stored.id, event.position, event.time)
        subject = f"{topology.ESCALATION_SUBJECT}.{token_of_source(source)}"
        draft = Draft(subject, encode(notice), headers=(("Nats-Msg-Id", notice.id),))
        self._waiting.append(_Waiting(event.position, draft))
        self._wake.set()

    async def answer(self, token: str, body: bytes) -> bytes:
        """Return the kept notifications after a sequence, of one source; of all sources to one that decides.

        Raises:
            RequestError: the source was stopped, or the request is invalid.
            LedgerError: the stream cannot be read.

        """
        registry, source = self._state.sources, read_token(token).source
        if registry.is_shut(source):
            raise RequestError("source_not_allowed", registry.request_refusal(source, "anything") or "", "source")
        request = read_query(NotificationsRequest, body)
        own = "*" if "approve" in registry.rights(source).operations else token
        subject = f"{topology.ESCALATION_SUBJECT}.{own}"
        found, complete = await self._stored.read_batch(subject, request.after, request.limit)
        items: list[dict[str, msgspec.Raw]] = []
        size, last = 0, request.after
        for recorded in found:
            size += len(recorded.data)
            if items and size > _ANSWER_BYTES:
                complete = False
                break
            last = recorded.position
            items.append({"seq": msgspec.Raw(b"%d" % last), **msgspec.json.decode(recorded.data, type=_Fields)})
        return encode({"outcome": "done", "items": items, "next": last, "complete": complete})


_Fields = dict[str, msgspec.Raw]
