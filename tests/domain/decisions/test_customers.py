"""Limits that several agents share: goodwill on one interaction and to one customer group; and self-dealing."""

import pytest

from domain.decisions.decision import Retry
from tests.support.decision_commands import action
from tests.support.decision_company import STAFF, company, policy
from tests.support.decision_events import (
    ANY,
    Described,
    corrected,
    customer_charged,
    fell_short,
    held,
    linked,
    met,
    opened,
    paid,
    published,
    related,
    reported,
    reversal,
    settled,
    taken,
    unlinked,
    voided,
    why,
)
from tests.support.decision_scenarios import given, rule

OPENED = opened("agent:A-7", "200.00")


def gave(amount: str, agent_id: str = "A-8", number: int = 1, **fields: object) -> Described:
    """Return an earlier action of an agent."""
    return taken(amount, agent_id, action_id=f"act-{agent_id.replace('-', '').lower()}0{number}", **fields)


# ---------------------------------------------------------------------- one interaction


@rule("goodwill of all agents on one interaction has a cap")
def test_goodwill_of_all_agents_on_one_interaction_has_a_cap() -> None:
    reason = why("per_interaction", limit="60.00", used="40.00", asked="20.01")
    given(company(), gave("40.00", interaction_id="I-1")).when(action("20.01", interaction_id="I-1")).then(
        OPENED, fell_short("20.01", "escalate", reason)
    )


def test_an_interaction_may_get_exactly_its_cap() -> None:
    given(company(), gave("40.00", interaction_id="I-1")).when(action("20.00", interaction_id="I-1")).then(
        OPENED,
        taken(
            "20.00",
            interaction_id="I-1",
            authority="own",
            limits=met(per_action=("50.00", "0.00"), per_interaction=("60.00", "40.00"), budget=("200.00", "0.00")),
        ),
    )


def test_an_agents_own_goodwill_counts_on_the_interaction() -> None:
    reason = why("per_interaction", limit="60.00", used="50.00", asked="10.01")
    given(company(), gave("50.00", "A-7", interaction_id="I-1")).when(action("10.01", interaction_id="I-1")).then(
        fell_short("10.01", "escalate", reason)
    )


def test_a_reserved_amount_counts_on_the_interaction() -> None:
    reason = why("per_interaction", limit="60.00", used="50.00", asked="10.01")
    given(company(), held("50.00", interaction_id="I-1")).when(action("10.01", interaction_id="I-1")).then(
        fell_short("10.01", "escalate", reason)
    )


def test_a_hold_that_was_released_does_not_count_on_the_interaction() -> None:
    earlier = held("50.00", interaction_id="I-1"), voided("50.00", "voided", interaction_id="I-1")
    found = given(company(), *earlier).when(action("50.00", interaction_id="I-1"))
    assert found.answer["outcome"] == "taken"


def test_of_a_settled_hold_only_the_paid_part_counts_on_the_interaction() -> None:
    earlier = held("50.00", interaction_id="I-1"), settled("20.00", held="50.00", interaction_id="I-1")
    found = given(company(), *earlier).when(action("40.00", interaction_id="I-1"))
    assert found.answer["outcome"] == "taken"


def test_an_action_on_another_interaction_does_not_count() -> None:
    found = given(company(), gave("50.00", "A-7", interaction_id="I-2")).when(action("50.00", interaction_id="I-1"))
    assert found.answer["outcome"] == "taken"


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
def test_only_goodwill_counts_on_an_interaction(basis: str) -> None:
    earlier = gave("60.00", interaction_id="I-1", basis=basis)
    found = given(company(), earlier).when(action("50.00", interaction_id="I-1"))
    assert found.answer["outcome"] == "taken"


def test_a_reported_action_counts_on_the_interaction() -> None:
    reason = why("per_interaction", limit="60.00", used="40.00", asked="20.01")
    given(company(), reported("40.00", "A-8", interaction_id="I-1")).when(action("20.01", interaction_id="I-1")).then(
        OPENED, fell_short("20.01", "escalate", reason)
    )


def test_goodwill_of_the_agent_and_of_others_adds_up_on_the_interaction() -> None:
    earlier = gave("20.00", "A-7", interaction_id="I-1"), gave("30.00", interaction_id="I-1")
    reason = why("per_interaction", limit="60.00", used="50.00", asked="10.01")
    given(company(), *earlier).when(action("10.01", interaction_id="I-1")).then(fell_short("10.01", "escalate", reason))


def test_goodwill_in_another_currency_does_not_count_on_the_interaction() -> None:
    found = given(company(), reported("50.00 EUR", "A-8", interaction_id="I-1")).when(
        action("50.00", interaction_id="I-1")
    )
    assert found.answer["outcome"] == "taken"


def test_a_role_without_a_cap_on_interactions_has_none() -> None:
    found = given(company()).when(action("400.00", "M-1", interaction_id="I-1"))
    found.then(
        opened("agent:M-1", "2000.00"),
        taken("400.00", "M-1", authority="own", limits=met(per_action=("500.00", "0.00"), budget=("2000.00", "0.00"))),
    )


# ---------------------------------------------------------------------- one customer group


@rule("goodwill for one customer group in some days has a cap")
def test_goodwill_of_all_agents_to_one_customer_has_a_cap() -> None:
    reason = why("per_customer", limit="100.00", used="90.00", asked="10.01")
    given(company(), gave("90.00", kind="fix", customer_id="C-9")).when(action("10.01", customer_id="C-9")).then(
        OPENED, fell_short("10.01", "escalate", reason)
    )


def test_a_household_has_one_cap() -> None:
    reason = why("per_customer", limit="100.00", used="90.00", asked="10.01")
    links = linked("C-1", "C-2"), linked("C-2", "C-3", "same_person")
    earlier = gave("50.00", number=1, customer_id="C-1"), gave("40.00", number=2, customer_id="C-2")
    given(company(), *links, *earlier).when(action("10.01", customer_id="C-3")).then(
        OPENED, fell_short("10.01", "escalate", reason)
    )


def test_unlinked_customers_have_caps_of_their_own() -> None:
    links = linked("C-1", "C-2"), unlinked("C-1", "C-2")
    found = given(company(), *links, gave("90.00", customer_id="C-1")).when(action("50.00", customer_id="C-2"))
    assert found.answer["outcome"] == "taken"


def test_removing_one_of_two_links_leaves_the_customers_linked() -> None:
    links = linked("C-1", "C-2"), linked("C-1", "C-2", "same_person"), unlinked("C-1", "C-2")
    found = given(company(), *links, gave("90.00", customer_id="C-1")).when(action("50.00", customer_id="C-2"))
    assert found.answer["outcome"] == "escalate"


def by(source: str, event: Described) -> Described:
    """Return a fact of another source."""
    return event._replace(source=source)


@rule("a link is removed only by the source that made it")
def test_another_source_does_not_remove_a_link() -> None:
    told = linked("A-7", "C-9"), by("stranger", unlinked("A-7", "C-9"))
    given(company(), *told).when(action("5.00", customer_id="C-9")).then(
        OPENED, fell_short("5.00", "refused", why("self_dealing"))
    )


def test_a_source_that_repeats_a_link_does_not_own_it() -> None:
    told = linked("A-7", "C-9"), by("stranger", linked("A-7", "C-9")), by("stranger", unlinked("A-7", "C-9"))
    assert given(company(), *told).when(action("5.00", customer_id="C-9")).answer["outcome"] == "refused"


def test_a_source_that_takes_its_repeated_link_back_leaves_the_other_sources_link() -> None:
    told = by("hr", linked("A-7", "C-9")), linked("A-7", "C-9"), corrected(10, None)
    assert given(company(), *told).when(action("5.00", customer_id="C-9")).answer["outcome"] == "refused"


@pytest.mark.parametrize(("at", "outcome"), [("2025-12-10T09:00:00Z", "taken"), ("2025-12-10T09:00:01Z", "escalate")])
def test_the_cap_counts_the_days_before(at: str, outcome: str) -> None:
    """90 days before the tenth of March at nine is the tenth of December at nine."""
    early = company(effective_from="2025-01-01T00:00:00Z")
    found = given(early, gave("90.00", customer_id="C-9", at=at)).when(action("50.00", customer_id="C-9"))
    assert found.answer["outcome"] == outcome


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
def test_only_goodwill_counts_for_a_customer(basis: str) -> None:
    found = given(company(), gave("100.00", customer_id="C-9", basis=basis)).when(action("50.00", customer_id="C-9"))
    assert found.answer["outcome"] == "taken"


def test_a_correction_is_given_beyond_the_customers_cap() -> None:
    found = given(company(), paid("O-1", "50.00"), gave("100.00", customer_id="C-9")).when(
        action("50.00", customer_id="C-9", basis="correction", order_id="O-1")
    )
    assert found.answer["outcome"] == "taken"


def test_a_request_that_names_no_customer_meets_no_cap_of_a_customer() -> None:
    found = given(company(), gave("100.00", customer_id="C-9")).when(action("50.00"))
    assert found.answer["outcome"] == "taken"


# ---------------------------------------------------------------------- the unnamed customer

CAPPED = company(agent={"per_customer": {"amount": "100.00", "days": 90, "hard_above": "80.00", "unnamed": "120.00"}})
"""All that an agent gives without naming a customer is 120.00 at most."""
DEFAULT = company(agent={"per_customer": {"amount": "100.00", "days": 90}})


@rule("goodwill that names no customer counts as one unnamed customer of that agent")
def test_goodwill_without_a_customer_has_a_cap_of_its_own() -> None:
    reason = why("per_customer", limit="120.00", used="90.00", asked="30.01")
    given(CAPPED, gave("90.00", "A-7")).when(action("30.01")).then(fell_short("30.01", "escalate", reason))


def test_exactly_the_cap_may_be_given_without_a_customer() -> None:
    limits = met(per_action=("50.00", "0.00"), per_customer=("120.00", "90.00"), budget=("200.00", "90.00"))
    given(CAPPED, gave("90.00", "A-7")).when(action("30.00")).then(taken("30.00", authority="own", limits=limits))


@pytest.mark.parametrize(("amount", "outcome"), [("10.00", "taken"), ("10.01", "escalate")])
def test_without_a_word_the_cap_of_the_unnamed_customer_is_the_same_amount(amount: str, outcome: str) -> None:
    assert given(DEFAULT, gave("90.00", "A-7")).when(action(amount)).answer["outcome"] == outcome


def test_the_unnamed_customer_may_be_unlimited() -> None:
    walk_in = company(agent={"per_customer": {"amount": "100.00", "days": 90, "unnamed": "unlimited"}})
    assert given(walk_in, gave("150.00", "A-7")).when(action("50.00")).answer["outcome"] == "taken"


def test_each_agent_has_an_unnamed_customer_of_its_own() -> None:
    assert given(CAPPED, gave("120.00", "A-8")).when(action("50.00")).answer["outcome"] == "taken"


def test_goodwill_to_named_customers_does_not_count_for_the_unnamed_one() -> None:
    found = given(CAPPED, gave("95.00", "A-7", customer_id="C-9")).when(action("50.00"))
    assert found.answer["outcome"] == "taken"


def test_goodwill_without_a_customer_does_not_count_for_a_named_one() -> None:
    found = given(CAPPED, gave("95.00", "A-7")).when(action("50.00", customer_id="C-9"))
    assert found.answer["outcome"] == "taken"


@pytest.mark.parametrize(("at", "outcome"), [("2025-12-10T09:00:00Z", "taken"), ("2025-12-10T09:00:01Z", "escalate")])
def test_the_unnamed_customers_cap_counts_the_days_before(at: str, outcome: str) -> None:
    capped = {"per_customer": {"amount": "100.00", "days": 90}}
    early = company(effective_from="2025-01-01T00:00:00Z", agent=capped)
    assert given(early, gave("90.00", "A-7", at=at)).when(action("50.00")).answer["outcome"] == outcome


def test_what_an_approver_allowed_counts_for_the_requesters_unnamed_customer() -> None:
    allowed = gave("110.00", "A-7", holder="agent:M-1", authority="approved", decided_by="M-1")
    assert given(CAPPED, allowed).when(action("10.01")).answer["outcome"] == "escalate"


@pytest.mark.parametrize("after", [voided("90.00", "changed their mind"), settled("10.00", held="90.00")])
def test_a_hold_counts_for_the_unnamed_customer_while_it_stands(after: Described) -> None:
    hold = held("90.00", action_id="act-01")
    assert given(CAPPED, hold).when(action("50.00")).answer["outcome"] == "escalate"
    assert given(CAPPED, hold, after).when(action("50.00")).answer["outcome"] == "taken"


def test_a_policy_of_earlier_rules_has_no_cap_for_unnamed_customers() -> None:
    document = policy(agent={"per_customer": {"amount": "100.00", "days": 90}})
    earlier = published(document, rules_version=1), *STAFF
    assert given(earlier, gave("150.00", "A-7")).when(action("50.00")).answer["outcome"] == "taken"


def test_near_the_unnamed_customers_cap_the_decider_reads_what_another_recorded_first() -> None:
    scenario = given(CAPPED, gave("60.00", "A-7")).not_read_yet(gave("40.00", "A-7", 2))
    scenario.when(action("20.01")).retries(Retry.AFTER_CATCH_UP)


# ---------------------------------------------------------------------- an amount of zero


@rule("an amount of 0.00 meets no limit of money")
def test_an_amount_of_zero_meets_no_limit_of_money() -> None:
    spent = gave("100.01", customer_id="C-9", interaction_id="I-1"), gave("210.00", "A-7")
    given(company(), *spent).when(action("0.00", kind="fix", customer_id="C-9", interaction_id="I-1")).then(
        taken("0.00", kind="fix", customer_id="C-9", interaction_id="I-1", authority="own", limits=ANY)
    )


def test_a_penny_more_than_zero_meets_the_limits() -> None:
    found = given(company(), gave("210.00", "A-7")).when(action("0.01", kind="fix"))
    assert found.answer["outcome"] == "escalate"


def test_an_amount_of_zero_of_a_kind_that_the_role_lacks_is_escalated() -> None:
    assert given(company()).when(action("0.00", kind="credit")).answer["outcome"] == "escalate"


def test_an_amount_of_zero_needs_the_training() -> None:
    assert given(company()).when(action("0.00", kind="keep_item")).answer["outcome"] == "escalate"


def test_an_amount_of_zero_draws_on_no_pool() -> None:
    given(company(), gave("210.00", "D-1")).when(action("0.00", "D-1", kind="fix")).then(
        taken("0.00", "D-1", kind="fix", authority="own", limits=ANY)
    )


def test_an_amount_of_zero_meets_the_limits_of_a_policy_of_earlier_rules() -> None:
    earlier = published(policy(), rules_version=1), *STAFF
    assert given(earlier, gave("210.00", "A-7")).when(action("0.00", kind="fix")).answer["outcome"] == "escalate"


# ---------------------------------------------------------------------- reversals and reports


@pytest.mark.parametrize(("recovered", "outcome"), [(True, "taken"), (False, "escalate")])
def test_a_reversal_restores_the_customers_cap_only_if_the_money_was_recovered(recovered: bool, outcome: str) -> None:
    undone = reversal(
        "90.00", action_id="act-a801", agent_id="A-8", recovered=recovered, relates_to=10, customer_id="C-9"
    )
    found = given(company(), gave("90.00", customer_id="C-9"), undone).when(action("50.00", customer_id="C-9"))
    assert found.answer["outcome"] == outcome


def test_a_reported_action_counts_for_its_customer() -> None:
    reason = why("per_customer", limit="100.00", used="90.00", asked="10.01")
    given(company(), reported("90.00", "A-8", customer_id="C-9")).when(action("10.01", customer_id="C-9")).then(
        OPENED, fell_short("10.01", "escalate", reason)
    )


@rule("near the cap of a customer, the action is recorded for the customer too")
def test_above_hard_above_the_customers_own_stream_is_written() -> None:
    given(company(), gave("60.00", customer_id="C-9")).when(action("20.01", customer_id="C-9")).then(
        OPENED,
        taken("20.01", limits=ANY, authority="own"),
        customer_charged("C-9", "20.01", used="60.00"),
    )


def test_up_to_hard_above_the_customers_own_stream_is_not_written() -> None:
    given(company(), gave("60.00", customer_id="C-9")).when(action("20.00", customer_id="C-9")).then(
        OPENED, taken("20.00", limits=ANY, authority="own")
    )


def test_a_household_has_one_stream_near_the_cap() -> None:
    links = linked("C-1", "C-2"), linked("C-2", "C-3")
    given(company(), *links, gave("60.00", customer_id="C-2")).when(action("20.01", customer_id="C-3")).then(
        OPENED, taken("20.01", limits=ANY, authority="own"), customer_charged("C-1", "20.01", used="60.00")
    )


def test_without_hard_above_the_customers_own_stream_is_not_written() -> None:
    soft = company(agent={"per_customer": {"amount": "100.00", "days": 90}})
    given(soft, gave("60.00", customer_id="C-9")).when(action("40.00", customer_id="C-9")).then(
        OPENED, taken("40.00", limits=ANY, authority="own")
    )


def test_near_the_cap_the_decider_reads_what_another_gave_to_the_customer_first() -> None:
    other = (
        gave("40.00", "D-1", customer_id="C-9"),
        customer_charged("C-9", "40.00", used="60.00", action_id="act-d101"),
    )
    scenario = given(company(), gave("60.00", customer_id="C-9"), gave("0.00", "D-1", 0)).not_read_yet(*other)
    scenario.when(action("20.01", customer_id="C-9")).retries(Retry.AFTER_CATCH_UP)


def test_goodwill_that_another_decider_gave_counts_once_it_was_read() -> None:
    other = (
        gave("40.00", "D-1", customer_id="C-9"),
        customer_charged("C-9", "40.00", used="60.00", action_id="act-d101"),
    )
    reason = why("per_customer", limit="100.00", used="100.00", asked="0.01")
    given(company(), gave("60.00", customer_id="C-9"), *other).when(action("0.01", customer_id="C-9")).then(
        OPENED, fell_short("0.01", "escalate", reason)
    )


def test_a_role_without_a_cap_on_customers_has_none() -> None:
    given(company(), gave("90.00", customer_id="C-9")).when(action("400.00", "M-1", customer_id="C-9")).then(
        opened("agent:M-1", "2000.00"),
        taken("400.00", "M-1", authority="own", limits=met(per_action=("500.00", "0.00"), budget=("2000.00", "0.00"))),
    )


# ---------------------------------------------------------------------- self-dealing


@rule("agents may not act for themselves, their household or a declared relation")
def test_an_agent_may_not_act_for_the_own_household() -> None:
    given(company(), linked("A-7", "C-9")).when(action("5.00", customer_id="C-9")).then(
        OPENED, fell_short("5.00", "refused", why("self_dealing")), answer={"outcome": "refused"}
    )


def test_an_agent_may_not_act_for_the_own_account() -> None:
    given(company()).when(action("5.00", customer_id="A-7")).then(
        OPENED, fell_short("5.00", "refused", why("self_dealing"))
    )


def test_an_agent_may_not_act_for_a_declared_relation() -> None:
    given(company(), related("A-7", "C-9")).when(action("5.00", customer_id="C-9")).then(
        OPENED, fell_short("5.00", "refused", why("self_dealing"))
    )


def test_an_agent_may_not_act_for_the_household_of_a_relation() -> None:
    given(company(), related("A-7", "C-1"), linked("C-1", "C-9")).when(action("5.00", customer_id="C-9")).then(
        OPENED, fell_short("5.00", "refused", why("self_dealing"))
    )


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
def test_self_dealing_is_refused_on_every_basis(basis: str) -> None:
    given(company()).when(action("5.00", customer_id="A-7", basis=basis)).then(
        OPENED, fell_short("5.00", "refused", why("self_dealing"), basis=basis)
    )


def test_self_dealing_is_refused_whatever_the_amount() -> None:
    given(company()).when(action("0.00", customer_id="A-7")).then(
        OPENED, fell_short("0.00", "refused", why("self_dealing"))
    )


def test_a_relation_of_one_agent_does_not_bind_another() -> None:
    found = given(company(), related("A-7", "C-9"), linked("A-7", "C-8")).when(action("5.00", "A-8", customer_id="C-9"))
    assert found.answer["outcome"] == "taken"


def test_after_the_link_was_removed_the_agent_may_act() -> None:
    found = given(company(), linked("A-7", "C-9"), unlinked("A-7", "C-9")).when(action("5.00", customer_id="C-9"))
    assert found.answer["outcome"] == "taken"
