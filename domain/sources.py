"""Names of sources: their form, and the names that are reserved for the ledger."""

from __future__ import annotations

from domain.events.decisions import LEDGER_SOURCE
from domain.ids import IdFault, fault_of

LEDGER_SOURCES = frozenset((LEDGER_SOURCE, "ledger"))
"""Sources of the ledger's own events; requests and facts from outside may not use them."""
COMMAND_SOURCES = frozenset(("cli", "dashboard"))
"""Sources of the requests of the ledger's own commands and page, which come on a subject of their own."""
OWN_SOURCES = LEDGER_SOURCES | COMMAND_SOURCES
"""The sources above, and those of the ledger's own commands and page; facts may not use them."""
SIGNED_IN_SOURCE = "signed-in"
"""The source of facts that signed-in people declare; only the ledger's own page and HTTP API send them."""
RESERVED_SOURCES = OWN_SOURCES | {SIGNED_IN_SOURCE}
"""The names that no system may register."""


def source_fault(source: str) -> IdFault | None:
    """Return the reason why a text is not a valid source name, or ``None``."""
    fault = fault_of(source)
    return fault and IdFault(fault.code, f"the name of a source is an id: {fault.message}")


def request_source_fault(source: str) -> IdFault | None:
    """Return the reason why a request may not use this source, or ``None``."""
    return _fault_of(source, LEDGER_SOURCES)


def fact_source_fault(source: str) -> IdFault | None:
    """Return the reason why a new fact may not use this source, or ``None``."""
    return _fault_of(source, OWN_SOURCES)


def _fault_of(source: str, reserved: frozenset[str]) -> IdFault | None:
    if source in reserved:
        return IdFault(
            "source_not_allowed", f"the source {source!r} is reserved for the ledger; use another name for your system"
        )
    return source_fault(source)
