"""The policy in force at a moment: one function for the decider, the guard and the reports."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.analytics.loyalty.experiments import raises
from domain.events import decisions, facts
from domain.policy.history import PolicyHistory
from domain.policy.model import Rules
from domain.policy.parsing import parse_policy
from projections.policy_history import policy_in_force
from tests.support.builders import gbp
from tests.support.documents import Document
from tests.support.guard_story import BEGIN, GUARDED_POLICY, Story
from tests.support.organisations import BASIC_POLICY, FULL_POLICY
from tests.support.upstreams import Upstream, set_up_organisation

_CAUSE: Document = {"source": "cli", "request_id": "p", "seen_position": 0}
_MONTHS = st.integers(1, 12)


def published(
    version: int, begins: str, limit: str = "20.00", by: str = "owner", **changes: Any
) -> decisions.PolicyPublished:
    """Return a version of the guarded policy with another limit on refunds."""
    agent = {"budget": "900.00", "limits": {"refund": limit}}
    document = (
        GUARDED_POLICY | {"effective_from": begins, "roles": GUARDED_POLICY["roles"] | {"agent": agent}} | changes
    )
    return decisions.PolicyPublished(**_CAUSE, policy=document, version=version, published_by=by, sha256="0")


def history(*months: tuple[int, str]) -> PolicyHistory:
    """Return versions 1, 2, ...; each of ``months`` is the month of 2026 in which it begins, and its mode."""
    return PolicyHistory(
        Rules(number, parse_policy(BASIC_POLICY | {"effective_from": f"2026-{month:02}-01T00:00:00Z", "mode": mode}))
        for number, (month, mode) in enumerate(months, 1)
    )


def ruling(months: list[tuple[int, str]], moment: int) -> tuple[int | None, int | None]:
    """Compute (version in force, shadow version) a second time, from the sentences in docs/understand/policy.md."""
    begun = [(number, mode) for number, (month, mode) in enumerate(months, 1) if month <= moment]
    enforced = [number for number, mode in begun if mode == "enforced"]
    shadow = begun[-1][0] if begun and begun[-1][1] == "shadow" else None
    return (max(enforced) if enforced else None), shadow


@given(st.lists(st.tuples(_MONTHS, st.sampled_from(["enforced", "shadow"])), max_size=6), _MONTHS)
def test_the_newest_version_that_has_begun_is_in_force(months: list[tuple[int, str]], moment: int) -> None:
    found, at = history(*months), datetime(2026, moment, 1, tzinfo=UTC)
    versions = tuple(rules and rules.version for rules in (found.in_force(at), found.in_shadow(at)))
    assert versions == ruling(months, moment)
    before = at - timedelta(microseconds=1)
    assert (rules := found.in_force(before)) is None or rules.policy.effective_from <= before


def test_of_versions_that_begin_together_the_newest_is_in_force() -> None:
    together = history((1, "enforced"), (1, "enforced"))
    assert together.in_force(datetime(2026, 1, 1, tzinfo=UTC)) is together[2]
    assert [reign.enforced for reign in together.reigns()] == [together[2]]
    earlier = history(
        (1, "enforced"), (6, "enforced"), (2, "enforced")
    )  # the third replaces the second before it begins
    assert [reign.enforced for reign in earlier.reigns()] == [earlier[1], earlier[3], earlier[3]]


def test_the_guard_applies_the_policy_in_force_at_the_event_time() -> None:
    story = Story()  # 20.00 in force since 2020
    story.tell(published(2, "2026-06-01T00:00:00Z", "100.00"))
    story.gives("A-1", 35, reported=True)
    assert story.rules() == ["R14"]
    assert "beyond the limit of 20.00 GBP" in story.raised[0].finding.explanation
    june = (datetime(2026, 6, 2, tzinfo=UTC).timestamp() - BEGIN) / 3600
    story.gives("A-2", 35, june, reported=True)
    assert story.rules() == ["R14"]
    story.gives("A-3", 35, june - 72, reported=True)  # told in June, done in May
    assert story.rules() == ["R14", "R14"]


def test_the_guard_applies_team_limits_in_the_policys_currency_alone() -> None:
    story = Story()
    teams = {"doorstep": {"limits": {"agent": {"refund": "60.00"}}}}
    story.tell(published(2, "2020-01-01T00:00:00Z", teams=teams))
    joined: Document = {"role": "agent", "team_ids": ("doorstep",)}
    story.tell(facts.EmployeeJoined(employee_id="A-1", **joined))
    story.gives("A-1", 55, reported=True)
    assert story.rules() == []
    story.gives("A-2", 55, reported=True)
    assert story.rules() == ["R14"]
    story.tell(published(3, "2020-01-01T00:00:00Z", currency="USD"))
    story.gives("A-3", 55, reported=True)
    assert story.rules() == ["R14"]


def test_a_policy_that_raises_its_publishers_limit_is_flagged_once() -> None:
    story = Story()
    story.tell(facts.EmployeeJoined(employee_id="A-1", role="agent", team_ids=()))
    story.tell(published(2, "2026-06-01T00:00:00Z", "100.00", by="A-1"))
    story.tell(published(3, "2026-06-01T00:00:00Z", "100.00", by="A-1"))  # raises nothing: version 2 would rule by then
    story.tell(published(4, "2026-03-01T00:00:00Z", "30.00", by="A-1", mode="shadow"))
    assert [one.finding.explanation for one in story.raised] == [
        "A-1, agent, published policy version 2, which raises agent's refund"
    ]


def test_a_version_that_was_never_in_force_raised_no_limit() -> None:
    def told(version: int, begins: str, limit: str) -> decisions.PolicyPublished:
        return published(version, begins, teams={"T": {"limits": {"agent": {"refund": limit}}}})

    versions = [
        told(1, "2026-01-01T00:00:00Z", "20.00"),
        told(2, "2026-06-01T00:00:00Z", "90.00"),
        told(3, "2026-02-01T00:00:00Z", "30.00"),
    ]
    assert [(one.version, one.at) for one in raises(versions)] == [
        (3, int(datetime(2026, 2, 1, tzinfo=UTC).timestamp()))
    ]


async def test_a_report_as_of_a_position_uses_the_policy_of_that_position(upstream: Upstream) -> None:
    await set_up_organisation(upstream, FULL_POLICY | {"costs": {"agent_hour": "24.00", "manager_hour": "45.00"}})
    await upstream.ask(
        "escalation",
        operation="request",
        request_id="e-1",
        agent_id="A-1",
        kind="refund",
        amount=gbp("70.00"),
        reason="late",
    )
    then = await upstream.session.log.last_position()
    costs = {"agent_hour": "48.00", "manager_hour": "90.00"}
    await upstream.ask("policy", request_id="p-2", policy=FULL_POLICY | {"costs": costs}, published_by="owner")
    now, before = await policy_in_force(upstream.session.log), await policy_in_force(upstream.session.log, then)
    assert now is not None
    assert now.costs["agent_hour"].text == "48.00"
    assert before is not None
    assert before.costs["agent_hour"].text == "24.00"
    assert await policy_in_force(upstream.session.log, 0) is None


async def test_a_policy_that_would_begin_before_the_one_in_force_is_refused(upstream: Upstream) -> None:
    async def publish(number: int, begins: str, **changes: Any) -> Document:
        document = BASIC_POLICY | {"effective_from": begins} | changes
        return await upstream.ask("policy", request_id=f"p-{number}", policy=document, published_by="owner")

    assert (await publish(1, "2020-01-01T00:00:00Z"))["policy_version"] == 1  # the first may lie in the past
    assert (await publish(2, "2999-01-01T00:00:00Z"))["policy_version"] == 2  # not in force yet: bounds nothing
    assert (await publish(3, "2024-01-01T00:00:00Z"))["policy_version"] == 3
    for number, mode in ((4, "enforced"), (5, "shadow")):
        refused = await publish(number, "2023-12-31T23:59:59Z", mode=mode)
        error = refused["error"]
        assert (refused["outcome"], error["code"], error["field"]) == ("error", "invalid", "policy.effective_from")
        assert "version 3, in force since 2024-01-01T00:00:00Z" in error["message"]
    assert (await publish(6, "2024-01-01T01:00:00+01:00"))["policy_version"] == 4  # the same moment: it replaces it
    assert (await upstream.action("r-1", agent_id="A-1"))["error"]["code"] == "unknown_agent"
