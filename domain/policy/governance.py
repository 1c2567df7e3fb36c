"""The section `governance` of a policy: the rights to change policies, to grant, to transfer and to review flags."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

from domain.money import Money

Reach = Literal["own_teams", "all"]
"""The holders that a grant or a transfer may reach: those of the giver's own teams, or all."""


class PolicyChanges(msgspec.Struct, frozen=True, kw_only=True):
    """The way of a new policy: its proposers and approvers, and the time for objections."""

    propose: tuple[str, ...]
    """People as ``role:<name>`` or ``agent:<id>``."""
    approvals: int
    """The approvals that a proposal needs, by other people than its proposer."""
    after: timedelta | None
    """The time for objections, after which a proposal with its approvals is published; ``None``: at once."""


class GrantRight(msgspec.Struct, frozen=True, kw_only=True):
    """The grants that each person of a role may make."""

    per_period: Money
    """The most that one person grants in one budget period."""
    to: Reach


class Governance(msgspec.Struct, frozen=True, kw_only=True):
    """The rights of governing people; a part that is missing belongs to operators alone."""

    policies: PolicyChanges | None = None
    grants: dict[str, GrantRight] = {}
    transfers: dict[str, Reach] = {}
    reviews: tuple[str, ...] = ()
    """The reviewers of flags, as ``role:<name>`` or ``agent:<id>``."""


def is_named(person_id: str, role: str, names: tuple[str, ...]) -> bool:
    """Return whether a person, or their role, is among names such as ``role:auditor`` and ``agent:A-1``."""
    return f"role:{role}" in names or f"agent:{person_id}" in names
