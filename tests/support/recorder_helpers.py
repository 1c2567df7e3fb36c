"""Helpers for tests of the `eventsourcing` recorders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventsourcing.persistence import StoredEvent

from ledger.eventsourcing.recorders import JetStreamApplicationRecorder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from ledger.persistence import JetStreamFactory


def recorder_of(factory: JetStreamFactory) -> JetStreamApplicationRecorder:
    """Return a factory's application recorder."""
    recorder = factory.application_recorder()
    assert isinstance(recorder, JetStreamApplicationRecorder)
    return recorder


def stored_event(identifier: UUID | str, version: int, state: bytes = b"{}", topic: str = "t") -> StoredEvent:
    """Return a stored event with defaults for its state and topic."""
    return StoredEvent(identifier, version, topic, state)


def versions(events: Sequence[StoredEvent]) -> list[int]:
    """Return the versions of stored events."""
    return [one.originator_version for one in events]
