"""Actions: the limits of one action, roles and teams, training, sources, and requests outside of anyone's authority."""

import hashlib
from itertools import permutations

import pytest

from domain.decisions.decision import Retry
from domain.events.causes import RULES_VERSION
from domain.serialization import encode
from tests.support.decision_commands import action
from tests.support.decision_company import STAFF, company, policy
from tests.support.decision_events import (
    ANY,
    fell_short,
    joined,
    left,
    met,
    moved,
    opened,
    order_charged,
    paid,
    published,
    taken,
    trained,
    why,
)
from tests.support.decision_events import held as held_action
from tests.support.decision_scenarios import balance, given, rule

OPENED = opened("agent:A-7", "200.00")
UNUSED = met(per_action=("50.00", "0.00"), budget=("200.00", "0.00"))


@rule("within every limit an action is taken")
def test_an_action_within_every_limit_is_taken() -> None:
    given(company()).when(action("50.00")).then(
        OPENED, taken("50.00", limits=UNUSED, authority="own"), answer={"outcome": "taken", "reasons": []}
    )


def test_a_taken_action_is_spent_from_the_agents_budget() -> None:
    given(company()).when(action("5.00")).then(
        OPENED,
        taken("5.00", limits=ANY, authority="own"),
        answer={"budget": balance("agent:A-7", "200.00", spent="5.00")},
    )


def test_the_answer_of_a_taken_action_has_the_documented_form() -> None:
    found = given(company()).when(action("5.00"))
    found.then(OPENED, taken("5.00", limits=ANY, authority="own"))
    action_id = "act-" + hashlib.sha256(b"crm\nr-1").hexdigest()[:32]
    assert encode(found.answer).decode() == (
        '{"outcome":"taken","action_id":"' + action_id + '","position":10,"policy_version":1,"reasons":[],'
        '"budget":{"holder":"agent:A-7","period":"2026-03","granted":{"amount":"200.00","currency":"GBP"},'
        '"spent":{"amount":"5.00","currency":"GBP"},"reserved":{"amount":"0.00","currency":"GBP"},'
        '"remaining":{"amount":"195.00","currency":"GBP"}}}'
    )


def test_the_answer_of_an_action_beyond_a_limit_has_the_documented_form() -> None:
    found = given(company()).when(action("70.00"))
    found.then(OPENED, fell_short("70.00", "escalate", why("per_action", limit="50.00", used="0.00", asked="70.00")))
    assert encode(found.answer).decode() == (
        '{"outcome":"escalate","position":10,"policy_version":1,"reasons":[{"rule":"per_action",'
        '"message":"more than this role may give in one action of this kind",'
        '"limit":{"amount":"50.00","currency":"GBP"},"used":{"amount":"0.00","currency":"GBP"},'
        '"asked":{"amount":"70.00","currency":"GBP"}}],"budget":{"holder":"agent:A-7","period":"2026-03",'
        '"granted":{"amount":"200.00","currency":"GBP"},"spent":{"amount":"0.00","currency":"GBP"},'
        '"reserved":{"amount":"0.00","currency":"GBP"},"remaining":{"amount":"200.00","currency":"GBP"}}}'
    )


def test_the_record_of_an_action_copies_its_request() -> None:
    request = action(
        "5.00",
        customer_id="C-9",
        interaction_id="I-1",
        order_id="O-1",
        team_id="phone",
        note="keep it",
        guideline="g-1",
    )
    given(company()).when(request).then(
        OPENED,
        taken(
            "5.00",
            customer_id="C-9",
            interaction_id="I-1",
            order_id="O-1",
            team_id="phone",
            note="keep it",
            guideline="g-1",
            limits=ANY,
            authority="own",
        ),
    )


def test_an_action_records_every_limit_that_it_met() -> None:
    given(company()).when(action("5.00", customer_id="C-9", interaction_id="I-1")).then(
        OPENED,
        taken(
            "5.00",
            authority="own",
            limits=met(
                per_action=("50.00", "0.00"),
                per_interaction=("60.00", "0.00"),
                per_customer=("100.00", "0.00"),
                budget=("200.00", "0.00"),
            ),
        ),
    )


def test_the_second_action_of_a_period_opens_nothing() -> None:
    given(company(), taken("5.00", action_id="act-01")).when(action("5.00")).then(
        taken("5.00", authority="own", limits=met(per_action=("50.00", "0.00"), budget=("200.00", "5.00")))
    )


def test_an_amount_of_zero_is_taken() -> None:
    given(company()).when(action("0.00")).then(OPENED, taken("0.00", limits=ANY, authority="own"))


# ---------------------------------------------------------------------- limits of one action


@rule("one action is at most the limit of the role, the team or the trial")
def test_an_action_above_the_roles_limit_is_escalated() -> None:
    reason = why("per_action", limit="50.00", used="0.00", asked="50.01")
    given(company()).when(action("50.01")).then(
        OPENED,
        fell_short("50.01", "escalate", reason),
        answer={"outcome": "escalate", "reasons": [reason], "budget": balance("agent:A-7", "200.00")},
    )


@rule("`unlimited` is a limit; the budget still holds")
def test_an_unlimited_kind_may_use_the_whole_budget() -> None:
    given(company()).when(action("200.00", kind="fix")).then(
        OPENED, taken("200.00", authority="own", limits=met(per_action=(None, "0.00"), budget=("200.00", "0.00")))
    )


def test_an_unlimited_kind_is_bounded_by_the_budget() -> None:
    reason = why("budget", limit="200.00", used="0.00", asked="200.01")
    given(company()).when(action("200.01", kind="fix")).then(OPENED, fell_short("200.01", "escalate", reason))


@rule("one action is at most the remaining budget of the agent")
def test_an_action_above_the_remaining_budget_is_escalated() -> None:
    reason = why("budget", limit="200.00", used="150.01", asked="50.00")
    given(company(), taken("150.01", kind="fix")).when(action("50.00")).then(fell_short("50.00", "escalate", reason))


def test_an_action_may_use_exactly_the_rest_of_the_budget() -> None:
    given(company(), taken("150.00", kind="fix")).when(action("50.00")).then(
        taken("50.00", limits=ANY, authority="own"),
        answer={"budget": balance("agent:A-7", "200.00", spent="200.00")},
    )


def test_a_reserved_amount_is_not_there_to_be_spent() -> None:
    reason = why("budget", limit="200.00", used="180.00", asked="20.01")
    given(company(), held_action("180.00", kind="fix")).when(action("20.01")).then(
        fell_short("20.01", "escalate", reason)
    )


def test_an_action_beyond_several_limits_names_each_of_them() -> None:
    given(company()).when(action("250.00", interaction_id="I-1", customer_id="C-9")).then(
        OPENED,
        fell_short(
            "250.00",
            "escalate",
            why("per_action", limit="50.00", used="0.00", asked="250.00"),
            why("per_interaction", limit="60.00", used="0.00", asked="250.00"),
            why("per_customer", limit="100.00", used="0.00", asked="250.00"),
            why("budget", limit="200.00", used="0.00", asked="250.00"),
        ),
    )


@rule("a team may have limits of its own")
def test_a_team_may_have_a_limit_of_its_own() -> None:
    teams = {"doorstep": {"pool": "40.00", "draw_at_most": "30.00", "limits": {"agent": {"refund": "60.00"}}}}
    given(company(teams=teams)).when(action("60.00", "D-1")).then(
        opened("agent:D-1", "200.00"),
        taken("60.00", "D-1", authority="own", limits=met(per_action=("60.00", "0.00"), budget=("200.00", "0.00"))),
    )


def test_a_teams_limit_is_not_for_other_teams() -> None:
    teams = {"doorstep": {"limits": {"agent": {"refund": "60.00"}}}}
    reason = why("per_action", limit="50.00", used="0.00", asked="60.00")
    given(company(teams=teams)).when(action("60.00")).then(OPENED, fell_short("60.00", "escalate", reason))


@pytest.mark.parametrize(("team_id", "outcome"), [("gold", "taken"), ("phone", "escalate"), (None, "escalate")])
def test_of_an_agents_teams_the_one_in_the_request_comes_first(team_id: str | None, outcome: str) -> None:
    teams = {"gold": {"limits": {"agent": {"refund": "60.00"}}}, "phone": {"limits": {"agent": {"refund": "40.00"}}}}
    found = given(company(teams=teams), joined("A-9", "agent", "phone", "gold")).when(
        action("60.00", "A-9", team_id=team_id)
    )
    assert found.answer["outcome"] == outcome


def test_a_team_in_the_request_that_is_not_the_agents_is_ignored() -> None:
    teams = {"gold": {"limits": {"agent": {"refund": "60.00"}}}}
    found = given(company(teams=teams)).when(action("60.00", team_id="gold"))
    assert found.answer["outcome"] == "escalate"


# ---------------------------------------------------------------------- kinds and training


@rule("a kind that the role lacks is escalated if another role has it")
def test_a_kind_of_another_role_is_escalated() -> None:
    given(company()).when(action("5.00", kind="credit")).then(
        OPENED, fell_short("5.00", "escalate", why("kind", asked="5.00"))
    )


@rule("a kind that no role has is refused")
def test_a_kind_that_no_role_gives_is_refused() -> None:
    given(company()).when(action("5.00", kind="gift")).then(
        OPENED, fell_short("5.00", "refused", why("kind", asked="5.00")), answer={"outcome": "refused"}
    )


def test_a_kind_that_only_a_team_gives_is_escalated_for_others() -> None:
    teams = {"doorstep": {"limits": {"agent": {"gift": "5.00"}}}}
    given(company(teams=teams)).when(action("5.00", kind="gift")).then(
        OPENED, fell_short("5.00", "escalate", why("kind", asked="5.00"))
    )


@rule("a kind may require a course, which may expire")
def test_a_kind_that_requires_a_course_is_escalated_without_it() -> None:
    given(company()).when(action("5.00", kind="keep_item")).then(
        OPENED, fell_short("5.00", "escalate", why("training", asked="5.00"))
    )


def test_a_completed_course_opens_its_kind_and_is_recorded() -> None:
    given(company(), trained("A-7")).when(action("5.00", kind="keep_item")).then(
        OPENED, taken("5.00", training=("goodwill-basics",), limits=ANY, authority="own")
    )


@pytest.mark.parametrize(
    ("until", "outcome"), [("2026-03-10T09:00:01Z", "taken"), ("2026-03-10T09:00:00Z", "escalate")]
)
def test_a_course_gives_authority_until_it_expires(until: str, outcome: str) -> None:
    found = given(company(), trained("A-7", valid_until=until)).when(action("5.00", kind="keep_item"))
    assert found.answer["outcome"] == outcome


def test_another_course_opens_nothing() -> None:
    found = given(company(), trained("A-7", "first-aid")).when(action("5.00", kind="keep_item"))
    assert found.answer["outcome"] == "escalate"


def test_a_course_of_one_agent_opens_nothing_for_another() -> None:
    found = given(company(), trained("A-8")).when(action("5.00", kind="keep_item"))
    assert found.answer["outcome"] == "escalate"


# ---------------------------------------------------------------------- entitlement and correction


PAID = paid("O-1", "1000.00")


def test_a_correction_that_is_owed_meets_no_limit() -> None:
    given(company(), PAID).when(action("900.00", basis="correction", order_id="O-1")).then(
        OPENED,
        taken("900.00", limits=ANY, authority="own", owed="900.00"),
        order_charged("O-1", "900.00", paid="1000.00", used="0.00"),
    )


@pytest.mark.parametrize("basis", ["entitlement", "correction"])
def test_what_is_owed_is_not_spent_from_the_budget(basis: str) -> None:
    given(company(), PAID).when(action("30.00", basis=basis, order_id="O-1")).then(
        OPENED,
        taken("30.00", basis=basis, limits=ANY, authority="own", owed="30.00"),
        answer={"budget": balance("agent:A-7", "200.00")},
    )


def test_an_entitlement_may_be_of_a_kind_that_no_role_gives() -> None:
    found = given(company(), PAID).when(action("5.00", kind="gift", basis="entitlement", order_id="O-1"))
    assert found.answer["outcome"] == "taken"


@pytest.mark.parametrize("basis", ["goodwill", "entitlement", "correction"])
def test_an_employee_who_has_left_gives_on_no_basis(basis: str) -> None:
    given(company(), left("A-7")).when(action("5.00", basis=basis)).then(
        OPENED, fell_short("5.00", "refused", why("left"), basis=basis)
    )


# ---------------------------------------------------------------------- people, sources, policies


@rule("employees who have left may not act")
def test_an_employee_who_has_left_may_not_act() -> None:
    given(company(), left("A-7")).when(action("5.00")).then(
        OPENED, fell_short("5.00", "refused", why("left")), answer={"outcome": "refused"}
    )


@pytest.mark.parametrize("order", list(permutations(("changed", "left", "again"))))
def test_a_change_does_not_bring_a_leaver_back(order: tuple[str, ...]) -> None:
    """Whichever comes first: a change may be told late, or for a whole team."""
    told = {"changed": moved("A-7", "agent", "chat"), "left": left("A-7"), "again": moved("A-7", "manager")}
    scenario = given(company(), [told[name] for name in order])
    assert scenario.when(action("5.00")).answer["outcome"] == "refused"
    scenario.add(joined("A-7", "agent", "phone"))
    assert scenario.when(action("5.00")).answer["outcome"] == "taken"


def test_rules_of_earlier_versions_take_a_change_for_a_return() -> None:
    staff = given(company(), left("A-7"), moved("A-7", "agent")).state.staff
    assert staff.has_left("A-7")
    staff.judge_by(2)
    agent = staff.agent("A-7", None)
    assert agent is not None
    assert not agent.left
    staff.judge_by(RULES_VERSION)
    assert staff.has_left("A-7")


def test_an_employee_who_joins_again_may_act() -> None:
    found = given(company(), left("A-7"), joined("A-7", "agent", "phone")).when(action("5.00"))
    assert found.answer["outcome"] == "taken"


@rule("a source acts only for its roles")
def test_a_source_may_not_act_for_a_role_that_the_policy_does_not_give_it() -> None:
    sources = {"crm": ["agent", "manager"], "desk": ["manager"]}
    given(company(sources=sources)).when(action("5.00"), source="desk").then(
        OPENED, fell_short("5.00", "refused", why("source"))
    )


@pytest.mark.parametrize(("source", "outcome"), [("crm", "taken"), ("unlisted", "refused")])
def test_a_source_that_the_policy_does_not_list_acts_for_no_role(source: str, outcome: str) -> None:
    found = given(company(sources={"crm": ["agent"]})).when(action("5.00", basis="correction"), source=source)
    assert found.answer["outcome"] == outcome


@rule("without a policy in force no action is allowed")
def test_without_a_policy_an_action_is_refused_and_recorded() -> None:
    given(STAFF).when(action("5.00")).then(
        fell_short("5.00", "refused", why("no_policy"), policy_version=None, role=None, holder=None, period=None),
        answer={"outcome": "refused", "policy_version": None, "budget": None},
    )


def test_a_policy_that_has_not_begun_allows_nothing() -> None:
    later = published(policy(effective_from="2026-03-11T00:00:00Z"))
    found = given(later, STAFF).when(action("5.00"))
    assert found.answer["outcome"] == "refused"


def test_before_a_refusal_for_lack_of_a_policy_the_decider_reads_on() -> None:
    given(STAFF).when(action("5.00"), current=False).retries(Retry.AFTER_CATCH_UP)


@rule("without a `default_role`, an agent that no fact announced is unknown")
def test_an_unknown_agent_is_an_error() -> None:
    given(company()).when(action("5.00", "A-99")).refused_with("unknown_agent", "agent_id")


def test_before_an_agent_is_unknown_the_decider_reads_on() -> None:
    given(company()).when(action("5.00", "A-99"), current=False).retries(Retry.AFTER_CATCH_UP)


@rule("an agent that no fact announced has the `default_role`")
def test_an_agent_that_no_fact_announced_has_the_default_role() -> None:
    given(company(default_role="agent")).when(action("5.00", "A-99")).then(
        opened("agent:A-99", "200.00"), taken("5.00", "A-99", role="agent", limits=ANY, authority="own")
    )


def test_a_new_role_changes_the_limits_at_once() -> None:
    given(company(), moved("A-7", "manager")).when(action("450.00", basis="goodwill")).then(
        opened("agent:A-7", "2000.00"),
        taken(
            "450.00",
            role="manager",
            authority="own",
            limits=met(per_action=("500.00", "0.00"), budget=("2000.00", "0.00")),
        ),
    )


@rule("a new role changes the limits at once, and the grant at the next opening")
def test_a_new_role_does_not_change_an_open_budget() -> None:
    given(company(), taken("5.00"), moved("A-7", "manager")).when(action("196.00")).then(
        fell_short("196.00", "escalate", why("budget", limit="200.00", used="5.00", asked="196.00"))
    )


@rule("goodwill is given in the currency of the policy")
def test_goodwill_in_another_currency_is_an_error() -> None:
    given(company()).when(action("5.00 EUR")).refused_with("currency", "amount.currency")


def test_an_amount_in_a_currency_that_has_ended_is_an_error() -> None:
    given(company()).when(action("5.00 HRK", basis="correction")).refused_with("invalid", "amount.currency")


def test_the_id_of_an_action_follows_from_source_and_request_id() -> None:
    given(company()).when(action("5.00"), source="shop", request_id="order-7").then(
        OPENED,
        taken(
            "5.00",
            action_id="act-" + hashlib.sha256(b"shop\norder-7").hexdigest()[:32],
            source="shop",
            request_id="order-7",
            limits=ANY,
            authority="own",
        ),
    )
