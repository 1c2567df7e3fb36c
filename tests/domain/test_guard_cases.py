"""Cases: joined by subject, ranked, opened within the capacity; sleep after a dismissal; late facts."""

from datetime import UTC, datetime

import pytest

from domain.abuse.cases import PRIOR, CaseDraft, prior_of, strength
from domain.abuse.guard import Guard
from domain.abuse.history import GuardEvent
from domain.events import decisions, facts
from domain.money import Money
from domain.policy.parsing import PolicyError, parse_policy
from tests.support.documents import Document
from tests.support.guard_story import GUARDED_POLICY, Story

CAUSE: Document = {"source": "crm", "request_id": "r", "seen_position": 0}


def with_capacity(cases_per_week: float) -> Story:
    """Return a story under a policy with a capacity."""
    story = Story()
    policy = GUARDED_POLICY | {"cases_per_week": cases_per_week}
    story.tell(decisions.PolicyPublished(**CAUSE, policy=policy, version=2, published_by="owner", sha256="1"))
    return story


def people_work(story: Story, people: int = 100) -> None:
    for number in range(people):
        story.gives(f"A-{number}", 5, interaction=story.contact(f"A-{number}"))


def is_refused(story: Story, agent: str, times: int = 1) -> None:
    """Let attempts at self-dealing be refused, each to another own account: flags of R4 without a loss."""
    for number in range(times):
        reason = decisions.Reason(rule="self_dealing", message="no")
        story.falls_short(1, "refused", reasons=(reason,), customer_id=f"{agent}-own{number}", agent_id=agent)


def gives_to_own(story: Story, agent: str, amount: float) -> None:
    """Report a gift to oneself, so that R4 flags it."""
    story.gives(agent, amount, customer=agent, reported=True, limit=None)


def nights(story: Story, number: int = 1) -> list[CaseDraft]:
    """Let nights pass; return the events of cases."""
    found = story.guard.take_cases()
    for _ in range(number):
        story.night()
        found += story.guard.take_cases()
    return found


def test_flags_about_one_subject_are_one_case() -> None:
    story = with_capacity(10)
    people_work(story)
    gives_to_own(story, "A-1", 15)
    story.gives("A-1", 35, reported=True)
    (case,) = nights(story)
    assert (case.state, case.subject, case.rules, len(case.flag_ids)) == ("opened", "agent:A-1", ("R4", "R14"), 2)


def test_flags_about_two_people_join_the_case_of_either() -> None:
    story = with_capacity(0)
    gives_to_own(story, "A-2", 15)
    for number in range(4):
        for giver, receiver in (("A-1", "A-2"), ("A-2", "A-1")):
            fields: Document = {"recognition_id": f"t-{giver}-{number}", "giver_id": giver, "receiver_id": receiver}
            story.tell(facts.RecognitionGiven(**fields, reason="thanks", points=10))
    (case,) = nights(story)
    assert (case.subject, case.rules) == ("agent:A-2", ("R4", "R11"))
    assert set(case.about) == {"agent:A-1", "agent:A-2", "customer:A-2"}


def test_the_capacity_opens_the_best_cases_and_the_rest_stays_visible_below_the_line() -> None:
    story = with_capacity(2)
    people_work(story)
    for number, amount in enumerate((5, 500, 50, 5_000)):
        gives_to_own(story, f"A-{number}", amount)
    first = nights(story)
    assert [(one.state, one.subject, one.rank) for one in first] == [
        ("opened", "agent:A-3", 1),
        ("opened", "agent:A-1", 2),
        ("ranked", "agent:A-2", 3),
        ("ranked", "agent:A-0", 4),
    ]
    assert first[0].loss is not None
    assert first[0].loss[0] > first[3].loss[0] if first[3].loss else False


def test_a_case_below_the_line_is_opened_as_the_capacity_grows() -> None:
    story = with_capacity(2)
    people_work(story)
    for number in range(3):
        gives_to_own(story, f"A-{number}", 100 - number)
    assert [one.state for one in nights(story)] == ["opened", "opened", "ranked"]
    assert nights(story, 2) == []
    (late,) = nights(story, 3)
    assert (late.state, late.subject, late.number) == ("opened", "agent:A-2", 2)


@pytest.mark.parametrize(("people", "opened"), [(20, 1), (100, 2), (400, 8)])
def test_the_capacity_is_a_number_for_100_people_and_never_below_one_case(people: int, opened: int) -> None:
    story = with_capacity(2)
    people_work(story, people)
    for number in range(min(people, 12)):
        gives_to_own(story, f"A-{number}", 50)
    assert sum(one.state == "opened" for one in nights(story)) == opened


def test_a_capacity_of_nothing_opens_nothing() -> None:
    story = with_capacity(0)
    people_work(story)
    gives_to_own(story, "A-1", 50)
    assert [one.state for one in nights(story, 20)] == ["ranked"]


def test_a_case_that_is_more_likely_wrong_than_right_is_never_opened() -> None:
    """One refused attempt at a relation's matter in a hundred people's work may be a mistake; five may not."""
    story = with_capacity(10)
    people_work(story)
    is_refused(story, "A-1")
    is_refused(story, "A-2", times=5)
    found = {one.subject: one.state for one in nights(story, 20)}
    assert found == {"agent:A-1": "ranked", "agent:A-2": "opened"}


def test_agreement_of_rules_ranks_above_one_rule_of_the_same_amount() -> None:
    story = with_capacity(0)
    people_work(story)
    gives_to_own(story, "A-1", 19)
    gives_to_own(story, "A-2", 19)
    is_refused(story, "A-2")
    story.gives("A-2", 1, reported=True, customer="A-2-own0")
    found = [one for one in nights(story) if one.state == "ranked"]
    assert [one.subject for one in sorted(found, key=lambda one: one.rank)] == ["agent:A-2", "agent:A-1"]


def test_currencies_are_ranked_by_their_own_usual_amounts() -> None:
    story = with_capacity(0)
    people_work(story)
    for number in range(30):
        story.tell(
            facts.ActionReported(
                agent_id=f"J-{number}",
                kind="refund",
                amount=Money(50_000, "JPY"),
                reason="late",
                customer_id=f"J{number}",
            ),
            action_id=f"jpy-{number}",
        )
    own: Document = {"kind": "refund", "reason": "late", "customer_id": "J-1", "agent_id": "J-1"}
    story.tell(facts.ActionReported(**own, amount=Money(60_000, "JPY")), action_id="own")
    gives_to_own(story, "A-1", 60)
    found = sorted(nights(story), key=lambda one: one.rank)
    assert [one.subject for one in found] == ["agent:A-1", "agent:J-1"]
    assert found[1].loss == (36_000, "JPY")


def test_a_case_says_where_to_look_first_beside_peers_numbers() -> None:
    story = with_capacity(10)
    people_work(story)
    gives_to_own(story, "A-1", 15)
    (case,) = nights(story)
    assert case.explanation == (
        "Look first at R4: A-1 gave 15.00 GBP to A-1: the agent's own group. "
        f"The largest amount is at position {len(story.seen) - 1}. "
        "In 30 days A-1 took 2 actions of 20.00 GBP; the median of 99 peers in the same role is 1 actions of 5.00 GBP."
    )


def test_a_case_is_closed_with_its_last_review_and_the_next_flag_opens_another() -> None:
    story = with_capacity(10)
    people_work(story)
    gives_to_own(story, "A-1", 15)
    (first,) = nights(story)
    story.guard.reviewed(first.flag_ids[0], len(story.seen), "confirmed", story.seen[-1].recorded)
    gives_to_own(story, "A-1", 16)
    (second,) = nights(story)
    assert (second.state, second.rules, second.case_id != first.case_id) == ("opened", ("R4",), True)


def test_new_evidence_updates_an_open_case() -> None:
    story = with_capacity(10)
    people_work(story)
    gives_to_own(story, "A-1", 15)
    (first,) = nights(story)
    story.gives("A-1", 35, reported=True)
    (second,) = nights(story)
    assert (second.case_id, second.number, second.state, second.rules) == (first.case_id, 2, "updated", ("R4", "R14"))


# ---------------------------------------------------------------- dismissals


def dismissed(story: Story) -> None:
    story.guard.reviewed(story.raised[-1].flag_id, len(story.seen), "dismissed", story.seen[-1].recorded)


def test_a_dismissed_pattern_sleeps_until_its_amount_doubles() -> None:
    story = Story()
    gives_to_own(story, "A-1", 10)
    dismissed(story)
    gives_to_own(story, "A-1", 4)
    gives_to_own(story, "A-1", 5)
    assert story.rules() == ["R4"]
    gives_to_own(story, "A-1", 1)
    assert story.rules() == ["R4", "R4"]
    assert story.raised[-1].finding.evidence == tuple(len(story.seen) - number for number in (2, 1, 0))


def test_a_dismissed_pattern_sleeps_for_90_days() -> None:
    story = Story()
    gives_to_own(story, "A-1", 10)
    dismissed(story)
    story.later(89 * 24)
    gives_to_own(story, "A-1", 1)
    assert story.rules() == ["R4"]
    story.later(91 * 24)
    gives_to_own(story, "A-1", 1)
    assert story.rules() == ["R4", "R4"]


def test_a_dismissal_puts_no_other_rule_and_no_other_person_to_sleep() -> None:
    story = Story()
    gives_to_own(story, "A-1", 10)
    dismissed(story)
    gives_to_own(story, "A-2", 1)
    story.gives("A-1", 35, reported=True)
    assert story.rules() == ["R4", "R4", "R14"]


# ---------------------------------------------------------------- late facts


def reports_entitlement(story: Story) -> None:
    """Report an entitlement far beyond the limit, for an order that no payment shows, and wait for late facts."""
    story.gives("A-1", 500, 2, reported=True, basis="entitlement", order="O-late")
    assert story.waits() == ["R14"]


def test_a_late_fact_that_would_acquit_is_shown_and_does_not_close() -> None:
    story = Story()
    reports_entitlement(story)
    nights(story)
    story.tell(facts.PurchaseCompleted(order_id="O-late", total=Money(50_000, "GBP")), 1.5)
    update = story.raised[-1]
    assert (update.number, update.finding.rule) == (2, "R14")
    assert update.finding.explanation.endswith(
        f"; a fact of an earlier time that was recorded after the flag (position {len(story.seen)}, order O-late) would "
        "speak for the subject"
    )
    (case,) = nights(story)
    assert (case.state, "would speak for the subject" in case.explanation) == ("updated", True)


def test_a_fact_of_a_later_time_is_no_late_fact() -> None:
    story = Story()
    reports_entitlement(story)
    story.tell(facts.PurchaseCompleted(order_id="O-late", total=Money(50_000, "GBP")), 10)
    assert [one.number for one in story.raised] == [1]


# ---------------------------------------------------------------- determinism and settings


def test_the_same_history_gives_the_same_cases() -> None:
    story = with_capacity(1)
    people_work(story, 30)
    for number in range(4):
        gives_to_own(story, f"A-{number}", 10 + number)
        nights(story)
    story.guard.take_cases()
    sides = [Guard(), Guard()]
    found: list[list[CaseDraft]] = [[], []]
    for place, seen in enumerate(story.seen):
        for side, cases in zip(sides, found, strict=True):
            side.take(seen)
            if side is sides[0] or place % 7 == 0:
                cases.extend(side.take_cases())
    found[1] += sides[1].take_cases()
    assert found[0] == found[1]
    assert found[0]


def test_a_night_without_events_changes_nothing_but_the_capacity() -> None:
    story = with_capacity(2)
    people_work(story)
    for number in range(3):
        gives_to_own(story, f"A-{number}", 50)
    nights(story)
    week_later = story.seen[-1].recorded + 7 * 86_400
    story.guard.take(GuardEvent(999, week_later, week_later, facts.ShiftStarted(employee_id="x")))
    (case,) = story.guard.take_cases()
    assert case.state == "opened"
    assert datetime.fromtimestamp(case.recorded, UTC).hour == 3


@pytest.mark.parametrize("value", [-1, 101, "2", True, None])
def test_a_capacity_is_a_number(value: object) -> None:
    with pytest.raises(PolicyError, match="cases_per_week"):
        parse_policy(GUARDED_POLICY | {"cases_per_week": value})


@pytest.mark.parametrize(
    ("rule", "p", "number", "expected"),
    [
        ("R1", 2.5e-4, 1, 0.5),
        ("R1", 2.5e-5, 1, 0.909),
        ("R10", 2.5e-4, 1, 0.333),
        ("R1", 0.5, 9, 0.0),
        ("R1", None, 1, 0.6),
        ("R1", None, 3, 0.936),
    ],
)
def test_the_strength_of_a_flag(rule: str, p: float | None, number: int, expected: float) -> None:
    assert strength(rule, p, number) == pytest.approx(expected, abs=0.001)


def test_much_that_is_hardly_chance_raises_the_prior_and_nothing_lowers_it_to_nothing() -> None:
    """By hand: (0.001 * 100 + 2 * 20 / 18) / (100 + 100), less what honest people would have."""
    assert prior_of(0, 0) == pytest.approx(PRIOR)
    assert prior_of(0, 100) == pytest.approx(PRIOR / 2)
    assert prior_of(20, 100) == pytest.approx((0.1 + 2 * 20 / 18) / 200, rel=0.01)
    assert 0 < prior_of(0, 100_000) < PRIOR
    assert prior_of(20, 100_000) == prior_of(0, 100_000)  # as many come by chance


def test_a_review_changes_nothing_in_the_prior() -> None:
    """A dismissed pattern sleeps, and what is found of it meanwhile counts as it would without the review."""
    priors = []
    for is_reviewed in (False, True):
        story = with_capacity(0)
        people_work(story, 30)
        for number in range(14):
            for giver, receiver in (("A-1", "A-2"), ("A-2", "A-1")):
                fields: Document = {"recognition_id": f"t-{giver}-{number}", "giver_id": giver, "receiver_id": receiver}
                story.tell(facts.RecognitionGiven(**fields, reason="thanks", points=10))
            if number == 9:
                if is_reviewed:
                    flag = story.raised[0]
                    story.guard.reviewed(flag.flag_id, len(story.seen), "dismissed", story.seen[-1].recorded)
                story.later(60 * 24)
        for day in range(61, 121):  # the first findings are forgotten, the last ones are not
            story.gives("A-9", 5, day * 24)
        priors.append(story.guard.cases.prior)
    assert priors[0] == priors[1] > prior_of(0, 30)
