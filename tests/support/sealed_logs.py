"""Logs of a few hundred events: filled, verified against their seal, and rewritten as an intruder would."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from app.runtime.seal import verification
from app.runtime.session import Session
from config import topology
from config.settings import Settings, load_settings
from ledger.store.log import Draft, Log, Recorded
from ledger.store.streams import js_api
from ledger.transparency.signed_notes import Checkpoint, Verifier

SEALED_EVENTS = 700


def settings_in(folder: Path) -> Settings:
    """Return the settings of a ledger with this data directory."""
    return load_settings({"data_dir": str(folder)}, {})


async def append_events(session: Session, number: int = SEALED_EVENTS, start: int = 0) -> None:
    """Append so many facts of three sources; each holds its number, counted from ``start``."""
    drafts = [Draft(f"ledger.fact.s{n % 3}", json.dumps({"n": n}).encode()) for n in range(start, start + number)]
    for at in range(0, number, 500):
        await session.log.append(drafts[at : at + 500])


async def findings_of_verification(
    session: Session, brought: Sequence[Checkpoint] = (), keys: Sequence[Verifier] = ()
) -> list[tuple[str, int, int]]:
    """Verify the log against its seal, and checkpoints that a witness kept; return (kind, first, last) a finding."""
    result = await verification(session, brought, keys, progressed=lambda _done, _of: None)
    return [(finding["kind"], finding["first"], finding["last"]) for finding in result["findings"]]


async def all_events(session: Session) -> list[Recorded]:
    """Return the whole log."""
    return [one async for batch in session.log.subject_batches(">") for one in batch]


async def rewrite_history(
    session: Session, change: Callable[[list[Recorded]], None], *, without: Sequence[int] = ()
) -> None:
    """Delete the log's stream and fill it anew, as an intruder with the operator's password can.

    ``change`` edits the list of events; the positions ``without`` are deleted afterwards.
    """
    events = await all_events(session)
    change(events)
    operator = await session.connection("intruder", user="operator")
    await js_api(operator, f"STREAM.DELETE.{topology.LEDGER}")
    wanted = next(one for one in topology.stream_configs() if one["name"] == topology.LEDGER)
    await js_api(operator, f"STREAM.CREATE.{topology.LEDGER}", wanted | {"deny_delete": False, "deny_purge": False})
    unstamped = await Log.unstamped(operator, topology.LEDGER)
    for at in range(0, len(events), 500):
        await unstamped.append([Draft(one.subject, one.data) for one in events[at : at + 500]])
    for position in without:
        await js_api(operator, f"STREAM.MSG.DELETE.{topology.LEDGER}", {"seq": position})
