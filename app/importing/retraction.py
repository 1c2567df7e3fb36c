"""Retraction of an import: each event that a run recorded is corrected to null, as if it had never been reported."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from app.outcome import Outgoing
from config import topology
from domain.serialization import encode
from ledger.errors import LedgerError
from ledger.store.cloudevents import encode_event, is_of_run, parse_time, stored_decoder

if TYPE_CHECKING:
    from app.publisher import Publisher
    from app.runtime.session import Session

_CORRECTED = "resolution.fact.corrected.v1"


async def retract(session: Session, run: str, publisher: Publisher) -> None:
    """Publish a correction to null for each event of a run; a second time, all of them are duplicates.

    Raises:
        LedgerError: no recorded event has this run.

    """
    outcome = publisher.outcome
    async for batch in session.log.subject_batches(f"{topology.FACT_SUBJECT}.>"):
        for recorded in batch:
            if is_of_run(recorded.data, run):
                stored = stored_decoder.decode(recorded.data)
                if stored.type != _CORRECTED:
                    outcome.read += 1
                    await publisher.add(_correction(run, stored.source, stored.id, stored.recordedtime))
    if not outcome.read:
        raise LedgerError(f"no event of a run {run!r} is recorded; `import` prints the id of its run")
    await publisher.settle()


def _correction(run: str, source: str, identifier: str, recorded: str) -> Outgoing:
    """Return the correction of an event; the same event always gives the same one."""
    digest = hashlib.blake2b(identifier.encode(), digest_size=16).hexdigest()
    data = {"source_of": source, "id_of": identifier, "data": None, "reason": f"import {run} retracted"}
    own = f"retract/{run}/{digest}"
    return Outgoing(0, source, own, encode_event(source, own, _CORRECTED, parse_time(recorded), encode(data)))
