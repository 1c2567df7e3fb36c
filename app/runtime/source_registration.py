"""The registry of sources as an operator changes it: checked here, then recorded as events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from config import topology
from domain.events.administration import SourceChanged, SourceEvent, SourceRegistered, SourceRetired, SourceStopped
from domain.events.decisions import LEDGER_SOURCE, TYPE_OF
from domain.serialization import encode
from domain.source_registry import ProfileError, SourceRegistry, rights_of
from domain.sources import RESERVED_SOURCES, source_fault
from ledger.errors import ConflictError
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from projections.engine.events import read_event, types_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ledger.store.log import Log

_TYPES = types_of(SourceEvent)
_TRIES = 5


class RegistrationError(Exception):
    """A change of the registry that is not possible; the message has the remedy.

    Attributes:
        code: a stable word for programs.
        field: the option at fault, if any.

    """

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


async def read_registry(log: Log, *, admits_others: bool = True) -> tuple[SourceRegistry, int]:
    """Return the registry, and the position of its last event (0: none)."""
    registry, position = SourceRegistry(admits_others=admits_others), 0
    async for batch in log.subject_batches(topology.SOURCES_SUBJECT):
        for recorded in batch:
            event = read_event(recorded, _TYPES).body
            assert isinstance(event, SourceEvent)
            registry.apply(event)
            position = recorded.position
    return registry, position


async def record_change(log: Log, change: Callable[[SourceRegistry], SourceEvent]) -> int:
    """Record the event that ``change`` makes of the registry; return its position.

    Raises:
        RegistrationError: the registry does not allow it.
        ConflictError: others change the registry all the time.

    """
    for attempt in range(_TRIES):
        registry, last = await read_registry(log)
        event = change(registry)
        identifier = f"source {event.source} {last}"
        data = encode_event(LEDGER_SOURCE, identifier, TYPE_OF[type(event)], datetime.now(UTC), encode(event))
        try:
            return await log.append([Draft(topology.SOURCES_SUBJECT, data, last)])
        except ConflictError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError


def registered(event: SourceRegistered) -> Callable[[SourceRegistry], SourceEvent]:
    """Return the change that registers a source, for the first time or after it was stopped or retired."""

    def change(registry: SourceRegistry) -> SourceEvent:
        _check(event)
        known = registry.source(event.source)
        if known is not None and known.state == "active":
            message = f"{event.source!r} is registered already; change its rights with `admin sources change`"
            raise RegistrationError("already_registered", message, "name")
        return event

    return change


def changed(name: str, by: str, changes: dict[str, object]) -> Callable[[SourceRegistry], SourceEvent]:
    """Return the change that replaces these fields of a source's rights."""

    def change(registry: SourceRegistry) -> SourceEvent:
        known = registry.source(name)
        if known is None or known.state != "active":
            state = "not registered" if known is None else known.state
            message = f"{name!r} is {state}; register it with `admin sources add`"
            raise RegistrationError("unknown_source", message, "name")
        fields = ("profile", "facts", "roles", "per_day")
        rights = {field: getattr(known.registered, field) for field in fields} | changes
        event = SourceChanged(source=name, by=by, **rights)
        _check(event)
        return event

    return change


def closed(event: SourceStopped | SourceRetired) -> Callable[[SourceRegistry], SourceEvent]:
    """Return the change that stops or retires a source."""

    def change(registry: SourceRegistry) -> SourceEvent:
        known = registry.source(event.source)
        if known is None:
            message = f"{event.source!r} is not registered: `admin sources list` shows the sources"
            raise RegistrationError("unknown_source", message, "name")
        wanted = "stopped" if isinstance(event, SourceStopped) else "retired"
        if known.state == wanted:
            raise RegistrationError("no_change", f"{event.source!r} is {wanted} already", "name")
        return event

    return change


def _check(event: SourceRegistered | SourceChanged) -> None:
    if event.source in RESERVED_SOURCES:
        message = f"the source {event.source!r} is reserved for the ledger; use another name for your system"
        raise RegistrationError("source_not_allowed", message, "name")
    if fault := source_fault(event.source):
        raise RegistrationError(fault.code, fault.message, "name")
    try:
        rights_of(event)
    except ProfileError as error:
        raise RegistrationError("invalid", str(error), error.field) from None
