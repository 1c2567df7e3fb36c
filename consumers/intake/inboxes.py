"""The inbox streams of an intake: one for each known source, one shared by all others, one for our own commands.

A source is known once an event of it is recorded. Then it gets a stream and a consumer, and the server routes its
messages there. So its message ids and its backlog do not affect other sources. A crash may follow each step, so every
start checks all steps again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from config import topology
from consumers.intake import idle_inboxes
from consumers.intake.idle_inboxes import IdleInboxes, first_sequence, sequence_after
from ledger.errors import LedgerError, jetstream_error
from ledger.nats.incidents import report
from ledger.store.handover import take_over
from ledger.store.streams import (
    REPLICAS_FIELD,
    ensure_stream,
    js_api,
    retired_in,
    stream_config,
    stream_names,
    stream_storing,
    verify_streams,
)
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ledger.nats.client import LedgerClient
    from ledger.nats.inbox_routes import SourceRoutes
    from ledger.store.fan_in import FanIn
    from ledger.store.pull_consumer import PulledMessage

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 5.0
_RECOVER_SECONDS = 0.1
_TRIM_SECONDS = 5.0
_STUCK_SECONDS = 5.0
_AGAIN_SECONDS = 60.0
_NO_MESSAGE = 10037
_TRIM_MESSAGES = topology.SHARED_MESSAGES_A_SOURCE // 4
_TRIM_BYTES = topology.SOURCE_BYTES // 4


class _Fence(NamedTuple):
    """A position that one stream must reach before a source's messages in another stream are recorded."""

    stream: str
    until: int
    begun: float


class _SinceTrim:
    """The number of messages and bytes that were pulled from a stream since its last trim."""

    __slots__ = ("messages", "since", "size")

    def __init__(self) -> None:
        self.messages, self.size, self.since = 0, 0, time.monotonic()


class Inboxes:
    """Maintains the streams, consumers and routes of known sources, the order of messages, and the size of streams."""

    def __init__(
        self, client: LedgerClient, fan_in: FanIn, routes: SourceRoutes | None, replicas: int, *, creates: bool = False
    ) -> None:
        """``creates``: create the ledger's own streams again where they were deleted."""
        self._creates = creates
        self._client = client
        self._fan_in = fan_in
        self._routes = routes
        self._replicas = replicas
        self._own: dict[str, str] = {}  # the streams of known sources, by token
        self._wanted: dict[str, float] = {}  # known sources without a stream, by token: the next attempt
        self._settled: set[tuple[str, str]] = set()  # (stream, token) pairs without older messages elsewhere
        self._held: dict[str, list[PulledMessage]] = {}
        self._fences: dict[tuple[str, str], list[_Fence]] = {}
        self._moved: dict[str, tuple[int, float]] = {}  # a stream's ack floor, and when it last moved
        self._since_trim: dict[str, _SinceTrim] = {}
        self._wake = asyncio.Event()
        self._idle = IdleInboxes(client, routes) if routes is not None else None
        self._creation_limit = _RateLimit()
        self._shared: dict[str, tuple[int, float]] = {}  # messages of sources without a stream: (number, time)
        self.last_noted: Callable[[str], int] = lambda _stream: 0
        """Returns the highest sequence in a stream with a recorded event."""
        self.on_handover: Callable[[], None] = lambda: None
        """Called before messages are pulled that another intake may have recorded."""

    async def open(self, known: Iterable[str]) -> None:
        """Start to read all existing inboxes; ``run`` creates those of ``known`` sources without one."""
        for name in (topology.INBOX, topology.IMPORT):
            await self._read(name)
        names = topology.inbox_streams(await stream_names(self._client))[2:]
        configs = await asyncio.gather(*(stream_config(self._client, name) for name in names))
        self._own = {
            config["subjects"][0].removeprefix(f"{topology.SOURCE_SUBJECT}."): config["name"]
            for config in configs
            if config is not None
        }
        await asyncio.gather(*map(self._read, self._own.values()))
        sealed = {config["name"] for config in configs if config is not None and config.get("sealed")}
        if self._idle is not None:  # a crash may have left sealed streams
            self._idle.leaving = {token: name for token, name in self._own.items() if name in sealed}
            self._own = {token: name for token, name in self._own.items() if name not in sealed}
        routed = self._routes.read() if self._routes is not None else ()
        for subject in routed:  # without its stream, a route would refuse the source's messages
            self._want(subject.removeprefix(f"{topology.INBOX_SUBJECT}."))
        for source in known:
            self.learn(source)

    def learn(self, source: str) -> None:
        """Add a known source."""
        self._want(token_of_source(source))

    def _want(self, token: str) -> None:
        if token not in self._own and token not in self._wanted:
            self._wanted[token] = 0.0
            self._wake.set()

    async def run(self) -> None:
        """Create and trim streams, for ever."""
        unrouted = set(self._own)
        while True:
            try:
                await self._make_room()
                unrouted |= await self._make_streams()
                if unrouted:
                    await self._route(unrouted)
                    unrouted.clear()
                await self._trim()
                await self._restore()
            except LedgerError as error:
                _log.warning("inboxes: %s", error)
            except Exception as error:  # noqa: BLE001 - our own errors are retried, and must not end the intake
                report("the maintenance of inboxes failed", error, error)
                await asyncio.sleep(_LOOK_SECONDS)
            self._wake.clear()
            if not any(at <= time.monotonic() for at in self._wanted.values()):
                try:
                    await asyncio.wait_for(self._wake.wait(), _LOOK_SECONDS)
                except TimeoutError:
                    continue

    async def _make_streams(self) -> set[str]:
        """Create streams for known sources up to the limit; return their tokens."""
        made: set[str] = set()
        now = time.monotonic()
        for token in self._by_traffic(now):
            if self._is_full() or self._is_leaving(token) or not self._creation_limit.allows():
                self._wanted[token] = now + _LOOK_SECONDS
                continue
            try:
                name = topology.source_stream_name(token)
                first = await first_sequence(self._client, token, self.last_noted(name))
                await ensure_stream(self._client, await self._source_stream(token) | first, (REPLICAS_FIELD, *first))
                await self._read(name)
            except LedgerError as error:
                self._wanted[token] = now + _AGAIN_SECONDS
                _log.warning("source %s stays in the shared inbox: %s", token, error)
                continue
            del self._wanted[token]
            self._shared.pop(token, None)
            self._own[token] = name
            made.add(token)
        return made

    def _by_traffic(self, now: float) -> list[str]:
        """Return the tokens of sources without a stream, the busiest first."""
        wanted = [token for token, at in self._wanted.items() if at <= now]
        return sorted(wanted, key=lambda token: -self._shared.get(token, (0, 0.0))[0])

    def _is_full(self) -> bool:
        return len(self._own) + len(self._idle.leaving if self._idle else ()) >= topology.SOURCES_AT_MOST

    def _is_leaving(self, token: str) -> bool:
        return self._idle is not None and token in self._idle.leaving

    async def _make_room(self) -> None:
        """Release the streams of the longest idle sources for active sources without one."""
        if self._idle is None or (2 * len(self._own) < topology.SOURCES_AT_MOST and not self._idle.leaving):
            return
        await self._idle.observe()
        for token in await self._idle.delete_drained():
            self._forget(token)
        recent = time.monotonic() - idle_inboxes.ACTIVE_SECONDS
        active = sum(token in self._wanted and last >= recent for token, (_, last) in self._shared.items())
        short = min(active, topology.ROUTES_AT_ONCE) - len(self._idle.leaving)
        if not self._is_full() or short <= 0:
            return
        released = await self._idle.release(self._idle.longest_idle(self._own, short), self._own)
        for token in released:
            del self._own[token]
            self._wanted[token] = time.monotonic() + _LOOK_SECONDS
        for token in await self._idle.delete_drained():
            self._forget(token)

    def _forget(self, token: str) -> None:
        """Forget a deleted stream, so that its source may get a new one."""
        name = topology.source_stream_name(token)
        self._fan_in.remove(name)
        self._since_trim.pop(name, None)
        self._moved.pop(name, None)
        self._settled.discard((name, token))
        self._settled.discard((topology.IMPORT, token))
        self._wanted.setdefault(token, 0.0)
        for other in self._wanted:  # there is room for more streams now
            self._wanted[other] = 0.0

    async def _source_stream(self, token: str) -> topology.DeclaredStream:
        """Return the configuration of a source's stream, with at least as many replicas as the log."""
        log = await stream_config(self._client, topology.LEDGER) or {}
        return topology.source_stream(token, max(self._replicas, log.get(REPLICAS_FIELD, 1)))

    async def _read(self, name: str) -> None:
        delivered = await take_over(self._client, name, topology.intake_consumer())
        self.on_handover()
        self._fan_in.add(name, delivered)
        self._since_trim[name] = _SinceTrim()
        self._since_trim[name].messages = 1  # messages from before the start may still have to be trimmed

    async def _route(self, tokens: set[str]) -> None:
        """Let the server route these sources to their streams, and check that it does.

        A server of the user's own has the routes in its configuration; otherwise the sources share one inbox.
        """
        if self._routes is None or not (missing := await self._without_route(tokens)):
            return
        await asyncio.to_thread(self._routes.add, dict(map(topology.source_route, self._own)))
        if missing := await self._without_route(missing):
            _log.warning("the server does not route %s yet: they share an inbox until it is restarted", sorted(missing))

    async def _without_route(self, tokens: set[str]) -> set[str]:
        async def check(token: str) -> bool:
            return await stream_storing(self._client, topology.source_route(token)[0]) == self._own[token]

        ordered = sorted(tokens)
        routed = await asyncio.gather(*map(check, ordered))
        return {token for token, there in zip(ordered, routed, strict=True) if not there}

    async def _restore(self) -> None:
        """Create deleted streams again, or check that none was deleted or changed."""
        there = set(await stream_names(self._client))
        retired = retired_in(await stream_config(self._client, topology.LEDGER))
        declared = topology.stream_configs(self._replicas, retired.until)
        if self._creates:
            for stream in declared:
                name = stream["name"]
                window = ("duplicate_window",) if name == topology.INBOX else ()
                is_lost = name in (topology.INBOX, topology.IMPORT) and name not in there
                first = sequence_after(self.last_noted(name)) if is_lost else {}
                is_whole = name != topology.LEDGER or not retired.until  # otherwise it is never made without its events
                passed_over = (REPLICAS_FIELD, *window, *first)
                await ensure_stream(self._client, stream | first, passed_over, creates=is_whole)
        else:
            await verify_streams(self._client, declared, {topology.INBOX: ("duplicate_window",)})
        routed = self._routes.read() if self._routes is not None else None
        for token, name in list(self._own.items()):
            if name not in there and routed is not None and topology.source_route(token)[0] not in routed:
                del self._own[token]  # another process released it
                self._forget(token)
            elif name not in there:
                first = await first_sequence(self._client, token, self.last_noted(name))
                await ensure_stream(self._client, await self._source_stream(token) | first, (REPLICAS_FIELD, *first))

    async def recover(self) -> None:
        """Take over each stream again after a gap in its deliveries or the loss of its consumer, for ever."""
        pause = _RECOVER_SECONDS
        while True:
            names = await self._fan_in.lost()
            results = await asyncio.gather(*map(self._recover, names), return_exceptions=True)
            errors = [error for error in results if isinstance(error, Exception)]
            for error in errors:
                if isinstance(error, LedgerError):
                    _log.warning("inboxes: %s", error)
                else:
                    report("the takeover of an inbox failed", error, error)
            pause = min(_LOOK_SECONDS, 2 * pause) if errors else _RECOVER_SECONDS
            await asyncio.sleep(pause)  # limits the load where two processes read one inbox

    async def _recover(self, name: str) -> None:
        delivered = await take_over(self._client, name, topology.intake_consumer())
        self.on_handover()
        self._fan_in.resume(name, delivered)

    # ------------------------------------------------------------------ order between streams

    @property
    def holds(self) -> bool:
        """True if messages wait for older ones in another stream."""
        return bool(self._held)

    async def admit(self, batch: Mapping[str, list[PulledMessage]]) -> list[PulledMessage]:
        """Return the messages that may be recorded now; a later call returns the others.

        A source may have messages in two streams, the older ones in the shared inbox. Those come first.
        """
        now: list[PulledMessage] = []
        if shared := batch.get(topology.INBOX):
            self._note_shared(shared)
        for name, messages in batch.items():
            since_trim = self._since_trim[name]
            since_trim.messages += len(messages)
            since_trim.size += sum([len(pulled.data) for pulled in messages])
            if name == topology.INBOX or (name not in self._held and self._are_settled(name, messages)):
                now += messages
            else:
                self._held.setdefault(name, []).extend(messages)
        for released in await asyncio.gather(*map(self._release, list(self._held))):
            now += released
        if any(one.messages >= _TRIM_MESSAGES or one.size >= _TRIM_BYTES for one in self._since_trim.values()):
            self._wake.set()
        return now

    def _note_shared(self, messages: Sequence[PulledMessage]) -> None:
        """Count the messages of sources without a stream."""
        moment = time.monotonic()
        for _, token in map(partial(_key_of, topology.INBOX), messages):
            if token in self._wanted:
                self._shared[token] = self._shared.get(token, (0, 0.0))[0] + 1, moment

    def _are_settled(self, name: str, messages: Sequence[PulledMessage]) -> bool:
        return all(key in self._settled for key in {_key_of(name, pulled) for pulled in messages})

    async def _release(self, name: str) -> list[PulledMessage]:
        waiting = self._held.pop(name)
        for number, pulled in enumerate(waiting):
            key = _key_of(name, pulled)
            if key not in self._settled and not await self._is_settled(key):
                self._held[name] = waiting[number:]
                self._fan_in.hold(name, held=True)
                return waiting[:number]
            self._settled.add(key)
        self._fan_in.hold(name, held=False)
        return waiting

    async def _is_settled(self, key: tuple[str, str]) -> bool:
        """Return whether a source's older messages in other streams are recorded, or stuck behind another source's."""
        try:
            if key not in self._fences:
                self._fences[key] = await self._fences_of(*key)
            for fence in self._fences[key]:
                floor, moved = await self._floor(fence.stream)
                if floor < fence.until and time.monotonic() - max(moved, fence.begun) < _STUCK_SECONDS:
                    return False
        except LedgerError as error:
            _log.debug("inboxes: %s", error)
            return False
        del self._fences[key]
        return True

    async def _fences_of(self, name: str, token: str) -> list[_Fence]:
        before = [topology.INBOX]
        if name == topology.IMPORT and token in self._own:
            before.append(self._own[token])
        fences: list[_Fence] = []
        for stream in before:
            request = {"last_by_subj": f"{topology.INBOX_SUBJECT}.{token}"}
            answer = await js_api(self._client, f"STREAM.MSG.GET.{stream}", request)
            if "error" not in answer:
                fences.append(_Fence(stream, answer["message"]["seq"], time.monotonic()))
            elif answer["error"].get("err_code") != _NO_MESSAGE:
                raise jetstream_error(answer["error"], stream)
        return fences

    async def _floor(self, name: str) -> tuple[int, float]:
        floor = await ack_floor(self._client, name)
        if self._moved.get(name, (-1, 0.0))[0] != floor:
            self._moved[name] = floor, time.monotonic()
        return self._moved[name]

    # ------------------------------------------------------------------ trimming

    async def _trim(self) -> None:
        """Purge streams up to their ack floor, at intervals, or earlier after many messages."""
        now = time.monotonic()
        for name, since_trim in list(self._since_trim.items()):
            much = since_trim.messages >= _TRIM_MESSAGES or since_trim.size >= _TRIM_BYTES
            if not since_trim.messages or not (much or now - since_trim.since >= _TRIM_SECONDS):
                continue
            self._since_trim[name] = _SinceTrim()
            if floor := await ack_floor(self._client, name):
                await js_api(self._client, f"STREAM.PURGE.{name}", {"seq": floor + 1})


class _RateLimit:
    """A token bucket for new streams: ``ROUTES_AT_ONCE`` at once, then ``ROUTES_A_SECOND``."""

    def __init__(self) -> None:
        self._left, self._at = float(topology.ROUTES_AT_ONCE), time.monotonic()

    def allows(self) -> bool:
        """Return whether one more stream may be created now, and count it."""
        now = time.monotonic()
        gained = (now - self._at) * topology.ROUTES_A_SECOND
        self._left, self._at = min(topology.ROUTES_AT_ONCE, self._left + gained), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


async def ack_floor(client: LedgerClient, name: str) -> int:
    """Return the sequence up to which all messages of an inbox are acknowledged."""
    info = await js_api(client, f"CONSUMER.INFO.{name}.{topology.INTAKE_CONSUMER}")
    return int(info.get("ack_floor", {}).get("stream_seq", 0))


def _key_of(name: str, pulled: PulledMessage) -> tuple[str, str]:
    """Return a stream and the source's token of a message from it."""
    return name, pulled.subject.rpartition(b".")[2].decode(errors="replace")
