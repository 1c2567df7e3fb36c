"""Old events leave the stream by an operator's word, and stay in the archive, from which they are read then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.runtime.archive import archive_to_the_end, verify_archive
from app.runtime.roles import answering_roles
from config import topology
from consumers.seal.archive_service import archive_of
from ledger.errors import LedgerError, jetstream_error
from ledger.store.streams import js_api, update_stream
from ledger.transparency.sealer import seal_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from app.runtime.session import Session
    from domain.serialization import JsonObject
    from ledger.nats.client import LedgerClient
    from ledger.transparency.signed_notes import Verifier

_TRIMMED: JsonObject = {"discard": "new", "max_msgs": -1}
"""The settings of the stream that a removal changes for a moment, as they are declared."""


async def retire(
    session: Session, before: date, trusted: Sequence[Verifier], progressed: Callable[[int, int], None]
) -> int:
    """Remove events recorded before a day from the stream; return the last position that has left it.

    First everything is sealed, archived, and compared with the seal. Then the server drops the oldest messages, by a
    limit that stands for a moment. Every step can be repeated: an interrupted command is run again.

    Raises:
        LedgerError: a role runs, the archive differs from the seal, or no event or each one is older than that day.
    """
    if running := await answering_roles(session):
        raise LedgerError(f"stop every role of this ledger first, on each machine: {', '.join(running)} answers")
    end = await archive_to_the_end(session, progressed)
    archive = archive_of(session.data_dir)
    if findings := verify_archive(archive.folder, seal_folder(session.data_dir), trusted, progressed):
        raise LedgerError(f"the archive is not what was sealed, so no event is removed: {findings[0].text}")
    older = [part.last for part in archive.parts() if part.file[4:14] < before.isoformat()]
    last = await session.log.last_position()
    if not older:
        raise LedgerError(f"no archived event was recorded before {before}")
    if older[-1] >= last or last != end:
        raise LedgerError(f"the stream keeps at least one event: name a day that is not after {before} and has events")
    operator = await session.connection("retirement", user="operator") if session.embedded else session.client
    until = max(older[-1], session.log.first - 1)
    await _remove(operator, until)
    return until


async def _remove(operator: LedgerClient, until: int) -> None:
    info = await js_api(operator, f"STREAM.INFO.{topology.LEDGER}", {"deleted_details": True})
    if "error" in info:
        raise jetstream_error(info["error"], topology.LEDGER)
    state = info["state"]
    kept = state["last_seq"] - until - sum(position > until for position in state.get("deleted") or ())
    declared = next(one for one in topology.stream_configs() if one["name"] == topology.LEDGER)
    wanted = {"name": declared["name"]}
    limits: JsonObject = {"discard": "old", "max_msgs": kept}
    await update_stream(operator, wanted | limits, {topology.RETIRED_UNTIL: str(until)})
    await update_stream(operator, wanted | _TRIMMED, {})
    state = (await js_api(operator, f"STREAM.INFO.{topology.LEDGER}"))["state"]
    if state["first_seq"] <= until or state["messages"] != kept:
        raise LedgerError(f"the server still has events up to {until}: {state['messages']:,} instead of {kept:,}")
