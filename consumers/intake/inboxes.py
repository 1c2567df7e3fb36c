"""The inbox streams of an intake: one for each known source, one that all others share, one for our own commands.

A source is known once an event of it is recorded. Then it gets a stream and a consumer, and the server is told to
route what it publishes there: so neither its messages' ids nor its backlog meet another source's. Each step may be
the last before a crash; at the next start all of them are looked at again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from config import topology
from consumers.intake import idle_inboxes
from consumers.intake.idle_inboxes import IdleInboxes, first_sequence
from ledger.errors import LedgerError, jetstream_error
from ledger.nats.incidents import report
from ledger.store.handover import take_over
from ledger.store.streams import (
    REPLICAS_FIELD,
    ensure_stream,
    js_api,
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
    """A position of one stream that is to be reached before a source's messages in another are taken."""

    stream: str
    until: int
    begun: float


class _Taken:
    """Messages and bytes taken from a stream since it was trimmed."""

    __slots__ = ("messages", "since", "size")

    def __init__(self) -> None:
        self.messages, self.size, self.since = 0, 0, time.monotonic()


class Inboxes:
    """Keeps a known source's stream, consumer and route, the order of messages at the switch, and streams short."""

    def __init__(
        self, client: LedgerClient, fan_in: FanIn, routes: SourceRoutes | None, replicas: int, *, creates: bool = False
    ) -> None:
        """With ``creates`` the ledger's own streams are made again where they were deleted."""
        self._creates = creates
        self._client = client
        self._fan_in = fan_in
        self._routes = routes
        self._replicas = replicas
        self._own: dict[str, str] = {}  # the streams of known sources, by token
        self._wanted: dict[str, float] = {}  # tokens of known sources without a stream, and when to try again
        self._settled: set[tuple[str, str]] = set()  # streams and tokens whose order is clear
        self._held: dict[str, list[PulledMessage]] = {}
        self._fences: dict[tuple[str, str], list[_Fence]] = {}
        self._moved: dict[str, tuple[int, float]] = {}  # how far a stream is taken, and when it last moved
        self._taken: dict[str, _Taken] = {}
        self._wake = asyncio.Event()
        self._idle = IdleInboxes(client, routes) if routes is not None else None
        self._pace = _Pace()
        self._shared: dict[str, tuple[int, float]] = {}  # by token, of those without a stream: messages, and the last
        self.last_noted: Callable[[str], int] = lambda _stream: 0
        """Tells the highest sequence of a stream of which an event was recorded."""
        self.on_handover: Callable[[], None] = lambda: None
        """Called when messages of an inbox may have been dealt with by another intake, before any more are taken."""

    async def open(self, known: Iterable[str]) -> None:
        """Begin to read all inboxes that are there; those of sources ``known`` without one are made by ``run``."""
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
        if self._idle is not None:  # what a crash left between the seal and the end
            self._idle.leaving = {token: name for token, name in self._own.items() if name in sealed}
            self._own = {token: name for token, name in self._own.items() if name not in sealed}
        if self._routes is not None:  # a route without its stream would refuse what the source publishes
            prefix = f"{topology.INBOX_SUBJECT}."
            known = [*(self._routes.read()), *(prefix + token_of_source(source) for source in known)]
            for subject in known:
                self._want(subject.removeprefix(prefix))
        else:
            for source in known:
                self._want(token_of_source(source))

    def learn(self, source: str) -> None:
        """Take note of a source of which an event was recorded."""
        self._want(token_of_source(source))

    def _want(self, token: str) -> None:
        if token not in self._own and token not in self._wanted:
            self._wanted[token] = 0.0
            self._wake.set()

    async def run(self) -> None:
        """Give sources their streams, and trim what was taken, for ever."""
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
            except Exception as error:  # noqa: BLE001 - an error of ours is tried again, and does not end the intake
                report("looking after inboxes failed", error, error)
                await asyncio.sleep(_LOOK_SECONDS)
            self._wake.clear()
            if not any(at <= time.monotonic() for at in self._wanted.values()):
                try:
                    await asyncio.wait_for(self._wake.wait(), _LOOK_SECONDS)
                except TimeoutError:
                    continue

    async def _make_streams(self) -> set[str]:
        """Make streams for known sources, the bound permitting; the tokens of those that were made."""
        made: set[str] = set()
        now = time.monotonic()
        for token in self._in_turn(now):
            if self._is_full() or self._is_leaving(token) or not self._pace.allows():
                self._wanted[token] = now + _LOOK_SECONDS
                continue
            try:
                wanted = await self._source_stream(token)
                first = await first_sequence(self._client, token, self.last_noted(wanted["name"]))
                await ensure_stream(self._client, wanted | first, (REPLICAS_FIELD, *first))
                await self._read(wanted["name"])
            except LedgerError as error:
                self._wanted[token] = now + _AGAIN_SECONDS
                _log.warning("source %s stays in the shared inbox: %s", token, error)
                continue
            del self._wanted[token]
            self._shared.pop(token, None)
            self._own[token] = wanted["name"]
            made.add(token)
        return made

    def _in_turn(self, now: float) -> list[str]:
        """Return the sources that want a stream now; those first that send the most."""
        wanted = [token for token, at in self._wanted.items() if at <= now]
        return sorted(wanted, key=lambda token: -self._shared.get(token, (0, 0.0))[0])

    def _is_full(self) -> bool:
        return len(self._own) + len(self._idle.leaving if self._idle else ()) >= topology.SOURCES_AT_MOST

    def _is_leaving(self, token: str) -> bool:
        return self._idle is not None and token in self._idle.leaving

    async def _make_room(self) -> None:
        """Free the streams of the longest idle sources for those that send now and have none."""
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
        """Leave nothing of a stream that is deleted: its source's next one begins anew."""
        name = topology.source_stream_name(token)
        self._fan_in.remove(name)
        self._taken.pop(name, None)
        self._moved.pop(name, None)
        self._settled.discard((name, token))
        self._settled.discard((topology.IMPORT, token))
        self._wanted.setdefault(token, 0.0)
        for other in self._wanted:  # there is room now
            self._wanted[other] = 0.0

    async def _source_stream(self, token: str) -> dict[str, Any]:
        """Return the stream of a source, with as many copies as the log has or more."""
        log = await stream_config(self._client, topology.LEDGER) or {}
        return topology.source_stream(token, max(self._replicas, log.get(REPLICAS_FIELD, 1)))

    async def _read(self, name: str) -> None:
        delivered = await take_over(self._client, name, topology.intake_consumer())
        self.on_handover()
        self._fan_in.add(name, delivered)
        self._taken[name] = _Taken()
        self._taken[name].messages = 1  # what was taken before the start may still be there

    async def _route(self, tokens: set[str]) -> None:
        """Have the server route these sources to their streams, and make sure that it does.

        With a server of the user's own its configuration has the routes, or the sources share one inbox.
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
        """Make streams again that were deleted, and say which were changed."""
        if self._creates:
            for stream in topology.stream_configs(self._replicas):
                window = ("duplicate_window",) if stream["name"] == topology.INBOX else ()
                await ensure_stream(self._client, stream, (REPLICAS_FIELD, *window))
        else:
            await verify_streams(self._client, topology.stream_configs(), {topology.INBOX: ("duplicate_window",)})
        there = set(await stream_names(self._client))
        routed = self._routes.read() if self._routes is not None else None
        for token, name in list(self._own.items()):
            if name not in there and routed is not None and topology.source_route(token)[0] not in routed:
                del self._own[token]  # another process freed it
                self._forget(token)
            elif name not in there:
                await ensure_stream(self._client, await self._source_stream(token), (REPLICAS_FIELD,))

    async def recover(self) -> None:
        """Begin again with each stream whose deliveries have a gap, or whose consumer is gone, for ever."""
        pause = _RECOVER_SECONDS
        while True:
            names = await self._fan_in.lost()
            results = await asyncio.gather(*map(self._recover, names), return_exceptions=True)
            errors = [error for error in results if isinstance(error, Exception)]
            for error in errors:
                if isinstance(error, LedgerError):
                    _log.warning("inboxes: %s", error)
                else:
                    report("beginning again with an inbox failed", error, error)
            pause = min(_LOOK_SECONDS, 2 * pause) if errors else _RECOVER_SECONDS
            await asyncio.sleep(pause)  # two that read one inbox would otherwise keep the server busy with it

    async def _recover(self, name: str) -> None:
        delivered = await take_over(self._client, name, topology.intake_consumer())
        self.on_handover()
        self._fan_in.resume(name, delivered)

    # ------------------------------------------------------------------ the order at the switch

    @property
    def holds(self) -> bool:
        """Messages wait for others that came before them."""
        return bool(self._held)

    async def admit(self, batch: Mapping[str, list[PulledMessage]]) -> list[PulledMessage]:
        """Return what may be taken in now, of what came from each stream; the rest is returned by a later call.

        Messages of a source may lie in two streams, the older ones in the shared inbox: those come first.
        """
        now: list[PulledMessage] = []
        if shared := batch.get(topology.INBOX):
            self._note_shared(shared)
        for name, messages in batch.items():
            taken = self._taken[name]
            taken.messages += len(messages)
            taken.size += sum([len(pulled.data) for pulled in messages])
            if name == topology.INBOX or (name not in self._held and self._is_clear(name, messages)):
                now += messages
            else:
                self._held.setdefault(name, []).extend(messages)
        for released in await asyncio.gather(*map(self._release, list(self._held))):
            now += released
        if any(one.messages >= _TRIM_MESSAGES or one.size >= _TRIM_BYTES for one in self._taken.values()):
            self._wake.set()
        return now

    def _note_shared(self, messages: Sequence[PulledMessage]) -> None:
        """Note which sources that want a stream of their own still send."""
        moment = time.monotonic()
        for _, token in map(partial(_key_of, topology.INBOX), messages):
            if token in self._wanted:
                self._shared[token] = self._shared.get(token, (0, 0.0))[0] + 1, moment

    def _is_clear(self, name: str, messages: Sequence[PulledMessage]) -> bool:
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
        """Return whether a source's older messages elsewhere are taken, or are kept by another source's trouble."""
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
        floor = await _ack_floor(self._client, name)
        if self._moved.get(name, (-1, 0.0))[0] != floor:
            self._moved[name] = floor, time.monotonic()
        return self._moved[name]

    # ------------------------------------------------------------------ trimming

    async def _trim(self) -> None:
        """Purge streams up to the ack floor: each now and then, sooner where much was taken."""
        now = time.monotonic()
        for name, taken in list(self._taken.items()):
            much = taken.messages >= _TRIM_MESSAGES or taken.size >= _TRIM_BYTES
            if not taken.messages or not (much or now - taken.since >= _TRIM_SECONDS):
                continue
            self._taken[name] = _Taken()
            if floor := await _ack_floor(self._client, name):
                await js_api(self._client, f"STREAM.PURGE.{name}", {"seq": floor + 1})


class _Pace:
    """Allows so many streams at once, then so many a second."""

    def __init__(self) -> None:
        self._left, self._at = float(topology.ROUTES_AT_ONCE), time.monotonic()

    def allows(self) -> bool:
        """Return whether one more may be made now, and count it."""
        now = time.monotonic()
        gained = (now - self._at) * topology.ROUTES_A_SECOND
        self._left, self._at = min(topology.ROUTES_AT_ONCE, self._left + gained), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


async def _ack_floor(client: LedgerClient, name: str) -> int:
    info = await js_api(client, f"CONSUMER.INFO.{name}.{topology.INTAKE_CONSUMER}")
    return int(info.get("ack_floor", {}).get("stream_seq", 0))


def _key_of(name: str, pulled: PulledMessage) -> tuple[str, str]:
    """A stream, and the token of the source whose message came from it."""
    return name, pulled.subject.rpartition(b".")[2].decode(errors="replace")
