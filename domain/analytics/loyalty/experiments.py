"""Trials, and limits that were raised in some teams first, read from the published policies."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING, NamedTuple

from domain.policy.history import PolicyHistory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.events.decisions import PolicyPublished
    from domain.policy.model import Policy, Rules


class RandomisedTrial(NamedTuple):
    """A trial: the teams that were drawn, its start and its end in seconds since 1970."""

    version: int
    role: str
    kind: str
    begins: int
    ends: int
    teams: frozenset[str]


class Raise(NamedTuple):
    """A version of the policy that raised the limit of a role and kind for some teams."""

    version: int
    role: str
    kind: str
    at: int
    teams: frozenset[str]


def _in_force(published: Sequence[PolicyPublished]) -> list[Rules]:
    """Return the policies that were in force, one after another."""
    found = [reign.enforced for reign in PolicyHistory.of(published).reigns() if reign.enforced is not None]
    return [rules for rules, _ in groupby(found)]


def randomised(published: Sequence[PolicyPublished]) -> list[RandomisedTrial]:
    """Return all trials; a trial that a later version continues is one trial."""
    found: dict[tuple[str, str, frozenset[str]], RandomisedTrial] = {}
    for one in _in_force(published):
        if one.policy.trial is None or not one.trial_teams:
            continue
        trial, teams = one.policy.trial, one.trial_teams
        begins = int(one.policy.effective_from.timestamp())
        before = found.get((trial.role, trial.kind, teams))
        found[trial.role, trial.kind, teams] = RandomisedTrial(
            before.version if before else one.version,
            trial.role,
            trial.kind,
            before.begins if before else begins,
            int(trial.until.timestamp()),
            teams,
        )
    return list(found.values())


def raises(published: Sequence[PolicyPublished]) -> list[Raise]:
    """Return the versions that gave some teams, but not all, a higher limit than the version before."""
    found: list[Raise] = []
    for old, new in pairwise(_in_force(published)):
        before, after = old.policy, new.policy
        raised: dict[tuple[str, str], set[str]] = {}
        for team in before.teams.keys() | after.teams.keys():
            for role in after.roles:
                for kind, limit in _limits(after, team, role).items():
                    was = _limits(before, team, role).get(kind, 0)
                    if was is not None and (limit is None or limit > was):
                        raised.setdefault((role, kind), set()).add(team)
        for (role, kind), teams in sorted(raised.items()):
            common = _limits(before, "", role).get(kind, 0), _limits(after, "", role).get(kind, 0)
            if common[0] == common[1]:
                moment = int(after.effective_from.timestamp())
                found.append(Raise(new.version, role, kind, moment, frozenset(teams)))
    return found


def _limits(policy: Policy, team: str, role: str) -> dict[str, int | None]:
    limits = dict(policy.roles[role].limits) if role in policy.roles else {}
    if team in policy.teams:
        limits |= policy.teams[team].limits.get(role, {})
    return {kind: limit.minor if limit is not None else None for kind, limit in limits.items()}
