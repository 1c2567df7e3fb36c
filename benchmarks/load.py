"""A cheap load generator: requests are encoded before the clock starts, many are in flight, answers go to a sink."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

from ledger.nats.client import LedgerClient, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class LoadResult(NamedTuple):
    """The result of one load: total seconds, and those of each request in the order of answers."""

    seconds: float
    latencies: list[float]
    answers: list[bytes]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def slowest_ms(self, share: float) -> float:
        """Return the latency within which this share was answered."""
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))] * 1000


async def send_all(
    client: LedgerClient, requests: Sequence[tuple[str, bytes]], width: int, patience_seconds: float = 60
) -> LoadResult:
    """Send all requests, each (subject, body), with ``width`` of them in flight; every one must be answered."""
    inbox = f"_INBOX.{secrets.token_hex(8)}"
    frames = [
        frame(subject.encode(), body, f"{inbox}.{number}".encode()) for number, (subject, body) in enumerate(requests)
    ]
    sent = [0.0] * len(frames)
    flown = LoadResult(0.0, [], [])
    done = asyncio.Event()
    loop, following = asyncio.get_running_loop(), iter(range(len(frames)))
    waiting: list[int] = []

    def flush() -> None:
        now = time.perf_counter()
        for number in waiting:
            sent[number] = now
        client.send(b"".join(frames[number] for number in waiting))
        waiting.clear()

    def begin(number: int) -> None:
        if not waiting:
            loop.call_soon(flush)
        waiting.append(number)

    def on_answer(subject: bytes, _reply: bytes, headers: bytes, body: bytes) -> None:
        number = int(subject.rpartition(b".")[2])
        assert not headers, headers
        flown.latencies.append(time.perf_counter() - sent[number])
        flown.answers.append(body)
        if len(flown.answers) == len(frames):
            done.set()
        elif (another := next(following, None)) is not None:
            begin(another)

    subscription = await client.subscribe_raw(f"{inbox}.*", on_answer)
    await client.flush()
    begun = time.perf_counter()
    for _, number in zip(range(width), following, strict=False):
        begin(number)
    try:
        await asyncio.wait_for(done.wait(), patience_seconds)
    finally:
        await client.unsubscribe_raw(subscription)
    return flown._replace(seconds=time.perf_counter() - begun)


def validated(flown: LoadResult, right: Callable[[bytes], bool]) -> LoadResult:
    """Return the result after checking each answer."""
    wrong = next((answer for answer in flown.answers if not right(answer)), None)
    assert wrong is None, wrong
    return flown
