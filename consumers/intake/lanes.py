"""Lanes of the intake: all sources together while all goes well, one lane for each source in trouble.

A batch of messages of many sources is one append. Where that fails, each source of the batch gets a lane of its
own, which tries until its messages are recorded or rejected. Later messages of such a source join its lane, so
that they stay in order. All other sources go on together.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ledger.errors import ConflictError, LedgerError, LostEventsError, UnavailableError
from ledger.nats import incidents

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from consumers.intake.inbox_message import Message
    from consumers.intake.places import EventPlace
    from consumers.intake.recorder import Intake

_log = logging.getLogger(__name__)
_BATCH = 1000
_PAUSE_SECONDS = 0.1
_PAUSE_SECONDS_AT_MOST = 0.3


class IntakeLanes:
    """Takes messages for good, and says which are done with.

    ``done`` is called with messages that may be acknowledged, ``lost`` when the log is not what it was. ``gone``
    returns those places whose messages are not in their inboxes any more: an operator took them out.
    """

    def __init__(
        self,
        intake: Intake,
        done: Callable[[Sequence[Message]], None],
        lost: Callable[[LedgerError], None],
        gone: Callable[[Iterable[EventPlace]], Awaitable[set[EventPlace]]],
    ) -> None:
        self._intake = intake
        self._done = done
        self._lost = lost
        self._gone = gone
        self._lanes: dict[str, dict[EventPlace, Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, messages: Sequence[Message]) -> None:
        """Take messages; returns when they are done with, or wait in the lane of their source."""
        together: list[Message] = []
        for message in messages:
            lane = self._lanes.get(message.token)
            if lane is None:
                together.append(message)
            else:  # as many as the consumers have on the way; handed out again, one is acknowledged where it came last
                lane[message.place] = message
        if not together:
            return
        try:
            await self._intake.take(together)
        except Exception as error:  # noqa: BLE001 - each source finds out by itself whether it is concerned
            _log.debug("the intake goes on source by source: %s", error)
            for message in together:
                self._begin(message.token).setdefault(message.place, message)
        else:
            self._done(together)

    @property
    def waiting(self) -> dict[str, int]:
        """The number of messages in the lane of each source in trouble, by token."""
        return {name: len(lane) for name, lane in self._lanes.items()}

    async def stop(self) -> None:
        """End; what is not acknowledged stays in the inbox."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, name: str) -> dict[EventPlace, Message]:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = {}
            task = asyncio.create_task(self._run(name, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return lane

    async def _run(self, name: str, lane: dict[EventPlace, Message]) -> None:
        pause, singly = _PAUSE_SECONDS, False
        while lane:
            try:
                await (self._take_singly(lane) if singly else self._take_together(lane))
            except ConflictError:
                await asyncio.sleep(0)
            except UnavailableError as error:
                _log.warning("the intake of %a waits: %s", name, error)
                await asyncio.sleep(pause)
                pause = min(_PAUSE_SECONDS_AT_MOST, pause * 2)
                await self._leave_out(name, lane)
            except LostEventsError as error:
                self._lost(error)
                return
            except Exception as error:  # noqa: BLE001 - logged, and found again message by message
                _log.warning("a message of %a cannot be recorded: %s", name, error)
                singly = True
            else:
                pause, singly = _PAUSE_SECONDS, False
        del self._lanes[name]

    async def _leave_out(self, name: str, lane: dict[EventPlace, Message]) -> None:
        """Forget messages that an operator has taken out of their inbox: one of them may be what all wait for."""
        try:
            gone = await self._gone(list(lane))
        except Exception as error:  # noqa: BLE001 - the server is away, say: nothing is left out, for now
            _log.debug("the intake of %a does not know what is gone: %s", name, error)
            return
        if gone:
            _log.warning("%d messages of %a were taken out of their inbox", len(gone), name)
            self._done([lane.pop(place) for place in gone])

    async def _take_together(self, lane: dict[EventPlace, Message]) -> None:
        places = list(lane)[:_BATCH]
        await self._intake.take([lane[place] for place in places])
        self._done([lane.pop(place) for place in places])

    async def _take_singly(self, lane: dict[EventPlace, Message]) -> None:
        """Take one message after the other; set aside one that meets a fault of ours and cannot even be rejected.

        It stays in its inbox, where `admin inbox list` shows it; the server hands it out again when it is not
        acknowledged in time. Later messages go on.
        """
        for place in list(lane)[:_BATCH]:
            message = lane[place]
            try:
                await self._intake.take_singly(message)
            except (ConflictError, UnavailableError, LostEventsError):
                raise
            except Exception as error:  # noqa: BLE001 - reported; it must not keep back the others
                incidents.report("a message can be neither recorded nor rejected", (message.subject, place), error)
                del lane[place]
            else:
                self._done([lane.pop(place)])
