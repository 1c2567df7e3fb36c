"""From a text, a position or a time, to a position of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.store.cloudevents import parse_time, stored_decoder

if TYPE_CHECKING:
    from datetime import datetime

    from ledger.store.log import Log

POSITION_AT_MOST = 2**63 - 1
_POSITION_DIGITS = 19
_LOOKAHEAD_EVENTS = 1000
"""Two processes that write at once can stamp a few events a moment out of order; so many are looked at behind."""


async def position_of(log: Log, text: str, last: int, *, first: bool = False) -> int:
    """The last position whose recorded time is not after it; with ``first`` the first that is not before it.

    A number is a position already. The time is found by bisection, about twenty reads in a million events.

    Raises:
        ValueError: the text is neither, or a number that no position has.

    """
    if text.isascii() and text.isdigit():
        if len(text) > _POSITION_DIGITS or int(text) > POSITION_AT_MOST:
            message = f"{text[:_POSITION_DIGITS]}... is beyond any position of a log, at most {POSITION_AT_MOST}"
            raise ValueError(message)
        return max(1, int(text)) if first else min(int(text), last)
    try:
        moment = parse_time(text)
    except ValueError as error:
        message = f"{text!r} is neither a position nor a time: {error}"
        raise ValueError(message) from None
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        at = await _recorded_at(log, middle)
        if at is not None and (at < moment or (not first and at == moment)):
            low = middle + 1
        else:
            high = middle
    return low if first else await _after_disorder(log, low - 1, moment, last)


async def _recorded_at(log: Log, position: int) -> datetime | None:
    """The recorded time at a position; where the event is gone, of the one behind it; None: none is behind it."""
    found, _ = await log.read_batch(">", position - 1, 1)
    return None if not found else parse_time(stored_decoder.decode(found[0].data).recordedtime)


async def _after_disorder(log: Log, position: int, moment: datetime, last: int) -> int:
    if position >= last:
        return position
    events, _ = await log.read_batch(">", position, _LOOKAHEAD_EVENTS)
    for event in events:
        if parse_time(stored_decoder.decode(event.data).recordedtime) <= moment:
            position = event.position
    return position
