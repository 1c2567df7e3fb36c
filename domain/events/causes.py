"""The fields by which each event of the ledger names its cause, and by which its decision can be run again."""

from __future__ import annotations

import msgspec

RULES_VERSION = 3
"""The version of the rules by which `domain.decisions` decides; it grows with each change of a decision's outcome."""

NO_COMMAND = msgspec.Raw()
"""The value of ``Caused.command`` where it is left out; msgspec compares it by identity."""


class Caused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of the ledger's own events: the request, the fact or the timer that caused the event.

    The one event that is a request's answer also carries the hash of the request's body. An event that a fact or a
    timer caused has the source and id of that fact, or an id of the timer.
    """

    source: str
    request_id: str
    seen_position: int
    """The position up to which the decider had read the log, apart from its own decisions."""
    request_sha256: str | None = None
    decider_id: str = ""
    """The process that decided. It had seen all of its own earlier decisions, also those after ``seen_position``."""
    rules_version: int = 0
    """The version of the rules (``RULES_VERSION``); 0 in events of earlier versions of the product."""
    command: msgspec.Raw = NO_COMMAND
    """The request's body in canonical form; empty where the other fields of the event already say all of it."""
    via: str | None = None
    """`cli` or `http` in the answer to a request of the ledger's own commands or page; their events skip profiles."""
