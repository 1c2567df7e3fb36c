"""Names of sources: ids in canonical form, and those that are the ledger's own."""

from __future__ import annotations

from domain.events.decisions import LEDGER_SOURCE
from domain.ids import IdFault, fault_of

LEDGER_SOURCES = frozenset((LEDGER_SOURCE, "ledger"))
"""Sources of what the ledger itself records; no request and no fact from outside has one of them."""
OWN_SOURCES = LEDGER_SOURCES | {"cli", "dashboard"}
"""These, and the sources of requests from our own commands and our own page; no fact has one of them."""


def source_fault(source: str) -> IdFault | None:
    """Return why a text names no source, None where it does."""
    fault = fault_of(source)
    return fault and IdFault(fault.code, f"the name of a source is an id: {fault.message}")


def request_source_fault(source: str) -> IdFault | None:
    """Return why no request may have this source, None where one may."""
    return _fault_of(source, LEDGER_SOURCES)


def fact_source_fault(source: str) -> IdFault | None:
    """Return why no new fact may have this source, None where one may."""
    return _fault_of(source, OWN_SOURCES)


def _fault_of(source: str, reserved: frozenset[str]) -> IdFault | None:
    if source in reserved:
        return IdFault("source_not_allowed", f"the source {source!r} is the ledger's own; name your system otherwise")
    return source_fault(source)
