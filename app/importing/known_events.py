"""Events of the ledger that an import would meet again: duplicates, and ids that are reused with another content."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pyarrow as pa

from config import topology
from consumers.intake.validation import Rejection
from consumers.privacy.field_encryption import encrypted_texts
from ledger.encryption.keyring import Keyring
from ledger.store.cloudevents import stored_decoder
from ledger.store.duplicate_events import canonical_form
from ledger.store.subject_tokens import fact_token

if TYPE_CHECKING:
    from app.importing.importer import Import
    from app.outcome import Outgoing
    from app.runtime.session import Session

_DESTROYED = "destroyed"
"""Stands for the content of an event whose personal fields can no longer be read."""


class KnownEvents:
    """The events of the import's source with an id of the import: hashes of their contents, in the database."""

    def __init__(self, made: Import) -> None:
        self._import = made
        self._is_empty = True

    async def read(self, session: Session) -> None:
        """Read the ledger's events of the source; those with ids of this import are kept."""
        database, source = self._import.database, self._import.mapping.source
        database.run("CREATE TABLE _known (id VARCHAR, content VARCHAR)")
        keys = await Keyring.open(session.client)
        subject = f"{topology.FACT_SUBJECT}.{fact_token(source)}"
        async for batch in session.log.subject_batches(subject):
            stored = [(stored_decoder.decode(recorded.data), recorded.data) for recorded in batch]
            by_id = {one.id: data for one, data in stored if one.source == source}
            wanted = self._import.wanted_ids(list(by_id))
            if not wanted:
                continue
            contents: list[str] = []
            for identifier in wanted:
                data = by_id[identifier]
                if await keys.has_destroyed_key(encrypted_texts(data)):
                    contents.append(_DESTROYED)
                else:
                    contents.append(_digest(await keys.decrypt_fields(data)))
            database.insert("_known", pa.table({"id": wanted, "content": contents}))
            self._is_empty = False

    def sorted_out(self, events: list[Outgoing]) -> list[Outgoing]:
        """Return the events that would be recorded; count the others as duplicates or as reused ids."""
        if self._is_empty:
            return events
        database, report = self._import.database, self._import.report
        found = database.lookup("_known", [event.id for event in events])
        new: list[Outgoing] = []
        for event in events:
            content = found.get(event.id)
            if content is None:
                new.append(event)
            elif content in (_DESTROYED, _digest(event.data)):
                report.duplicate += 1
            else:
                report.reused += 1
                text = "the ledger has another event with this id; give this one a new id (`id_prefix`)"
                report.reject(event.line, event.id, Rejection("id_reused", "id", text), file=event.file)
        return new


def _digest(event: bytes) -> str:
    return hashlib.sha256(canonical_form(event)).hexdigest()
