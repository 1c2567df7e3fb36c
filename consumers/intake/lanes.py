"""Lanes of the intake: one append for all sources, and after a failure, one lane for each source concerned.

A lane retries until the messages of its source are recorded or rejected. Later messages of that source join its lane,
so that they stay in order. All other sources continue together.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ledger.errors import ConflictError, LedgerError, LocalFileError, LostEventsError, UnavailableError
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
    """Records messages, with retries.

    ``done`` is called with messages to acknowledge, and ``lost`` when the log has lost events. ``gone`` returns the
    places of messages that an operator has removed from their inboxes. ``failed`` is called each time that a
    file of this machine cannot be written.
    """

    def __init__(
        self,
        intake: Intake,
        done: Callable[[Sequence[Message]], None],
        lost: Callable[[LedgerError], None],
        gone: Callable[[Iterable[EventPlace]], Awaitable[set[EventPlace]]],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._intake = intake
        self._done = done
        self._lost = lost
        self._gone = gone
        self._failed = failed
        self._lanes: dict[str, dict[EventPlace, Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, messages: Sequence[Message]) -> None:
        """Record messages, or put them into the lane of their source."""
        together: list[Message] = []
        for message in messages:
            lane = self._lanes.get(message.token)
            if lane is None:
                together.append(message)
            else:  # bounded by the consumer's limit; a message that is delivered again replaces its first delivery
                lane[message.place] = message
        if not together:
            return
        try:
            await self._intake.take(together)
        except Exception as error:  # noqa: BLE001 - each lane finds out whether its source is concerned
            _log.debug("the intake continues source by source: %s", error)
            for message in together:
                self._lane_of(message.token).setdefault(message.place, message)
        else:
            self._done(together)

    async def stop(self) -> None:
        """Stop; messages that are not acknowledged stay in the inbox."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _lane_of(self, name: str) -> dict[EventPlace, Message]:
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
                if isinstance(error, LocalFileError):
                    self._failed()
                await asyncio.sleep(pause)
                pause = min(_PAUSE_SECONDS_AT_MOST, pause * 2)
                await self._remove_gone(name, lane)
            except LostEventsError as error:
                self._lost(error)
                return
            except Exception as error:  # noqa: BLE001 - logged; the message is found by recording singly
                _log.warning("a message of %a cannot be recorded: %s", name, error)
                singly = True
            else:
                pause, singly = _PAUSE_SECONDS, False
        del self._lanes[name]

    async def _remove_gone(self, name: str, lane: dict[EventPlace, Message]) -> None:
        """Remove messages that an operator has taken out of their inbox; one of them may have caused the failure."""
        try:
            gone = await self._gone(list(lane))
        except Exception as error:  # noqa: BLE001 - the server does not answer, for example: nothing is removed for now
            _log.debug("removed messages of %a cannot be determined: %s", name, error)
            return
        if gone:
            _log.warning("%d messages of %a were taken out of their inbox", len(gone), name)
            self._done([lane.pop(place) for place in gone])

    async def _take_together(self, lane: dict[EventPlace, Message]) -> None:
        places = list(lane)[:_BATCH]
        await self._intake.take([lane[place] for place in places])
        self._done([lane.pop(place) for place in places])

    async def _take_singly(self, lane: dict[EventPlace, Message]) -> None:
        """Record one message after the other; skip a message that can be neither recorded nor rejected.

        A skipped message stays in its inbox, where `admin inbox list` shows it. The server delivers it again later.
        """
        for place in list(lane)[:_BATCH]:
            message = lane[place]
            try:
                await self._intake.take_singly(message)
            except (ConflictError, UnavailableError, LostEventsError):
                raise
            except Exception as error:  # noqa: BLE001 - reported; later messages must not wait for it
                incidents.report("a message can be neither recorded nor rejected", (message.subject, place), error)
                del lane[place]
            else:
                self._done([lane.pop(place)])
