"""Checks of `admin doctor` on roles: whether each lives, works, reads on, and has what it works with.

A role is asked by NATS, so it may run on any machine. What is true of a role is said once: where no process with a
role answers, what follows from that (a view that falls behind, say) is no finding of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import nats.errors

from app.health.check import Check
from app.runtime.roles import PROBE_SOURCE
from config import topology
from ledger.store.cloudevents import parse_time, stored_decoder
from ledger.store.role_status import HANGS_SECONDS, HOST, Heard, Reading, RoleStatus
from ledger.store.server_time import AHEAD_SECONDS, span
from ledger.transparency.sealer import BRING_BACK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from app.runtime.session import Session

PATIENCE_SECONDS = 15.0
"""How long a role that does not answer is asked again: it may be starting."""
_WAITS_SECONDS = 10.0
_STARTS_SECONDS = 120.0
"""A decider reads the log to its end before it answers."""
_STILL_SECONDS = {"archive": 90.0}
_STILL_SECONDS_ELSE = 30.0
_PROBE_SECONDS = 5.0
_SHOWN = 5
REQUIRED = ("intake", "decisions", "projections", "guard", "seal")
"""Roles that every ledger needs; an archive and HTTP are for those who want them."""
_EFFECTS = {
    "intake": "nothing that upstreams publish is recorded",
    "decisions": "requests get no answer",
    "projections": "views stand still",
    "guard": "nothing looks for misuse",
    "seal": "what is recorded is not sealed",
    "archive": "what is sealed is not copied to the archive",
    "dashboard": "the HTTP API does not answer",
}
_MADE_AGAIN = {
    "archive": "move the archive folder away and run `resolution-ledger admin archive`, which writes it anew",
    "seal": BRING_BACK,
}
_MADE_AGAIN_ELSE = "start that process anew; it is made again from the log"
_PROBES = {
    "intake": f"{topology.READ_SUBJECT}.{PROBE_SOURCE}.receipt",
    "decisions": f"{topology.DECIDE_SUBJECT}.{PROBE_SOURCE}.preview",
    "projections": f"{topology.READ_SUBJECT}.{PROBE_SOURCE}.brief",
}
"""Requests that are invalid, and answered so: by the subscriptions that upstreams use."""


async def role_checks(session: Session, roles: Sequence[str], heard: Mapping[str, Heard]) -> AsyncIterator[Check]:
    """Check each of these roles by what was heard of it."""
    if not any(heard[role].statuses for role in roles) and len(roles) > 1:
        start = "start `resolution-ledger up`" if session.embedded else "start `resolution-ledger run ROLE` for each"
        yield Check("roles", f"no role of this ledger is alive ({', '.join(roles)}): {start}", ok=False)
        return
    end = await session.log.last_position()
    for role in roles:
        if not (statuses := heard[role].statuses):
            yield Check(f"role {role}", _absent_text(session, role), ok=False)
            continue
        own = [text for status in statuses for text in _troubles(session, status, heard[role])]
        if not all(status.starting for status in statuses):
            own += await _probe_trouble(session, role)
        readings = [one for status in statuses for one in await _reading_checks(session, status, end, heard)]
        for text in own:
            yield Check(f"role {role}", text, ok=False)
        if not own and all(one.ok for one in readings):
            yield Check(f"role {role}", _alive_text(statuses))
        for one in readings:
            if one.ok or not own or one.check != f"role {role}":  # else the trouble is why it stands still
                yield one


def _alive_text(statuses: Sequence[RoleStatus]) -> str:
    where = sorted({status.host for status in statuses})
    starting = sum(status.starting for status in statuses)
    return f"{len(statuses)} alive on {', '.join(where[:_SHOWN])}" + (f", {starting} starting" if starting else "")


def _absent_text(session: Session, role: str) -> str:
    start = "start `resolution-ledger up`" if session.embedded else f"start `resolution-ledger run {role}`"
    return f"no process with this role answers, so {_EFFECTS[role]}: {start}; where one runs, it hangs: end it first"


def _where(status: RoleStatus) -> str:
    return f"on {status.host} (process {status.instance.partition('-')[0]})"


def _troubles(session: Session, status: RoleStatus, heard: Heard) -> Iterator[str]:
    """Yield what is wrong with one process, as it says itself."""
    where = _where(status)
    for loop in status.loops:
        if loop.silent_seconds > HANGS_SECONDS:
            yield f"{loop.name} {where} hangs since {span(loop.silent_seconds)}: start that process anew"
        elif loop.waits_seconds > _WAITS_SECONDS:
            yield f"{loop.name} {where} waits since {span(loop.waits_seconds)}: {loop.waits}"
    running = (parse_time(status.now) - parse_time(status.since)).total_seconds()
    if status.starting and running > _STARTS_SECONDS:
        yield f"the process {where} is starting since {span(running)}: see its log"
    for file in status.absent:
        yield f"{file} is not in {status.folder} {where}: {_MADE_AGAIN.get(status.role, _MADE_AGAIN_ELSE)}"
    yield from status.lacks
    now, ours = parse_time(status.now), session.log.server_time.ahead_seconds(heard.asked)
    behind = (heard.asked - now).total_seconds() - ours
    ahead = (now - heard.answered).total_seconds() + ours
    if (off := max(behind, ahead)) > AHEAD_SECONDS:
        way = "ahead of" if ahead > behind else "behind"
        yield f"the clock {where} is {span(off)} {way} the NATS server's: set it"


async def _probe_trouble(session: Session, role: str) -> list[str]:
    """Ask as an upstream does; the request is invalid, and nothing is recorded."""
    if role not in _PROBES:
        return []
    try:
        await session.client.request(_PROBES[role], b"{}", timeout=_PROBE_SECONDS)
    except nats.errors.NoRespondersError:
        return ["it is alive, and no process takes its requests: start it anew"]
    except (nats.errors.Error, TimeoutError):
        return [f"a request had no answer in {_PROBE_SECONDS:g} s: a process with this role hangs; end it"]
    return []


async def _reading_checks(session: Session, status: RoleStatus, end: int, heard: Mapping[str, Heard]) -> list[Check]:
    """Return how far readers are: one that is empty, has stopped, or is behind and does not move, is a finding."""
    found: list[Check] = []
    views = status.role == "projections"
    until = _sealed(heard) if status.role == "archive" else end
    for reading in status.readings:
        check = f"view {reading.name}" if views else f"role {status.role}"
        behind = max(0, until - (reading.position or 0))
        if reading.stopped:
            says = (
                f"it has stopped at {reading.stopped}. Run a version that knows the event, or pass over it with "
                f"`resolution-ledger admin projections skip {reading.name} POSITION`"
            )
            found.append(Check(check, says, ok=False))
        elif behind and await _stands_still(session, status.role, reading):
            state = "is empty" if not reading.position else f"stands still at position {reading.position}"
            why = "".join(f", and waits: {loop.waits}" for loop in status.loops if loop.waits)
            says = f"it {state} {_where(status)}, {behind} behind{why}: see that process's log, and start it anew"
            found.append(Check(check, says, ok=False))
        elif views:
            found.append(Check(check, f"position {reading.position or 0}, {behind} behind"))
    return found


async def _stands_still(session: Session, role: str, reading: Reading) -> bool:
    """Return whether a reader that is behind has not moved for long, nor read what was recorded long ago."""
    limit = _STILL_SECONDS.get(role, _STILL_SECONDS_ELSE)
    return reading.still_seconds > limit and await _waited(session, reading) > limit


async def _waited(session: Session, reading: Reading) -> float:
    """Return for how many seconds the first event that a reader has not read is recorded."""
    event = await session.log.at((reading.position or 0) + 1)
    if event is None:
        return float("inf")
    recorded = parse_time(stored_decoder.decode(event.data).recordedtime)
    return (datetime.now(UTC) - recorded).total_seconds()


def _sealed(heard: Mapping[str, Heard]) -> int:
    statuses = heard["seal"].statuses if "seal" in heard else ()
    return max((reading.position or 0 for status in statuses for reading in status.readings), default=0)


def is_kept_here(session: Session, heard: Mapping[str, Heard], role: str, folder: str) -> bool:
    """Return whether what a role derives lies in this session's data directory, and not on another machine."""
    if session.embedded:
        return True
    there = (session.data_dir / folder).exists()
    statuses = heard.get(role, Heard()).statuses
    if not statuses:
        return there
    ours = str(session.data_dir.resolve())
    return any(status.folder == ours and (status.host == HOST or there) for status in statuses)
