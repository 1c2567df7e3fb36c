"""Checks of `admin doctor` on incoming events: messages that wait too long, and history mode with live sources."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from app.health.check import Check, shortened
from config import topology
from ledger.store.backlog import backlog_of
from ledger.store.cloudevents import parse_time, stored_decoder
from ledger.store.server_time import duration_text, utc_now
from ledger.store.streams import stream_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from app.runtime.session import Session
    from ledger.store.role_status import RoleAnswers

_STUCK_SECONDS = 60.0
"""Messages that a killed intake had fetched are redelivered after 30 seconds."""
_LIVE_WITHIN = timedelta(minutes=10)
_LIVE_SINCE = timedelta(days=1)


async def waiting_messages(session: Session) -> AsyncIterator[Check]:
    """Check that the intake makes progress in each inbox, while one answers."""
    for name in topology.inbox_streams(await stream_names(session.client)):
        backlog = await backlog_of(session.client, name, topology.INTAKE_CONSUMER)
        if backlog is None:
            continue
        seconds = (backlog.now - max(backlog.first, backlog.acknowledged)).total_seconds()
        if seconds > _STUCK_SECONDS:
            text = (
                f"the first of {backlog.waiting} messages has waited for {duration_text(seconds)}: see the intake's "
                "log and `admin inbox list`"
            )
            yield Check(f"inbox {name}", text, ok=False)


async def history_mode(session: Session, heard: Mapping[str, RoleAnswers]) -> AsyncIterator[Check]:
    """Check that no role is in history mode while sources send present events."""
    roles = sorted({one.role for each in heard.values() for one in each.statuses if one.history})
    if not roles:
        yield Check("history mode", "off")
        return
    if live := await _live(session):
        names = shortened(live)
        text = (
            f"{' and '.join(roles)} run with --history, while {names} send present events: requests choose their time, "
            "and so the period that they spend from. Start them without --history"
        )
        yield Check("history mode", text, ok=False)
    else:
        yield Check("history mode", f"on in {' and '.join(roles)}, and no source sends present events")


async def _live(session: Session) -> list[str]:
    """Return the sources whose newest event was recorded within the last day and shortly after it happened.

    ``requests`` stands for all requests of decisions.
    """
    found: set[str] = set()
    facts = await session.log.subjects(f"{topology.FACT_SUBJECT}.")
    newest = await asyncio.gather(*map(session.log.last, [*facts, f"{topology.BUDGET_SUBJECT}.>"]))
    for event in newest:
        if event is None:
            continue
        stored = stored_decoder.decode(event.data)
        happened, recorded = parse_time(stored.time), parse_time(stored.recordedtime)
        if abs(recorded - happened) < _LIVE_WITHIN and utc_now() - recorded < _LIVE_SINCE:
            found.add(stored.source if event.subject.startswith(f"{topology.FACT_SUBJECT}.") else "requests")
    return sorted(found)
