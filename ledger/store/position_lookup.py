"""Conversion of a text, either a position or a time, to a position of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.store.cloudevents import parse_time, stored_decoder

if TYPE_CHECKING:
    from datetime import datetime

    from ledger.store.log import Log

POSITION_AT_MOST = 2**63 - 1
_POSITION_DIGITS = 19
_LOOKAHEAD_EVENTS = 1000
"""Two processes that write at once may stamp a few events slightly out of order; so many later events are checked."""


async def position_of(log: Log, text: str, last: int, *, first: bool = False) -> int:
    """Return the last position recorded not after a time; with ``first``, the first one recorded not before it.

    A number is returned as the position. A time is found by bisection, with about twenty reads in a million events.

    Raises:
        ValueError: the text is neither a time nor a number, or the number exceeds every possible position.
    """
    if text.isascii() and text.isdigit():
        if len(text) > _POSITION_DIGITS or int(text) > POSITION_AT_MOST:
            message = f"{text[:_POSITION_DIGITS]}... exceeds every position of a log, at most {POSITION_AT_MOST}"
            raise ValueError(message)
        return max(1, int(text)) if first else min(int(text), last)
    try:
        moment = parse_time(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither a position nor a time: {error}") from None
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        recorded_at = await _recorded_at(log, middle)
        if recorded_at is not None and (recorded_at < moment or (not first and recorded_at == moment)):
            low = middle + 1
        else:
            high = middle
    return low if first else await _after_disorder(log, low - 1, moment, last)


async def _recorded_at(log: Log, position: int) -> datetime | None:
    """Return the recorded time of the first event from a position on; None after the last event."""
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
