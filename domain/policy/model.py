"""The typed rules of a policy: the limits, budgets and approvals of each role and team."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from domain.events.causes import RULES_VERSION
from domain.events.facts import AgentKind, Kind
from domain.money import Money
from domain.periods import PeriodKind, bounds_of, days_of, kind_of, period_of, zone_of
from domain.policy.governance import Governance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.periods import OpenedPeriod

KINDS: tuple[str, ...] = get_args(Kind)
Limits = dict[str, Money | None]
"""Limit by kind. ``None`` is unlimited; a missing kind is outside the role's authority."""


class PerCustomer(msgspec.Struct, frozen=True):
    """The cap on goodwill to one customer's group by all agents together, over the last ``days``."""

    amount: Money
    days: int
    hard_above: Money | None
    unnamed: Money | None = None
    """The cap of each agent on goodwill that names no customer; ``None``: unlimited."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one role, and the requests that it may approve."""

    budget: Money
    carry_over: Money
    limits: Limits
    per_interaction: Money | None
    per_customer: PerCustomer | None
    requires: dict[str, tuple[str, ...]]
    approves: Limits
    kind: AgentKind = "human"
    """The agents that may hold the role: people, or AI agents."""


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """A team's differences: a pool that its agents draw on, and its own limits by role."""

    pool: Money | None
    draw_at_most: Money | None
    limits: dict[str, Limits]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A randomised trial: another limit for some teams, drawn from a seed, until a moment."""

    role: str
    kind: str
    amount: Money
    share_of_teams: float
    seed: int
    until: datetime


class EscalationRules(msgspec.Struct, frozen=True, kw_only=True):
    """The payer of approved actions, and the fate of an escalation without an answer."""

    payer: Literal["team", "approver"] = "approver"
    after: timedelta = timedelta(hours=48)
    then: Literal["next_level", "expire"] = "next_level"


class AskingMinutes(msgspec.Struct, frozen=True):
    """The working minutes of a request: the agent explains, the approver reads and decides."""

    agent: float = 14
    approver: float = 8


class Privacy(msgspec.Struct, frozen=True):
    """The protection of employees."""

    record_reads: bool = False
    """Each read of a named person's audit trail is recorded."""
    pseudonyms: bool = False
    """Flags show pseudonyms until a reviewer unmasks them, which is recorded."""


CASES_PER_WEEK = 2.0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A validated policy document; amounts are in its ``currency``."""

    currency: str
    time_zone: str
    period: PeriodKind
    effective_from: datetime
    mode: Literal["enforced", "shadow"]
    default_role: str | None
    roles: dict[str, Role]
    teams: dict[str, Team]
    trial: Trial | None
    escalation: EscalationRules
    sources: dict[str, tuple[str, ...]] | None
    costs: dict[str, Money]
    asking: AskingMinutes
    privacy: Privacy
    governance: Governance | None
    basis_limits: dict[str, dict[str, Limits]]
    """Amounts that need no proof, by role, kind and basis."""
    document: dict[str, Any]
    cases_per_week: float = CASES_PER_WEEK
    """The cases that the guard opens in a week for 100 people."""
    ai_roles: frozenset[str] = frozenset()
    """The roles that AI agents may hold."""

    def zero(self) -> Money:
        """Return zero in the policy's currency."""
        return Money(0, self.currency)

    def period_at(self, moment: datetime) -> str:
        """Return the name of the budget period at this moment."""
        return period_of(moment, self.period, zone_of(self.time_zone))

    def next_period(self, moment: datetime, before: OpenedPeriod | None) -> str:
        """Return the period to book on at this moment, where ``before`` is the newest one opened.

        A period is used until it has ended in two time zones: that of the policy that opened it, and this policy's. So
        no two periods are open at one time, each ends on a later day than the one before, and no name occurs twice.

        The next period has this policy's length, with one exception. A period that covers the period before would grant
        the same days twice. Then periods of the old length go on until one of the new length begins (``opening`` grants
        them no more than before).

        Raises:
            ValueError: the moment lies before the newest period.

        """
        zone = zone_of(self.time_zone)
        asked = period_of(moment, self.period, zone)
        if before is None or before.name == asked:
            return asked
        seconds = moment.timestamp()
        bounds = [bounds_of(before.name, one) for one in (zone_of(before.time_zone), zone)]
        if seconds < min(first.timestamp() for first, _ in bounds):
            message = f"the books of {asked} are closed"
            raise ValueError(message)
        if seconds < max(after.timestamp() for _, after in bounds):
            return before.name
        covers = days_of(asked)[0] <= days_of(before.name)[0]
        return period_of(moment, kind_of(before.name), zone) if covers and before.granted else asked

    def anybody_gives(self, kind: str) -> bool:
        """Return whether any role, in any team, may give this kind."""
        return any(kind in role.limits for role in self.roles.values()) or any(
            kind in limits for team in self.teams.values() for limits in team.limits.values()
        )


class Rules:
    """A published policy: its version, and the teams that its trial has drawn."""

    def __init__(
        self, version: int, policy: Policy, trial_teams: Iterable[str] = (), rules_version: int = RULES_VERSION
    ) -> None:
        """``rules_version``: the rules under which it was published. A stored policy keeps the meaning of that time."""
        self.version = version
        self.policy = policy
        self.rules_version = rules_version
        self.is_strict = rules_version >= _STRICT_SINCE
        """False for a policy of earlier rules: it caps no unnamed customer and asks for no proof of owed amounts."""
        self.trial_teams = frozenset(trial_teams)
        roles = policy.roles.values()
        self.caps_customers = any(role.per_customer is not None for role in roles)
        self.caps_unnamed = self.is_strict and any(
            role.per_customer is not None and role.per_customer.unnamed is not None for role in roles
        )
        self.caps_interactions = any(role.per_interaction is not None for role in roles)
        self._limits: dict[tuple[str, tuple[str, ...], bool], Limits] = {}
        self._minute = 0.0
        self._periods: dict[OpenedPeriod | None, str] = {}

    def limits_for(self, role: str, team_ids: tuple[str, ...], now: datetime) -> Limits:
        """Return the limits of a role by kind.

        A trial's limit comes first, then that of the first team with limits of its own, then the role's.
        """
        trial = self.policy.trial
        trying = (
            trial is not None
            and trial.role == role
            and now < trial.until
            and not (self.trial_teams.isdisjoint(team_ids))
        )
        found = self._limits.get((role, team_ids, trying))
        if found is None:
            found = dict(self.policy.roles[role].limits) if role in self.policy.roles else {}
            for team_id in reversed(team_ids):
                team = self.policy.teams.get(team_id)
                found.update(team.limits.get(role, {}) if team else {})
            if trying and trial is not None:
                found[trial.kind] = trial.amount
            if len(self._limits) > _REMEMBERED:
                self._limits.clear()
            self._limits[role, team_ids, trying] = found
        return found

    def period_at(self, moment: datetime, before: OpenedPeriod | None) -> str:
        """Return ``Policy.next_period``, cached for a minute: in every time zone, days begin at a full minute."""
        minute = moment.timestamp() // 60
        if self._minute != minute:
            self._minute, self._periods = minute, {}
        period = self._periods.get(before)
        if period is None:
            period = self._periods[before] = self.policy.next_period(moment, before)
        return period

    def pool_team(self, team_ids: tuple[str, ...]) -> str | None:
        """Return the first of these teams that has a pool, or ``None``."""
        teams = self.policy.teams
        return next((team for team in team_ids if team in teams and teams[team].pool is not None), None)


_REMEMBERED = 10_000
_STRICT_SINCE = 2


def drawn_teams(trial: Trial, teams: Iterable[str]) -> tuple[str, ...]:
    """Return the teams that take part in a trial, sorted.

    The draw takes the share of teams with the smallest SHA-256 of seed, line feed and team id, so that it can be
    repeated.
    """

    def lot(team_id: str) -> bytes:
        return hashlib.sha256(f"{trial.seed}\n{team_id}".encode()).digest()

    drawn = sorted(set(teams), key=lot)
    return tuple(sorted(drawn[: round(trial.share_of_teams * len(drawn))]))
