"""Administrative events: skipped events of a view, forgotten customers, and reads of named people's audit trails."""

from __future__ import annotations

import msgspec

from domain.serialization import Id


class ProjectionSkipped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator told a projection to skip an event that it could not process."""

    projection: str
    position: int
    reason: str
    by: Id


class CustomerForgotten(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A customer's keys were destroyed, and their personal data with them; this is repeated after a restore."""

    customer_id: Id
    requested_by: Id
    reason: str | None = None
    interactions: tuple[Id, ...] = ()
    """Interactions with destroyed keys of their own: their texts predate the link to the customer."""


class TrailRead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named person's audit trail was read, recorded where the policy asks for it (`privacy.record_reads`)."""

    read_by: Id
    about: tuple[str, ...]
    """The subjects that were named: `agent:<id>`, `customer:<id>`, `action:<id>`."""
    up_to: int
    """The position up to which the trail was shown."""
