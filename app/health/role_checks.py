"""Checks of `admin doctor` on roles: whether each answers, works, makes progress, and has its files.

Roles are asked over NATS, so they may run on any machine. A fault of a role is reported once: if no process answers,
its consequences (such as a view that falls behind) are no findings of their own.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import nats.errors

from app.health.check import Check, archive_repair
from app.runtime.roles import PROBES
from ledger.store.cloudevents import parse_time, stored_decoder
from ledger.store.role_status import HANGS_SECONDS, HOST, ReaderStatus, RoleAnswers, RoleStatus
from ledger.store.server_time import AHEAD_SECONDS, duration_text
from ledger.transparency.sealer import RESTORE_ADVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from app.runtime.session import Session

ANSWER_SECONDS = 15.0
"""A role that does not answer is asked again for this time, since it may be starting."""
_WAITS_SECONDS = 10.0
_STARTS_SECONDS = 120.0
"""Time limit for a start: a decider reads the log to its end before it answers."""
_STALL_SECONDS = {"archive": 90.0}
_OTHER_STALL_SECONDS = 30.0
_PROBE_SECONDS = 5.0
_SHOWN = 5
REQUIRED = ("intake", "decisions", "projections", "guard", "seal")
"""Roles that every ledger needs; the archive and the dashboard are optional."""
_EFFECTS = {
    "intake": "published events are not recorded",
    "decisions": "requests get no answer",
    "projections": "views are not updated",
    "guard": "misuse is not detected",
    "seal": "recorded events are not sealed",
    "archive": "sealed events are not copied to the archive",
    "webhooks": "subscribers get no messages",
    "dashboard": "the HTTP API does not answer",
}
_REPAIRS = {
    "seal": RESTORE_ADVICE,
}
_OTHER_REPAIR = "restart that process; it is rebuilt from the log"


async def role_checks(
    session: Session, roles: Sequence[str], heard: Mapping[str, RoleAnswers], *, here: bool = False
) -> AsyncIterator[Check]:
    """Check each of these roles by the statuses of its processes.

    ``here``: these are the processes of this host alone, so the one that works may be on another.
    """
    if not any(heard[role].statuses for role in roles) and len(roles) > 1:
        start = "start `resolution-ledger up`" if session.embedded else "start `resolution-ledger run ROLE` for each"
        yield Check("roles", f"no role of this ledger answers ({', '.join(roles)}): {start}", ok=False)
        return
    end = await session.log.last_position()
    for role in roles:
        if not (statuses := heard[role].statuses):
            yield Check(f"role {role}", _absent_text(session, role), ok=False)
            continue
        own = [text for status in statuses for text in _troubles(session, status, heard[role])]
        if not (here or heard[role].working_count or heard[role].starting_count):
            own.append(_idle_text(role, statuses))
        if not all(status.starting for status in statuses):
            own += await _probe_trouble(session, role)
        readings = [one for status in statuses for one in await _reading_checks(session, status, end, heard)]
        for text in own:
            yield Check(f"role {role}", text, ok=False)
        if not own and all(one.ok for one in readings):
            yield Check(f"role {role}", _alive_text(statuses))
        for one in readings:
            if one.ok or not own or one.check != f"role {role}":  # else the process's own fault explains the halt
                yield one


def _alive_text(statuses: Sequence[RoleStatus]) -> str:
    where = sorted({status.host for status in statuses})
    starting = sum(status.starting for status in statuses)
    workers = [f"process {_process(status)} on {status.host} works" for status in statuses if status.is_working]
    alive = f"{len(statuses)} alive on {', '.join(where[:_SHOWN])}"
    return ", ".join((alive, *workers[:_SHOWN], *((f"{starting} starting",) if starting else ())))


def _idle_text(role: str, statuses: Sequence[RoleStatus]) -> str:
    return (
        f"{len(statuses)} alive and none works, so {_EFFECTS[role]}. A command such as `admin archive` may have the "
        "lock of the data directory; otherwise see their logs: the work fails, or the NATS server accepts no writes"
    )


def _absent_text(session: Session, role: str) -> str:
    start = "start `resolution-ledger up`" if session.embedded else f"start `resolution-ledger run {role}`"
    return f"no process with this role answers, so {_EFFECTS[role]}: {start}; where one runs, it hangs: end it first"


def _where(status: RoleStatus) -> str:
    return f"on {status.host} (process {_process(status)})"


def _process(status: RoleStatus) -> str:
    return status.instance.partition("-")[0]


def _troubles(session: Session, status: RoleStatus, heard: RoleAnswers) -> Iterator[str]:
    """Yield the faults that one process reports of itself."""
    where = _where(status)
    for loop in status.loops:
        if loop.silent_seconds > HANGS_SECONDS:
            yield f"{loop.name} {where} has hung for {duration_text(loop.silent_seconds)}: restart that process"
        elif loop.waits_seconds > _WAITS_SECONDS:
            yield f"{loop.name} {where} has waited for {duration_text(loop.waits_seconds)}: {loop.waits}"
    running = (parse_time(status.now) - parse_time(status.since)).total_seconds()
    if status.starting and running > _STARTS_SECONDS:
        yield f"the process {where} has been starting for {duration_text(running)}: see its log"
    for file in status.absent:
        repair = archive_repair(session) if status.role == "archive" else _REPAIRS.get(status.role, _OTHER_REPAIR)
        yield f"{file} is missing in {status.folder} {where}: {repair}"
    yield from status.lacks
    now, offset = parse_time(status.now), session.log.server_time.ahead_seconds(heard.asked)
    behind = (heard.asked - now).total_seconds() - offset
    ahead = (now - heard.answered).total_seconds() + offset
    if (off := max(behind, ahead)) > AHEAD_SECONDS:
        way = "ahead of" if ahead > behind else "behind"
        yield f"the clock {where} is {duration_text(off)} {way} the NATS server's: set it"


async def _probe_trouble(session: Session, role: str) -> list[str]:
    """Return the fault that an invalid request shows, which is sent as a source sends it; nothing is recorded."""
    if role not in PROBES:
        return []
    try:
        await session.client.request(PROBES[role], b"{}", timeout=_PROBE_SECONDS)
    except nats.errors.NoRespondersError:
        return ["it runs, but no process accepts its requests: restart it"]
    except (nats.errors.Error, TimeoutError):
        return [f"a request had no answer in {_PROBE_SECONDS:g} s: a process with this role hangs; end it"]
    return []


async def _reading_checks(
    session: Session, status: RoleStatus, end: int, heard: Mapping[str, RoleAnswers]
) -> list[Check]:
    """Return the state of each reader; an empty, stopped or stalled one is a finding."""
    found: list[Check] = []
    views = status.role == "projections"
    until = _sealed(heard) if status.role == "archive" else end
    for reading in status.readings:
        check = f"view {reading.name}" if views else f"role {status.role}"
        behind = max(0, until - (reading.position or 0))
        if reading.stopped:
            text = (
                f"it has stopped at {reading.stopped}. Run a version that knows the event, or skip it with "
                f"`resolution-ledger admin projections skip {reading.name} POSITION`"
            )
            found.append(Check(check, text, ok=False))
        elif behind and not reading.is_queued and await _is_stalled(session, status.role, reading):
            state = "is empty" if not reading.position else f"has stopped moving at position {reading.position}"
            why = "".join(f", and waits: {loop.waits}" for loop in status.loops if loop.waits)
            text = f"it {state} {_where(status)}, {behind} behind{why}: see that process's log, and restart it"
            found.append(Check(check, text, ok=False))
        elif views:
            found.append(Check(check, f"position {reading.position or 0}, {behind} behind"))
    return found


async def _is_stalled(session: Session, role: str, reading: ReaderStatus) -> bool:
    """Return whether a reader has been behind without progress beyond its time limit."""
    limit = _STALL_SECONDS.get(role, _OTHER_STALL_SECONDS)
    return reading.still_seconds > limit and await _unread_seconds(session, reading) > limit


async def _unread_seconds(session: Session, reading: ReaderStatus) -> float:
    """Return the seconds since the first event that a reader has not read was recorded."""
    event = await session.log.at((reading.position or 0) + 1)
    if event is None:
        return float("inf")
    recorded = parse_time(stored_decoder.decode(event.data).recordedtime)
    return (datetime.now(UTC) - recorded).total_seconds()


def _sealed(heard: Mapping[str, RoleAnswers]) -> int:
    statuses = heard["seal"].statuses if "seal" in heard else ()
    return max((reading.position or 0 for status in statuses for reading in status.readings), default=0)


def is_kept_here(session: Session, heard: Mapping[str, RoleAnswers], role: str, folder: str) -> bool:
    """Return whether a role keeps its files in this session's data directory, not on another machine."""
    if session.embedded:
        return True
    there = (session.data_dir / folder).exists()
    statuses = heard.get(role, RoleAnswers()).statuses
    if not statuses:
        return there
    own_folder = str(session.data_dir.resolve())
    return any(status.folder == own_folder and (status.host == HOST or there) for status in statuses)
