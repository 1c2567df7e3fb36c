"""What the ledger records of being looked after: what a view passed over, who was forgotten, who read about whom."""

from __future__ import annotations

import msgspec

from domain.serialization import Id


class ProjectionSkipped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody told a projection to pass over an event it could not digest."""

    projection: str
    position: int
    reason: str
    by: Id


class CustomerForgotten(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person's keys were destroyed, and what was personal with them; after a restore it is done again."""

    customer_id: Id
    requested_by: Id
    reason: str | None = None
    interactions: tuple[Id, ...] = ()
    """Whose keys went too: what was said in them before the customer was known."""


class TrailRead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody read the trail of somebody named, where policy wants that known (`privacy.record_reads`)."""

    read_by: Id
    about: tuple[str, ...]
    """Who was named: `agent:<id>`, `customer:<id>`, `action:<id>`."""
    up_to: int
    """The position up to which it was shown."""
