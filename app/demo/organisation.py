"""The organisation of the demo: a retailer of eleven teams, its calendar and its trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from app.demo.organisations.organisation import Habits, Organisation, Person, PlannedTeam, Surge, draw_team, hire
from app.policy_file import check_policy_file
from domain.policy.model import drawn_teams
from domain.policy.parsing import parse_policy

if TYPE_CHECKING:
    from domain.events.facts import Kind
    from domain.policy.model import Trial
    from domain.serialization import JsonObject

DAYS = 90
CURRENCY = "GBP"
HEAD = "H-1"
"""The head of service: the manager of every team's manager."""
ABROAD = "shop-dublin"
"""The shop abroad: its till decides by itself, in euros, and reports purchases and actions; it has no CRM."""
HEAD_TEAM = "service"
OFFLINE = ("doorstep", "store")
"""The desks that decide by themselves, and report afterwards."""
TRIAL_DAY = 14
_POLICY = Path(__file__).with_name("policy.yaml")
_TRIAL: JsonObject = {
    "limit": {"role": "agent", "kind": "refund", "amount": "35.00"},
    "share_of_teams": 0.5,
    "seed": 9,
    "until": "2026-03-06T00:00:00Z",
}
_LIMITS = {"agent": 2_500, "senior": 5_000, "manager": 25_000}
_PACE, _DIFFER = 0.6, 0.18
_HABITS = Habits(
    slips=0.008,
    second_thoughts=0.001,
    second_things=0.02,
    settles_for_limit=0.25,
    loose=0.0,
    offline=0.01,
    beyond=0.003,
    overdrawn=0.0,
    races=0.0,
    relatives=0.0,
    lost_shifts=0.006,
    overtime=0.07,
    owed=0.08,
    unproven=0.0,
    paid=1.1,
    thanks=0.09,
    to_friend=0.3,
    pastes=1.0,
    no_note=0.25,
    moods=0.1,
    claims=0.1,
    denied=0.1,
    delegations=0.0,
    relinks=0.03,
)


class TeamShape(NamedTuple):
    """A team of the demo: its name, desk, channel, members, rota and currency."""

    team_id: str
    desk: str
    channel: str
    members: int
    rota: str
    currency: str = "GBP"


TEAMS = (
    TeamShape("phone-north", "general", "phone", 9, "early and late"),
    TeamShape("phone-south", "general", "phone", 9, "early and late"),
    TeamShape("phone-evening", "general", "phone", 7, "day"),
    TeamShape("chat-one", "general", "chat", 8, "early and late"),
    TeamShape("chat-two", "general", "chat", 8, "day"),
    TeamShape("mail", "general", "e-mail", 7, "day"),
    TeamShape("returns", "specialist", "e-mail", 6, "day"),
    TeamShape("billing", "specialist", "phone", 7, "day"),
    TeamShape("social", "general", "social media", 6, "day"),
    TeamShape("doorstep", "doorstep", "doorstep", 8, "day"),
    TeamShape(ABROAD, "store", "store", 6, "day", "EUR"),
)
_KINDS: dict[str, tuple[Kind, ...]] = {
    "late": ("credit", "credit", "refund", "gift", "discount"),
    "damaged": ("refund", "refund", "refund", "replacement", "keep_item"),
    "missing": ("refund", "refund", "replacement"),
    "wrong item": ("refund", "keep_item", "keep_item", "replacement"),
    "billing": ("refund", "credit"),
    "rude": ("gift", "credit"),
    "waited": ("credit", "discount", "gift"),
    "quality": ("refund", "discount", "fix", "upgrade"),
    "fee": ("fee_waiver",),
}


def policy_document(*, trial: bool) -> JsonObject:
    """Return the policy of the demo; with ``trial`` the version that begins on the day of the trial."""
    policy = check_policy_file(_POLICY).policy
    assert policy is not None
    if not trial:
        return policy.document
    return policy.document | {"effective_from": f"2026-01-{5 + TRIAL_DAY:02d}T00:00:00Z", "trial": _TRIAL}


def the_trial() -> tuple[Trial, frozenset[str]]:
    """Return the trial and the teams that are drawn for it."""
    trial = parse_policy(policy_document(trial=True)).trial
    assert trial is not None
    return trial, frozenset(drawn_teams(trial, [*(shape.team_id for shape in TEAMS), HEAD_TEAM]))


def make_organisation(seed: int) -> Organisation:
    """Return the organisation of a seed."""
    random = Random(f"demo {seed}")
    teams, people = list[PlannedTeam](), list[Person]()
    for number, shape in enumerate(TEAMS):
        team = _team(random, number, shape)
        teams.append(team)
        first = len(people) + 1
        people += hire(random, team, range(first, first + shape.members), DAYS, _DIFFER)
    for person in people:
        person.pace *= _PACE
    everybody = frozenset(team.team_id for team in teams)
    surges = [
        Surge("promotion", 35, 7, everybody, 1.4, 0.3, 0.4),
        Surge("recall", 56, 6, frozenset(everybody - {ABROAD, "billing"}), 1.6, 0.5, 0.6),
        Surge("storm", 23, 1, frozenset(("doorstep",)), 2.0, 0.5, 0.3),
    ]
    managers = [team.members[0] for team in teams]
    return Organisation(
        seed, DAYS, teams, people, managers, _LIMITS, surges, frozenset((0, 88)), 0.1, 0.05, 2_400, _HABITS
    )


def _team(random: Random, number: int, shape: TeamShape) -> PlannedTeam:
    drawn = draw_team(random, number, [(shape.currency, 1.0, 0)])
    return replace(
        drawn,
        team_id=shape.team_id,
        desk=shape.desk,
        channel=shape.channel,
        source="till-dublin" if shape.team_id == ABROAD else "desk",
        rota=shape.rota,
        weekends=shape.desk != "specialist",
        records_purchases=True,
        purchase_delay_hours=0.0,
        shifts="none" if shape.team_id == ABROAD else "clock",
        shift_delay_hours=0.0,
        generosity=random.uniform(0.9, 1.3),
        customs={reason: custom._replace(middle=1.25 * custom.middle) for reason, custom in drawn.customs.items()},
        macros={reason: f"macro {shape.team_id} {reason}" for reason in drawn.macros},
        kinds=_KINDS,
    )
