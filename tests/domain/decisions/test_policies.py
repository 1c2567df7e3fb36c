"""Policies: published as versions; the newest that has begun is in force; shadow mode and trials."""

import hashlib

import pytest

from domain.decisions.decision import Retry
from domain.events.decisions import Shadow
from domain.serialization import encode
from tests.support.decision_commands import action, publish
from tests.support.decision_company import STAFF, company, policy
from tests.support.decision_events import (
    ANY,
    fell_short,
    joined,
    opened,
    paid,
    published,
    sha256_of,
    taken,
    why,
)
from tests.support.decision_scenarios import given, rule
from tests.support.documents import Document

OPENED = opened("agent:A-7", "200.00")

SIMPLE: Document = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2026-06-01T00:00:00Z",
    "roles": {"agent": {"budget": "300.00", "limits": {"fix": "unlimited"}}},
}


def lots(seed: int, *teams: str) -> list[str]:
    """Return teams in the order of the draw: by SHA-256 of the seed, a line feed and the team."""
    return sorted(teams, key=lambda team: hashlib.sha256(f"{seed}\n{team}".encode()).digest())


@rule("a policy is published as the next version")
def test_the_first_policy_is_version_one() -> None:
    document = policy()
    given(STAFF).when(publish(document)).then(
        published(document, 1, sha256=sha256_of(document)),
        answer={
            "outcome": "done",
            "policy_version": 1,
            "effective_from": "2026-01-01T00:00:00Z",
            "sha256": sha256_of(document),
        },
    )


def test_the_next_policy_is_the_next_version() -> None:
    document = policy(agent={"budget": "300.00"})
    given(company()).when(publish(document)).then(
        published(document, 2, sha256=sha256_of(document)), answer={"policy_version": 2}
    )


@rule("a policy replaces the version that its publisher saw")
def test_a_policy_is_refused_where_another_version_was_published_since() -> None:
    document = policy(agent={"budget": "300.00"})
    given(company()).when(publish(document, replaces=1)).then(published(document, 2, sha256=ANY))
    given(company(), published(policy(), 2)).when(publish(document, replaces=1)).refused_with("outdated", "replaces")


def test_the_answer_of_a_publication_has_the_documented_form() -> None:
    found = given().when(publish(SIMPLE))
    found.then(published(SIMPLE, 1, sha256=sha256_of(SIMPLE)))
    assert encode(found.answer).decode() == (
        '{"outcome":"done","position":1,"policy_version":1,"effective_from":"2026-06-01T00:00:00Z",'
        '"sha256":"' + sha256_of(SIMPLE) + '","warnings":[]}'
    )


def test_a_policy_that_contradicts_itself_is_published_with_warnings() -> None:
    roles = {"agent": {"budget": "300.00", "limits": {"gift": "400.00"}}}
    found = given(STAFF).when(publish(SIMPLE | {"roles": roles}))
    assert {warning["field"] for warning in found.answer["warnings"]} == {"roles.agent.limits.gift"}


@rule("a policy does not begin before the one in force")
def test_a_policy_that_begins_before_the_one_in_force_is_refused() -> None:
    earlier = policy(effective_from="2025-12-31T23:59:59Z")
    given(company()).when(publish(earlier)).refused_with("invalid", "policy.effective_from")


def test_a_policy_may_begin_together_with_the_one_in_force() -> None:
    document = policy(agent={"budget": "300.00"})
    given(company()).when(publish(document)).then(published(document, 2, sha256=ANY))


def test_the_first_policy_may_begin_in_the_past() -> None:
    document = policy(effective_from="2020-01-01T00:00:00Z")
    given(STAFF).when(publish(document)).then(published(document, 1, sha256=ANY))


def test_a_policy_may_replace_one_that_has_not_begun() -> None:
    later = published(policy(effective_from="2026-09-01T00:00:00Z"), 2)
    document = policy(effective_from="2026-06-01T00:00:00Z")
    given(company(), later).when(publish(document)).then(published(document, 3, sha256=ANY))


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"period": "fortnight"}, "invalid", "policy.period"),
        ({"currency": "GPB"}, "invalid", "policy.currency"),
        ({"time_zone": "Europe/Atlantis"}, "invalid", "policy.time_zone"),
        ({"effective_from": "yesterday"}, "invalid", "policy.effective_from"),
        ({"mode": "silent"}, "invalid", "policy.mode"),
        ({"default_role": "clerk"}, "invalid", "policy.default_role"),
        ({"efective_from": "2026-01-01T00:00:00Z"}, "unknown_field", "policy.efective_from"),
        ({"agent": {"limit": {"refund": "5.00"}}}, "unknown_field", "policy.roles.agent.limit"),
        ({"agent": {"limits": {"refund": 5.0}}}, "invalid", "policy.roles.agent.limits.refund"),
        ({"agent": {"limits": {"refunds": "5.00"}}}, "invalid", "policy.roles.agent.limits.refunds"),
        ({"agent": {"budget": "5.001"}}, "invalid", "policy.roles.agent.budget"),
        ({"agent": {"budget": None}}, "invalid", "policy.roles.agent.budget"),
    ],
)
def test_a_policy_with_a_fault_is_refused_with_its_field(changes: Document, code: str, field: str) -> None:
    given(company()).when(publish(policy(**changes))).refused_with(code, field)


@rule("a policy is published in a currency that is valid")
def test_a_policy_in_a_currency_that_has_ended_is_refused() -> None:
    given(STAFF).when(publish(policy(currency="HRK"))).refused_with("invalid", "policy.currency")


def test_a_publication_that_another_decider_made_is_read_first() -> None:
    scenario = given(company()).not_read_yet(published(policy(), 2))
    scenario.when(publish(policy())).retries(Retry.AFTER_CATCH_UP)


# ---------------------------------------------------------------------- in force


@rule("the newest version that has begun is in force")
def test_the_newest_version_that_has_begun_is_in_force() -> None:
    second = published(policy(agent={"limits": {"refund": "60.00"}}, effective_from="2026-03-10T09:00:00Z"), 2)
    given(company(), second).when(action("60.00")).then(
        opened("agent:A-7", "200.00", policy_version=2),
        taken("60.00", policy_version=2, limits=ANY, authority="own"),
        answer={"policy_version": 2},
    )


def test_a_version_that_has_not_begun_is_not_in_force() -> None:
    second = published(policy(agent={"limits": {"refund": "60.00"}}, effective_from="2026-03-10T09:00:01Z"), 2)
    found = given(company(), second).when(action("60.00"))
    assert (found.answer["outcome"], found.answer["policy_version"]) == ("escalate", 1)


def test_of_two_versions_that_begin_together_the_later_one_is_in_force() -> None:
    second = published(policy(agent={"limits": {"refund": "60.00"}}), 2)
    found = given(company(), second).when(action("60.00"))
    assert (found.answer["outcome"], found.answer["policy_version"]) == ("taken", 2)


def test_a_version_replaces_an_older_one_that_begins_later() -> None:
    second = published(policy(effective_from="2026-03-09T00:00:00Z"), 2)
    third = published(policy(effective_from="2026-03-01T00:00:00Z"), 3)
    found = given(company(), second, third).when(action("5.00"))
    assert found.answer["policy_version"] == 3


def test_a_lower_limit_counts_at_once() -> None:
    second = published(policy(agent={"limits": {"refund": "10.00"}}), 2)
    reason = why("per_action", limit="10.00", used="0.00", asked="10.01")
    given(company(), opened("agent:A-7", "200.00"), second).when(action("10.01")).then(
        fell_short("10.01", "escalate", reason, policy_version=2)
    )


# ---------------------------------------------------------------------- shadow mode


SHADOW = published(policy(mode="shadow", agent={"budget": "20.00", "limits": {"refund": "10.00"}}), 2)


@rule("a policy in shadow mode decides nothing; its outcome is recorded beside the decision")
def test_a_policy_in_shadow_mode_is_recorded_and_decides_nothing() -> None:
    reasons = (
        why("per_action", limit="10.00", used="0.00", asked="30.00"),
        why("budget", limit="20.00", used="0.00", asked="30.00"),
    )
    found = given(company(), SHADOW).when(action("30.00"))
    found.then(OPENED, taken("30.00", shadow=ANY, limits=ANY, authority="own"), answer={"policy_version": 1})
    shadow = found.events[1].shadow  # type: ignore[union-attr]
    assert isinstance(shadow, Shadow)
    assert (shadow.policy_version, shadow.outcome) == (2, "escalate")
    assert [(one.rule, one.limit, one.used, one.asked) for one in shadow.reasons] == [
        (one.rule, one.limit, one.used, one.asked) for one in reasons
    ]


def test_a_policy_in_shadow_mode_may_agree() -> None:
    given(company(), SHADOW).when(action("10.00")).then(
        OPENED,
        taken("10.00", shadow=Shadow(policy_version=2, outcome="taken"), limits=ANY, authority="own"),
    )


def test_a_shortfall_records_the_outcome_of_the_shadow_policy_too() -> None:
    generous = published(policy(mode="shadow", agent={"limits": {"refund": "60.00"}}), 2)
    given(company(), generous).when(action("60.00")).then(
        OPENED,
        fell_short("60.00", "escalate", reasons=ANY, shadow=Shadow(policy_version=2, outcome="taken")),
    )


def test_a_newer_policy_that_is_enforced_ends_the_shadow() -> None:
    given(company(), SHADOW, published(policy(), 3)).when(action("10.00")).then(
        opened("agent:A-7", "200.00", policy_version=3), taken("10.00", policy_version=3, limits=ANY, authority="own")
    )


def test_a_shadow_policy_in_another_currency_refuses() -> None:
    euros = published(policy(mode="shadow", currency="EUR"), 2)
    found = given(company(), euros).when(action("10.00"))
    shadow = found.events[1].shadow  # type: ignore[union-attr]
    assert isinstance(shadow, Shadow)
    assert (shadow.outcome, [reason.rule for reason in shadow.reasons]) == ("refused", ["currency"])


@pytest.mark.parametrize("currency", ["GBP", "EUR"])
def test_a_shadow_policy_takes_a_correction_in_any_currency_as_an_enforced_one_does(currency: str) -> None:
    shadow = published(policy(mode="shadow", currency=currency), 2)
    owed = paid("O-1", "20.00 EUR")
    given(company(agent={"per_customer": None}), owed, shadow).when(
        action("10.00 EUR", basis="correction", order_id="O-1")
    ).then(
        OPENED,
        taken(
            "10.00 EUR",
            shadow=Shadow(policy_version=2, outcome="taken"),
            limits=ANY,
            authority="own",
            owed="10.00 EUR",
        ),
    )


def test_a_shadow_policy_draws_on_the_pool_where_its_own_grant_does_not_reach() -> None:
    smaller = published(policy(mode="shadow", agent={"budget": "20.00"}), 2)
    given(company(), smaller).when(action("30.00", "D-1")).then(
        opened("agent:D-1", "200.00"),
        taken("30.00", "D-1", shadow=Shadow(policy_version=2, outcome="taken"), limits=ANY, authority="own"),
    )


def test_a_shadow_policy_without_the_pool_does_not_draw() -> None:
    without = published(policy(mode="shadow", teams=None), 2)
    found = given(company(), taken("200.00", "D-1", kind="fix"), without).when(action("30.00", "D-1"))
    shadow = found.events[-1].shadow  # type: ignore[union-attr]
    assert isinstance(shadow, Shadow)
    assert [one.rule for one in shadow.reasons] == ["budget"]


def test_a_shadow_policy_without_the_role_gives_it_nothing() -> None:
    managers = published(policy(mode="shadow", agent=None), 2)
    found = given(company(), managers).when(action("30.00"))
    shadow = found.events[-1].shadow  # type: ignore[union-attr]
    assert isinstance(shadow, Shadow)
    assert [one.rule for one in shadow.reasons] == ["kind"]


def test_a_shadow_policy_counts_the_grant_of_a_role_that_only_it_has() -> None:
    enforced = company(agent=None, default_role="manager")
    agents = published(policy(mode="shadow"), 2)
    found = given(enforced, agents).when(action("5.00", basis="correction"))
    shadow = found.events[-1].shadow  # type: ignore[union-attr]
    assert shadow == Shadow(policy_version=2, outcome="taken")


def test_a_shadow_policy_escalates_what_its_grant_and_one_draw_do_not_reach() -> None:
    smaller = published(policy(mode="shadow", agent={"budget": "19.99"}), 2)
    found = given(company(), smaller).when(action("50.00", "D-1"))
    shadow = found.events[1].shadow  # type: ignore[union-attr]
    assert isinstance(shadow, Shadow)
    assert [(one.rule, one.limit and one.limit.text) for one in shadow.reasons] == [
        ("budget", "19.99"),
        ("pool", "40.00"),
    ]


def test_a_shadow_policy_alone_puts_no_policy_in_force() -> None:
    given(published(policy(mode="shadow")), STAFF).when(action("5.00")).then(
        fell_short("5.00", "refused", why("no_policy"), policy_version=None, role=None, holder=None, period=None)
    )


def test_a_shadow_policy_counts_what_was_spent() -> None:
    earlier = taken("15.00")
    found = given(company(), earlier, SHADOW).when(action("6.00"))
    shadow = found.events[0].shadow  # type: ignore[union-attr]
    assert isinstance(shadow, Shadow)
    assert [reason.rule for reason in shadow.reasons] == ["budget"]


# ---------------------------------------------------------------------- trials


def trial(until: str = "2026-06-01T00:00:00Z", share: float = 0.5) -> Document:
    """Return a trial of a higher limit in a share of the teams."""
    limit = {"role": "agent", "kind": "refund", "amount": "70.00"}
    return {"limit": limit, "share_of_teams": share, "seed": 7, "until": until}


@rule("a trial gives another limit to teams that are drawn at random, and the draw can be repeated")
def test_the_teams_of_a_trial_are_drawn_at_publication() -> None:
    document = policy(trial=trial())
    drawn = lots(7, "doorstep", "phone")[:1]
    given(company()).when(publish(document)).then(
        published(document, 2, sha256=ANY, trial_teams=tuple(drawn)), answer={"trial_teams": drawn}
    )


def test_the_draw_takes_its_share_of_the_teams_of_policy_and_staff() -> None:
    document = policy(trial=trial(share=0.75), teams={"gold": {"pool": "10.00"}, "doorstep": {"pool": "40.00"}})
    drawn = tuple(sorted(lots(7, "doorstep", "gold", "market", "phone")[:3]))
    given(company(), joined("A-9", "agent", "market")).when(publish(document)).then(
        published(document, 2, sha256=ANY, trial_teams=drawn)
    )


@pytest.mark.parametrize(("agent_id", "outcome"), [("A-7", "taken"), ("D-1", "escalate")])
def test_only_the_drawn_teams_have_the_limit_of_the_trial(agent_id: str, outcome: str) -> None:
    tried = published(policy(trial=trial(), agent={"per_interaction": None}), 2, trial_teams=("phone",))
    found = given(company(), tried).when(action("70.00", agent_id))
    assert found.answer["outcome"] == outcome


@pytest.mark.parametrize(
    ("until", "outcome"), [("2026-03-10T09:00:01Z", "taken"), ("2026-03-10T09:00:00Z", "escalate")]
)
def test_a_trial_lasts_until_its_end(until: str, outcome: str) -> None:
    tried = published(policy(trial=trial(until)), 2, trial_teams=("phone",))
    found = given(company(), tried).when(action("70.00"))
    assert found.answer["outcome"] == outcome


def test_the_limit_of_a_trial_is_for_its_role_and_kind_alone() -> None:
    tried = published(policy(trial=trial()), 2, trial_teams=("phone",))
    found = given(company(), tried).when(action("600.00", "M-1"))
    assert [reason.rule for reason in found.answer["reasons"]] == ["per_action"]


def test_the_limit_of_a_trial_comes_before_the_limit_of_a_team() -> None:
    teams = {"phone": {"limits": {"agent": {"refund": "60.00"}}}}
    tried = published(policy(trial=trial(), teams=teams), 2, trial_teams=("phone",))
    found = given(company(), tried).when(action("70.00"))
    assert found.answer["outcome"] == "taken"
