"""Deliveries of one webhook: in order for each subject, with longer and longer pauses between attempts."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from projections.webhooks import DeadLetter, WebhookProgress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from consumers.webhooks.messages import WebhookMessage
    from consumers.webhooks.sender import AttemptOutcome
    from projections.webhooks import Feed

_OUTAGE_FAILURES = 10
"""After so many failures in a row the next success ends all pauses: the receiver is back."""
_LONGEST_DOUBLING = 30


class AttemptTiming(NamedTuple):
    """Seconds of the first and of the longest pause, and from the first attempt to a dead letter."""

    first: float = 5.0
    longest: float = 3600.0
    give_up: float = 3 * 24 * 3600.0


class GoneError(Exception):
    """The receiver answered 410: it wants nothing more."""


class Window:
    """The messages of one feed that are under way; the position up to which all are settled."""

    def __init__(self, position: int) -> None:
        self.read_to = position
        """The last position that was read."""
        self._open: dict[int, int] = {}  # messages by position, in ascending order

    @property
    def position(self) -> int:
        """The position up to which everything is delivered or a dead letter."""
        return next(iter(self._open)) - 1 if self._open else self.read_to

    def begin(self, position: int) -> None:
        """Note that a message is under way; positions only grow, several messages may share one."""
        self.read_to = position
        self._open[position] = self._open.get(position, 0) + 1

    def skip(self, position: int) -> None:
        """Note a position without a message."""
        self.read_to = position

    def end(self, position: int) -> None:
        """Note that one message of a position is settled."""
        self._open[position] -= 1
        if not self._open[position]:
            del self._open[position]


class Deliveries:
    """Sends messages: those of one subject in order, those of others meanwhile.

    ``send`` attempts once, ``bury`` stores a dead letter. ``failed`` ends with the reason to stop the webhook.
    """

    def __init__(
        self,
        send: Callable[[WebhookMessage], Awaitable[AttemptOutcome]],
        bury: Callable[[WebhookMessage, DeadLetter], Awaitable[None]],
        progress: WebhookProgress,
        timing: AttemptTiming = AttemptTiming(),  # noqa: B008 - immutable
        *,
        at_once: int = 16,
        at_most: int = 1000,
    ) -> None:
        self.progress = progress
        self.windows: dict[Feed, Window] = {
            feed: Window(progress.position(feed)) for feed in ("events", "notices", "budgets")
        }
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send, self._bury, self._timing = send, bury, timing
        self._slots = asyncio.Semaphore(at_once)
        self._room = asyncio.Semaphore(at_most)
        self._queues: dict[str, deque[WebhookMessage]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = self._buried = 0
        self._recovered = asyncio.Event()

    async def put(self, message: WebhookMessage) -> None:
        """Accept a message; wait while too many are under way."""
        await self._room.acquire()
        self.windows[message.feed].begin(message.position)
        queue = self._queues.setdefault(message.subject, deque())
        queue.append(message)
        if len(queue) == 1:
            task = asyncio.create_task(self._drain(message.subject, queue))
            self._tasks.add(task)
            task.add_done_callback(self._note_end)

    async def stop(self) -> None:
        """End all attempts; messages under way are sent again at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def state(self) -> object:
        """Return a value that changes with each outcome, and not with positions of events that nobody receives."""
        progress = self.progress
        return progress.delivered, progress.last_error, progress.failing_since, progress.stopped, self._buried

    def settled(self) -> WebhookProgress:
        """Return the progress with the positions up to which everything is settled."""
        for feed, window in self.windows.items():
            setattr(self.progress, feed, window.position)
        return self.progress

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)

    async def _drain(self, subject: str, queue: deque[WebhookMessage]) -> None:
        while queue:
            message = queue[0]
            letter = await self.attempt(message)
            if letter is not None:
                await self._bury(message, letter)
                self._buried += 1
            queue.popleft()
            self.windows[message.feed].end(message.position)
            self._room.release()
        del self._queues[subject]

    async def attempt(self, message: WebhookMessage, *, once: bool = False) -> DeadLetter | None:
        """Send a message until it is delivered; return a dead letter when it is given up.

        Raises:
            GoneError: the receiver wants nothing more.

        """
        begun = datetime.now(UTC)
        until, attempts = begun + timedelta(seconds=self._timing.give_up), 0
        while True:
            async with self._slots:
                outcome = await self._send(message)
            attempts += 1
            self._note(outcome)
            if not outcome.error:
                return None
            if outcome.gone:
                error = GoneError(outcome.error)
                if not self.failed.done():
                    self.failed.set_exception(error)
                raise error
            now = datetime.now(UTC)
            if once or now >= until:
                return DeadLetter(
                    id=message.id_for("").removeprefix("msg_"),
                    feed=message.feed,
                    position=message.position,
                    type=message.type,
                    error=outcome.error,
                    attempts=attempts,
                    first=begun,
                    last=now,
                )
            await self._pause(attempts, outcome.wait_seconds)

    def _note(self, outcome: AttemptOutcome) -> None:
        """Count an outcome; after an outage the first success ends all pauses."""
        progress = self.progress
        if outcome.error:
            self._failures += 1
            progress.failing_since = progress.failing_since or datetime.now(UTC)
            progress.last_error = outcome.error
            return
        if self._failures >= _OUTAGE_FAILURES:
            self._recovered.set()
            self._recovered = asyncio.Event()
        self._failures = 0
        progress.delivered += 1
        progress.failing_since = None

    async def _pause(self, attempts: int, asked: float) -> None:
        timing = self._timing
        doubled = timing.first * 2.0 ** min(attempts - 1, _LONGEST_DOUBLING)
        pause = min(timing.longest, max(asked, doubled)) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads attempts
        with suppress(TimeoutError):
            await asyncio.wait_for(self._recovered.wait(), pause)
