"""The policy: the rules of who may give what, typed (domain language: Policy)."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args
from zoneinfo import ZoneInfo

import msgspec

from domain.facts import Kind
from domain.money import Money
from domain.periods import PeriodKind, days_of, kind_of, period_of

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS: tuple[str, ...] = get_args(Kind)
Limits = dict[str, Money | None]
"""By kind; ``None`` is unlimited, a kind that is not there is not this role's."""


class PerCustomer(msgspec.Struct, frozen=True):
    """Goodwill for one customer's group by all agents together, in the days before."""

    amount: Money
    days: int
    hard_above: Money | None


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What one role may do, and whose requests it may approve."""

    budget: Money
    carry_over: Money
    limits: Limits
    per_interaction: Money | None
    per_customer: PerCustomer | None
    requires: dict[str, tuple[str, ...]]
    approves: Limits


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """How a team differs: a pool its agents draw on, limits of its own by role."""

    pool: Money | None
    draw_at_most: Money | None
    limits: dict[str, Limits]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """Another limit for some teams, drawn from a seed, until a moment."""

    role: str
    kind: str
    amount: Money
    share_of_teams: float
    seed: int
    until: datetime


class Escalating(msgspec.Struct, frozen=True, kw_only=True):
    """Who pays for what is approved, and what becomes of an escalation nobody answers."""

    payer: Literal["team", "approver"] = "approver"
    after: timedelta = timedelta(hours=48)
    then: Literal["next_level", "expire"] = "next_level"


class Privacy(msgspec.Struct, frozen=True):
    """How those are protected who do the work."""

    record_reads: bool = False
    """Who reads the trail of a named person is recorded."""
    pseudonyms: bool = False
    """Flags show pseudonyms until somebody begins to look at them, which is recorded."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A document, validated; amounts in its ``currency``."""

    currency: str
    time_zone: str
    period: PeriodKind
    effective_from: datetime
    mode: Literal["enforced", "shadow"]
    default_role: str | None
    roles: dict[str, Role]
    teams: dict[str, Team]
    trial: Trial | None
    escalation: Escalating
    sources: dict[str, tuple[str, ...]] | None
    costs: dict[str, Money]
    privacy: Privacy
    document: dict[str, Any]

    def zero(self) -> Money:
        """Nothing, in the policy's currency."""
        return Money(0, self.currency)

    def period_at(self, moment: datetime) -> str:
        """The name of the budget period at this moment."""
        return period_of(moment, self.period, ZoneInfo(self.time_zone))

    def next_period(self, moment: datetime, before: str | None) -> str:
        """The period to book on at this moment, where ``before`` is the newest one opened.

        A period that is open is used to its end, whatever a newer policy says of the length of periods; and
        a new length begins where its period starts behind the start of the one before, so that no name
        comes twice.

        Raises:
            ValueError: the moment lies before the newest period.

        """
        asked = self.period_at(moment)
        if before is None or before == asked:
            return asked
        first, after = days_of(before)
        today = moment.astimezone(ZoneInfo(self.time_zone)).date()
        if today < first:
            message = f"the books of {asked} are closed"
            raise ValueError(message)
        if today < after:
            return before
        if days_of(asked)[0] > first:
            return asked
        return period_of(moment, kind_of(before), ZoneInfo(self.time_zone))

    def anybody_gives(self, kind: str) -> bool:
        """Whether some role, or some team's role, gives this kind at all."""
        return any(kind in role.limits for role in self.roles.values()) or any(
            kind in limits for team in self.teams.values() for limits in team.limits.values()
        )


class Rules:
    """A policy as it was published: with its version, and the teams its trial has drawn."""

    def __init__(self, version: int, policy: Policy, trial_teams: Iterable[str] = ()) -> None:
        self.version = version
        self.policy = policy
        self.trial_teams = frozenset(trial_teams)
        self._limits: dict[tuple[str, tuple[str, ...], bool], Limits] = {}
        self._this_minute = (0.0, "")

    def limits_for(self, role: str, team_ids: tuple[str, ...], now: datetime) -> Limits:
        """Limits by kind for a role; where teams differ, the first that does rules, and a trial before it."""
        trial = self.policy.trial
        trying = trial is not None and trial.role == role and now < trial.until and not (
            self.trial_teams.isdisjoint(team_ids)
        )  # fmt: skip
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

    def period_at(self, moment: datetime, before: str | None) -> str:
        """``Policy.next_period``, remembered for the minute: all zones' days begin with a minute."""
        minute = moment.timestamp() // 60
        if self._this_minute == (minute, before):
            return self._this_minute[1]
        period = self.policy.next_period(moment, before)
        self._this_minute = (minute, period)
        return period

    def pool_team(self, team_ids: tuple[str, ...]) -> str | None:
        """The first of these teams that has a pool."""
        teams = self.policy.teams
        return next((team for team in team_ids if team in teams and teams[team].pool is not None), None)


_REMEMBERED = 10_000


def drawn_teams(trial: Trial, teams: Iterable[str]) -> tuple[str, ...]:
    """The teams that take part in a trial: the share of them whose hash with the seed is smallest."""

    def lot(team_id: str) -> bytes:
        return hashlib.sha256(f"{trial.seed}\n{team_id}".encode()).digest()

    drawn = sorted(set(teams), key=lot)
    return tuple(sorted(drawn[: round(trial.share_of_teams * len(drawn))]))
