"""The precedence of decisions over the recording of facts, where one process does both."""

from __future__ import annotations

import asyncio
import math
import time

_RECENT_SECONDS = 0.02
_LOOK_SECONDS = 0.005
_REST_SHARE = 3.0


class Precedence:
    """Lets the intake rest while decisions are asked for, since both use one event loop and one processor.

    At most three quarters of the time go to decisions, so that facts are recorded under any load.
    """

    def __init__(self) -> None:
        self.asked_at = -math.inf
        """The monotonic time of the newest request."""

    async def give_way(self, seconds: float) -> None:
        """Wait until no decision was asked for a moment ago, at most three times these seconds of work."""
        until = time.monotonic() + _REST_SHARE * seconds
        while (now := time.monotonic()) < until and now - self.asked_at < _RECENT_SECONDS:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)  # no event tells that requests stay away
