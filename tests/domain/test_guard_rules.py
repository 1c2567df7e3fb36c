"""The guard's rules as stories: each fires on its pattern, and leaves the nearest honest neighbours alone."""

from datetime import UTC, datetime
from math import log
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.abuse.guard import RULES
from domain.abuse.rules.r09_outlier import Others
from domain.events import decisions, facts
from domain.money import Money
from tests.support.documents import Document
from tests.support.guard_story import Story

CAUSE: Document = {"source": "crm", "request_id": "r", "seen_position": 0}


def test_there_are_eighteen_rules() -> None:
    assert list(RULES) == [f"R{number}" for number in range(1, 19)]


def test_honest_days_raise_nothing() -> None:
    story = Story()
    story.ordinary(days=40)
    assert story.rules() == []


# ---------------------------------------------------------------- R1


def test_r1_amounts_that_crowd_below_the_limit() -> None:
    story = Story()
    story.ordinary()
    for number in range(15):
        story.gives("A-0", 19.0 + number % 10 / 10)
    story.night()
    assert story.rules() == ["R1"]
    assert "of the limit of 20.00 GBP" in story.raised[0].finding.explanation


def test_r1_a_flat_fee_that_all_agents_refund_is_no_pattern() -> None:
    story = Story()
    story.ordinary()
    for number in range(100):
        story.contact(f"A-{number % 12}")
        story.gives("A-0" if number % 3 else f"A-{number % 12}", 19.99, kind="fee_waiver", interaction=f"fee-{number}")
    story.night()
    assert "R1" not in story.rules()


def test_r1_the_limit_itself_for_larger_matters_is_no_pattern_where_another_gives_it_too() -> None:
    """An amount that the agent alone gives is one: it is no price of the company."""
    for other, rules in (("A-1", []), ("A-0", ["R1"])):
        story = Story()
        story.ordinary()
        story.gives(other, 20.0)
        for _ in range(12):
            story.gives("A-0", 20.0)
        story.night()
        assert story.rules() == rules


# ---------------------------------------------------------------- R2


def test_r2_split_after_the_answer_was_to_ask() -> None:
    story = Story()
    story.falls_short(35, order_id="O-1")
    story.gives("A-1", 18, order="O-1")
    assert story.rules() == []
    story.gives("A-1", 17, order="O-1")
    assert story.rules() == ["R2"]
    assert story.raised[0].finding.evidence == (2, 3, 4)


def test_r2_split_three_times() -> None:
    story = Story()
    for order in ("O-1", "O-2", "O-3"):
        for _ in range(2):
            story.gives("A-1", 15, order=order)
    assert story.rules() == ["R2"]


def test_r2_two_gifts_for_one_order_within_the_limit_or_by_two_agents_are_no_split() -> None:
    story = Story()
    for order in ("O-1", "O-2", "O-3"):
        story.gives("A-1", 8, order=order)
        story.gives("A-1", 9, order=order)
        story.gives("A-2", 15, order=order)
    assert story.rules() == []


# ---------------------------------------------------------------- R3


def test_r3_a_favourite_customer() -> None:
    story = Story()
    story.ordinary(days=20)
    for day in range(12):
        story.gives("A-1", 10, customer="friend", order=f"O-{day}", interaction=story.contact("A-1", customer="friend"))
        story.later((21 + day) * 24)
    story.night()
    assert "R3" in story.rules()


def test_r3_an_account_manager_among_account_managers_has_no_favourite() -> None:
    """Eight gifts on as many contacts: all customers of the desk meet one agent as often, and get as much."""
    story = Story()
    for day in range(8):
        for agent in range(6):
            for customer in range(4):
                interaction = story.contact(f"A-{agent}", customer=f"C-{agent}-{customer}")
                if (day + customer) % 2 or customer == 0:
                    story.gives(f"A-{agent}", 10, customer=f"C-{agent}-{customer}", interaction=interaction)
        story.later((day + 1) * 24)
    story.night()
    assert "R3" not in story.rules()


def test_r3_a_regular_on_the_drivers_own_route_is_no_favourite() -> None:
    story = Story()
    story.ordinary(days=20)
    for _ in range(30):
        story.contact("A-1", customer="regular")
    for day in range(5):
        story.gives("A-1", 10, customer="regular", order=f"O-{day}")
    story.night()
    assert "R3" not in story.rules()


# ---------------------------------------------------------------- R4


def test_r4_for_oneself_ones_group_or_a_declared_relation() -> None:
    story = Story()
    story.tell(facts.RelationshipDeclared(employee_id="A-1", customer_id="C-sister", nature="family"))
    story.tell(facts.CustomerLinked(a="C-sister", b="C-husband", relation="household"))
    story.gives("A-1", 5, customer="A-1", reported=True)
    story.gives("A-1", 5, customer="C-husband", reported=True)
    story.gives("A-2", 5, customer="C-husband", reported=True)
    assert story.rules() == ["R4", "R4"]
    reason = decisions.Reason(rule="self_dealing", message="no")
    story.falls_short(1, "refused", reasons=(reason,), customer_id="A-1")
    assert story.rules() == ["R4", "R4", "R4"]


# ---------------------------------------------------------------- R5


def decided(story: Story, asker: str, decider: str, number: int, *, yes: bool = True, matter: str = "") -> None:
    escalation = f"esc-{asker}-{decider}-{number}-{yes}-{matter}"
    common: Document = {"escalation_id": escalation, "agent_id": asker, "amount": Money(5000, "GBP")}
    story.tell(
        decisions.EscalationRequested(
            **CAUSE,
            **common,
            action_id="act-x",
            role="agent",
            kind="refund",
            basis="goodwill",
            reason="r",
            reasons=(),
            payer="team",
            to=(decider,),
            due=datetime(2026, 2, 1, tzinfo=UTC),
            policy_version=1,
            budget=f"agent:{asker}",
            period="2026-01",
            currency="GBP",
            interaction_id=matter or f"I-{escalation}",
        )
    )
    step = {
        **CAUSE,
        **common,
        "budget": f"agent:{asker}",
        "period": "2026-01",
        "waited_seconds": 60.0,
        "decided_by": decider,
    }
    if yes:
        story.tell(decisions.EscalationApproved(**step, asked=Money(5000, "GBP"), action_id="act-x", paid_by="team:x"))
    else:
        story.tell(decisions.EscalationDenied(**step))


def test_r5_two_managers_approve_for_each_other() -> None:
    story = Story()
    for number in range(5):
        decided(story, "M-1", "M-2", number)
        decided(story, "M-2", "M-1", number)
    assert story.rules() == ["R5"]


def test_r5_an_agent_whose_requests_are_approved_unlike_all_others() -> None:
    story = Story()
    for number in range(12):
        decided(story, f"A-{number}", "M-1", number, yes=number % 3 == 0)
        decided(story, "A-fav", "M-1", number)
    assert story.rules() == ["R5"]


def test_r5_a_manager_who_approves_nearly_everything_favours_no_agent() -> None:
    story = Story()
    for number in range(20):
        decided(story, f"A-{number % 5}", "M-1", number, yes=number % 10 != 0)
        decided(story, "A-often", "M-1", number)
    assert story.rules() == []


def test_r5_denied_then_approved_by_another_three_times() -> None:
    story = Story()
    for number in range(3):
        decided(story, "A-1", "M-1", number, yes=False, matter=f"I-{number}")
        decided(story, "A-1", "M-2", number, matter=f"I-{number}")
    assert story.rules() == ["R5"]


# ---------------------------------------------------------------- R6


def worked(story: Story, evenings: int, forgotten: int = 0) -> None:
    """Let six agents work for twenty days; A-0 acts on some evenings, and each one forgets to clock in on some days."""
    for day in range(20):
        for agent in range(6):
            if (7 * day + 3 * agent) % 20 >= forgotten:
                story.tell(facts.ShiftStarted(employee_id=f"A-{agent}"), day * 24 + 9)
        for agent in range(6):
            story.gives(f"A-{agent}", 5, day * 24 + 12 + agent / 10)
        for agent in range(6):
            if (7 * day + 3 * agent) % 20 >= forgotten:
                story.tell(facts.ShiftEnded(employee_id=f"A-{agent}"), day * 24 + 17)
        if day % 4 == 3 and day // 4 < evenings:
            story.gives("A-0", 5, day * 24 + 20.5)
    story.later(23 * 24)
    story.night()


def test_r6_evenings_outside_any_shift_where_peers_have_none() -> None:
    story = Story()
    worked(story, evenings=4)
    assert story.rules() == ["R6"]
    assert "4 of 16 days in 35 days; 1.0% of them are usual" in story.raised[0].finding.explanation


def test_r6_shifts_that_all_forget_to_record_are_no_pattern() -> None:
    story = Story()
    worked(story, evenings=0, forgotten=3)
    assert story.rules() == []


def test_r6_after_having_left() -> None:
    story = Story()
    story.tell(facts.EmployeeLeft(employee_id="A-2"), 22.1)
    story.gives("A-2", 5, 25)
    assert story.rules() == []  # late facts may come yet
    story.later(26)
    assert story.rules() == ["R6"]


def test_r6_a_change_does_not_bring_a_leaver_back() -> None:
    story = Story()
    story.tell(facts.EmployeeLeft(employee_id="A-2"), 22.1)
    story.tell(facts.EmployeeChanged(employee_id="A-2", role="agent", team_ids=()), 23)
    story.gives("A-2", 5, 25)
    story.later(26)
    assert story.rules() == ["R6"]


def test_r6_a_call_that_ends_after_the_shift_a_night_shift_and_late_facts() -> None:
    story = Story()
    story.tell(facts.ShiftStarted(employee_id="A-1"), 9)
    call = story.contact("A-1", 16.9)
    story.tell(facts.ShiftEnded(employee_id="A-1"), 17)
    story.gives("A-1", 5, 17.8, interaction=call)
    story.tell(facts.ShiftStarted(employee_id="A-2"), 22)
    story.gives("A-2", 5, 26)
    story.tell(facts.ShiftEnded(employee_id="A-2"), 30)
    story.tell(facts.ShiftStarted(employee_id="A-3"), 31)
    story.tell(facts.ShiftEnded(employee_id="A-3"), 32)
    story.gives("A-3", 5, 40)
    story.tell(facts.ShiftStarted(employee_id="A-3"), 39)  # told late
    story.later(50)
    assert story.rules() == []


# ---------------------------------------------------------------- R7


def test_r7_more_than_was_paid() -> None:
    story = Story()
    story.tell(facts.PurchaseCompleted(order_id="O-1", total=Money(1500, "GBP")), 1)
    story.gives("A-1", 10, 2, order="O-1")
    story.gives("A-1", 10, 3, order="O-1")
    story.later(6)
    assert story.rules() == ["R7"]


def sold(story: Story, *, recorded: float) -> None:
    """Let six agents refund orders for five weeks; of so many orders the purchase is recorded, of four of A-0's none."""
    for day in range(36):
        for agent in range(6):
            order, hour = f"O-{day}-{agent}", day * 24 + 9 + agent
            if story.random.random() < recorded and not (agent == 0 and 26 <= day < 30):
                story.tell(facts.PurchaseCompleted(order_id=order, total=Money(5000, "GBP")), hour)
            story.gives(f"A-{agent}", 5, hour + 0.5, order=order)
    story.later(36 * 24)
    story.night()


def test_r7_orders_without_a_purchase_where_peers_have_one() -> None:
    story = Story()
    sold(story, recorded=1.0)
    assert story.rules() == ["R7"]
    assert "orders without a recorded purchase" in story.raised[0].finding.explanation


def test_r7_a_source_that_records_half_of_the_purchases_proves_nothing() -> None:
    story = Story()
    sold(story, recorded=0.5)
    assert story.rules() == []


def test_r7_a_purchase_told_a_moment_late_and_a_history_that_does_not_cover_it() -> None:
    story = Story()
    story.gives("A-1", 10, 0.5, order="O-before-history")
    story.tell(facts.PurchaseCompleted(order_id="O-1", total=Money(1500, "GBP")), 1)
    story.gives("A-1", 10, 2, order="O-2")
    story.tell(facts.PurchaseCompleted(order_id="O-2", total=Money(1500, "GBP")), 2.1)
    story.later(6)
    assert story.rules() == []


# ---------------------------------------------------------------- R8


def test_r8_a_burst_at_as_many_contacts() -> None:
    story = Story()
    story.ordinary()
    for number in range(14):
        story.gives("A-1", 3 + number % 7, interaction="one-contact", customer=f"C-x{number}")
    story.night()
    assert "R8" in story.rules()


def test_r8_a_storm_day_with_ten_times_the_contacts_is_no_burst() -> None:
    story = Story()
    story.ordinary()
    for number in range(60):
        interaction = story.contact("A-1")
        if number % 3 == 0:
            story.gives("A-1", 3 + number % 7, interaction=interaction, customer=f"C-x{number}")
    story.night()
    assert "R8" not in story.rules()


# ---------------------------------------------------------------- R9


def test_r9_far_more_a_contact_than_peers_and_than_before() -> None:
    story = Story()
    story.ordinary(agents=10, days=60)
    for number in range(90):
        story.gives("A-3", 12, interaction=story.contact("A-3"), customer=f"C-y{number}", limit=None)
        story.later(story.hour + 4)
    story.night()
    assert "R9" in story.rules()


def test_r9_one_generous_agent_in_a_generous_team_is_no_outlier() -> None:
    story = Story()
    for agent in range(20):
        team = "generous" if agent < 10 else "careful"
        story.tell(facts.EmployeeJoined(employee_id=f"A-{agent}", role="agent", team_ids=(team,)))
    for day in range(10):
        for agent in range(20):
            for number in range(3):
                interaction = story.contact(f"A-{agent}")
                if agent < 10 or number == 0:
                    amount = (14 if agent < 10 else 2) + story.random.random() * 5
                    story.gives(f"A-{agent}", amount, interaction=interaction, limit=None)
        story.later((day + 1) * 24)
    story.night()
    assert "R9" not in story.rules()


def test_the_modified_z_score_of_the_literature() -> None:
    """Iglewicz and Hoaglin 1993: of 2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3 the last two are outliers (z > 3.5)."""
    values = [2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3]
    distances = {value: Others([*values, value]).without(value) for value in values}
    assert [value for value, (middle, spread) in distances.items() if (value - middle) / spread > 3.5] == [8.2, 8.3]


@given(st.lists(st.floats(0, 1000), min_size=3, max_size=30), st.integers(0, 29))
def test_comparing_one_with_all_others_equals_comparing_one_by_one(values: list[float], place: int) -> None:
    value, others = values[place % len(values)], [*values]
    others.remove(value)
    middle, spread = Others(values).without(value)
    assert middle == pytest.approx(median(others))
    mad = median(abs(other - median(others)) for other in others)
    if mad > 1e-9:
        assert spread == pytest.approx(mad / 0.6745)


# ---------------------------------------------------------------- R10, R11, R12, R13, R14, R15


def test_r10_a_serial_claimant() -> None:
    story = Story()
    for number in range(6):
        story.gives(f"A-{number}", 10, customer="C-claims", order=f"O-{number}", reason=f"reason {number}")
    assert story.rules() == ["R10"]


def test_r10_three_agents_on_one_matter_cover_for_each_other() -> None:
    story = Story()
    for number in range(6):
        story.gives(f"A-{number}", 10, customer="C-1", order="O-1", interaction="I-1", reason="late")
    assert story.rules() == []


def thanked(story: Story, giver: str, receiver: str, number: int) -> None:
    story.tell(
        facts.RecognitionGiven(
            recognition_id=f"t-{giver}-{receiver}-{number}",
            giver_id=giver,
            receiver_id=receiver,
            reason="thanks",
            points=10,
        )
    )


def test_r11_a_ring_of_two() -> None:
    story = Story()
    for number in range(4):
        thanked(story, "A-1", "A-2", number)
        thanked(story, "A-2", "A-1", number)
    assert story.rules() == ["R11"]


def test_r11_a_ring_says_less_in_a_team_whose_members_each_thank_one_colleague() -> None:
    chances = []
    for receivers in (["B-0"] * 30, [f"C-{number}" for number in range(30)]):
        story = Story()
        for name in ("A-1", "A-2", "B-1", "B-2", "B-3"):
            story.tell(facts.EmployeeJoined(employee_id=name, role="agent", team_ids=("team",)))
        for number, receiver in enumerate(receivers):
            thanked(story, f"B-{number % 3 + 1}", receiver, number)
        for number in range(4):
            thanked(story, "A-1", "A-2", 30 + number)
            thanked(story, "A-2", "A-1", 30 + number)
        (flag,) = story.raised
        assert flag.finding.p is not None
        chances.append(flag.finding.p)
    # usual thanks to one colleague, by hand: (3 + 3 * 6) / 6, and (3 + 3 * 1) / 6
    assert chances == [pytest.approx(four_each_way(usual)) for usual in (3.5, 1.0)]


def four_each_way(usual: float) -> float:
    """Return the chance of four thanks or more each way: negative binomial with shape 4, by hand, and Fisher's method."""
    share = usual / (4 + usual)
    fewer = (1 - share) ** 4 * (1 + 4 * share + 10 * share**2 + 20 * share**3)
    return (1 - fewer) ** 2 * (1 - 2 * log(1 - fewer))


def test_r11_colleagues_with_many_thanks_are_no_ring() -> None:
    story = Story()
    for number in range(6):
        for receiver in range(3, 8):
            thanked(story, "A-1", f"A-{receiver}", number)
            thanked(story, "A-2", f"A-{receiver}", number)
        thanked(story, "A-1", "A-2", number)
        thanked(story, "A-2", "A-1", number)
    assert story.rules() == []


def test_r12_raising_oneself() -> None:
    story = Story()
    common: Document = {**CAUSE, "period": "2026-01", "amount": Money(5000, "GBP"), "reason": "x"}
    story.tell(decisions.BudgetGranted(**common, holder="agent:M-1", granted_by="M-1"))
    story.tell(decisions.BudgetGranted(**common, holder="agent:A-1", granted_by="M-1"))
    assert story.rules() == ["R12"]


def noted(story: Story, text: str, users: int) -> None:
    """Let ten agents write notes of their own for twenty days, and then some of them one text on 16 of 20 actions."""
    story.ordinary(agents=10, days=20)
    for number in range(200):
        story.gives(f"A-{number % 10}", 5, note_hash=f"n-{number}")
    story.later(story.hour + 31 * 24)
    for number in range(20):
        for agent in range(10):
            same = agent < users and number % 5
            story.gives(f"A-{agent}", 5, note_hash=text if same else f"m-{number}-{agent}")
        story.later(story.hour + 24)
    story.night()


def test_r13_a_copied_note() -> None:
    story = Story()
    noted(story, "same", users=1)
    assert story.rules() == ["R13"]


def test_r13_an_agent_without_earlier_notes_may_have_a_standing_phrase() -> None:
    story = Story()
    for number in range(40):
        story.gives("A-new", 10, note_hash="phrase" if number % 4 else f"note {number}")
    story.night()
    assert story.rules() == []


def test_r13_a_macro_that_half_of_the_team_pastes_is_no_copy() -> None:
    story = Story()
    noted(story, "macro", users=5)
    assert story.rules() == []


def test_r14_beyond_the_limit_and_after_no() -> None:
    story = Story()
    story.gives("A-1", 35, reported=True)
    story.falls_short(10, interaction_id="I-9")
    story.gives("A-1", 10, reported=True, interaction="I-9")
    story.gives("A-1", 10, reported=True, interaction="I-10")
    assert story.rules() == ["R14", "R14"]


def test_r14_decisions_hide_no_reports() -> None:
    chances = []
    for decided in (0, 60):
        story = Story()
        for number in range(300):
            story.gives(f"A-{number % 6}", 5, number / 10, reported=True)
        for _ in range(decided):
            story.gives("A-9", 5)
        for _ in range(3):
            story.gives("A-9", 35, reported=True)
        chances.append(story.raised[-1].finding.p or 0.0)
    assert 0 < chances[0] == chances[1] < 1e-6


def told_again(story: Story, action_id: str, amount: float) -> None:
    """Report an action that the ledger had decided, for the matter of every action in this story."""
    total = Money(round(amount * 100), "GBP")
    matter: Document = {"interaction_id": "I-9", "customer_id": "C-9"}
    fact = facts.ActionReported(agent_id="A-1", kind="refund", amount=total, reason="late", **matter)
    story.tell(fact, action_id=action_id)


def test_a_report_of_a_decided_action_is_no_second_action() -> None:
    """R2 finds a split: two actions on one matter after the answer was to ask."""
    story = Story()
    story.falls_short(35, interaction_id="I-9", customer_id="C-9")
    action_id = story.gives("A-1", 18, interaction="I-9", customer="C-9")
    told_again(story, action_id, 18)
    assert story.rules() == []
    story.gives("A-1", 17, interaction="I-9", customer="C-9")
    assert story.rules() == ["R2"]


def test_the_report_of_an_action_whose_hold_was_voided_is_an_action() -> None:
    story = Story()
    action_id = story.gives("A-1", 20, interaction="I-9", customer="C-9")
    posted: Document = {"action_id": action_id, "holder": "agent:A-1", "period": "2026-01", "agent_id": "A-1"}
    story.tell(decisions.ActionVoided(**CAUSE, **posted, amount=Money(2000, "GBP"), reason="expired"))
    told_again(story, action_id, 35)
    assert "R14" in story.rules()


@pytest.mark.parametrize(
    ("told", "rules"), [("10.00 GBP", []), ("8.00 GBP", []), ("12.00 GBP", ["R14"]), ("10.00 EUR", ["R14"])]
)
def test_r14_a_report_of_more_than_was_granted(told: str, rules: list[str]) -> None:
    story, reported = Story(), Money.parse(*told.split())
    action_id = story.gives("A-1", 10)
    nothing, decided = Money(0, "GBP"), Money(1000, "GBP")
    posted: Document = {"action_id": action_id, "holder": "agent:A-1", "period": "2026-01", "agent_id": "A-1"}
    posted |= {"amount": nothing, "overdrawn": nothing, "relates_to": 2, "decided": decided, "reported": reported}
    story.tell(decisions.ActionCharged(**CAUSE, **posted))
    assert story.rules() == rules


def test_r15_taking_and_reversing_again_and_again() -> None:
    story = Story()
    for _ in range(3):
        action_id = story.gives("A-1", 10)
        story.tell(
            decisions.ActionReversed(
                **CAUSE,
                action_id=action_id,
                holder="agent:A-1",
                period="2026-01",
                amount=Money(1000, "GBP"),
                agent_id="A-1",
                recovered=True,
                reversed_by="A-1",
                reason="x",
                relates_to=1,
            )
        )
    assert story.rules() == ["R15"]
