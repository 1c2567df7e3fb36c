"""Checks of `admin doctor` on clocks: the host's, and the times that a fast clock recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.health.check import Check
from ledger.store.cloudevents import parse_time, stored_decoder, time_text
from ledger.store.position_lookup import position_of
from ledger.store.server_time import AHEAD_SECONDS, duration_text, utc_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.runtime.session import Session


async def clock(session: Session) -> AsyncIterator[Check]:
    """Compare the host's clock with the NATS server's."""
    offset = await session.log.server_time.measure()
    if offset is None:
        yield Check("clock", "the NATS server does not report its time")
    elif offset.at_least > AHEAD_SECONDS:
        ahead = duration_text(offset.at_least)
        text = f"the host's clock is {ahead} ahead of the NATS server's: nothing is recorded; set it"
        yield Check("clock", text, ok=False)
    elif offset.at_most < -AHEAD_SECONDS:
        text = (
            f"the host's clock is {duration_text(offset.at_most)} behind the NATS server's: periods begin late; set it"
        )
        yield Check("clock", text, ok=False)
    else:
        nearest = max(offset.at_least, min(0.0, offset.at_most))
        yield Check("clock", f"{abs(nearest):.3f} s from the NATS server's")


async def recorded_times(session: Session) -> AsyncIterator[Check]:
    """Check for a stretch of events that a fast clock recorded in the future."""
    last, now = await session.log.last(">"), utc_now()
    recorded = parse_time(stored_decoder.decode(last.data).recordedtime) if last is not None else now
    if last is None or (recorded - now).total_seconds() <= AHEAD_SECONDS:
        yield Check("recorded times", "none is in the future")
        return
    first = await position_of(session.log, time_text(now), last.position) + 1
    through = await position_of(session.log, time_text(recorded), last.position, first=True)
    text = (
        f"positions {first} to {through} were recorded by a clock that ran ahead, to {time_text(recorded)}; later "
        "events carry that time until then, since recorded times never decrease. Decisions use the "
        "clock; for a state in between, name a position"
    )
    yield Check("recorded times", text, ok=False)
