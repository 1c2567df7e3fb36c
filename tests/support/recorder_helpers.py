"""What the tests of the `eventsourcing` recorders share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventsourcing.persistence import StoredEvent

from ledger.eventsourcing.recorders import JetStreamApplicationRecorder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from ledger.persistence import JetStreamFactory


def recorder_of(factory: JetStreamFactory) -> JetStreamApplicationRecorder:
    """Its application recorder."""
    recorder = factory.application_recorder()
    assert isinstance(recorder, JetStreamApplicationRecorder)
    return recorder


def stored_event(identifier: UUID | str, version: int, state: bytes = b"{}", topic: str = "t") -> StoredEvent:
    """A stored event."""
    return StoredEvent(identifier, version, topic, state)


def versions(events: Sequence[StoredEvent]) -> list[int]:
    """Their versions."""
    return [one.originator_version for one in events]
