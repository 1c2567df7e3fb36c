"""Policies: every problem is reported with its field, line and remedy."""

import copy
from pathlib import Path

import pytest

from app.policy_file import check_policy_file, shipped_policies
from domain.policy.linting import contradictions
from domain.policy.model import Rules
from domain.policy.parsing import PolicyError, parse_policy
from tests.support.builders import NOW
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY


def changed(path: str, value: object) -> Document:
    """Return the basic policy with one value replaced, or removed where it is `...`."""
    document = copy.deepcopy(BASIC_POLICY)
    *above, last = path.split(".")
    place = document
    for name in above:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("currency", "POUND"),
        ("currency", ...),
        ("time_zone", "London"),
        ("time_zone", ...),
        ("period", "year"),
        ("effective_from", "2026-01-01"),
        ("effective_from", "2026-01-01T00:00:00"),
        ("roles", []),
        ("mode", "maybe"),
        ("default_role", "nobody"),
        ("roles.agent.budget", 200),
        ("roles.agent.budget", ...),
        ("roles.agent.limits.refund", "-1"),
        ("roles.agent.limits.refund", "5.001"),
        ("roles.agent.limits.bribe", "5"),
        ("roles.agent.surprise", "x"),
        ("roles.agent.requires.refund", "basics"),
        ("roles.agent.per_customer", {"amount": "5", "days": 0}),
        ("teams", {"t": {"limits": {"ghost": {}}}}),
        ("escalation", {"payer": "customer"}),
        ("costs", {"agent_hour": 24.0}),
        ("asking", {"agent_minutes": -1}),
        ("asking", {"approver_minutes": "8"}),
        ("asking", {"minutes": 8}),
        ("surprise", 1),
        ("guidelines", [{"id": "x"}]),
        ("sources", {"crm": ["ghost"]}),
        (
            "trial",
            {
                "limit": {"role": "agent", "kind": "refund", "amount": "7"},
                "share_of_teams": 2,
                "seed": 1,
                "until": "2026-03-01T00:00:00Z",
            },
        ),
    ],
)
def test_a_problem_names_its_field(path: str, value: object) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(changed(path, value))
    assert any(problem.field.startswith(path) for problem in caught.value.problems), caught.value


@pytest.mark.parametrize("document", [None, [], "policy", 5, {}])
def test_a_policy_that_is_no_mapping_is_refused(document: object) -> None:
    with pytest.raises(PolicyError):
        parse_policy(document)


def test_all_problems_of_a_policy_are_reported_together() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(changed("roles.agent", {"limits": {"refund": 5.0}}) | {"period": "year"})
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {"period", "roles.agent.budget", "roles.agent.limits.refund"}


def test_problems_of_a_policy_file_have_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "currency: GBP\ntime_zone: Europe/London\nperiod: month\neffective_from: 2026-01-01T00:00:00Z\n"
        "roles:\n  agent:\n    budget: '1.00'\n    limits:\n      refund: 5.0\n"
    )
    (finding,) = check_policy_file(path).findings
    assert (finding.line, finding.field, finding.serious) == (9, "roles.agent.limits.refund", True)
    assert "quotes" in finding.message


@pytest.mark.parametrize("text", ["{", "a: [", "\x00", "- x\n- y", "&a *a", "!!python/object:os.system x"])
def test_a_file_that_is_no_policy_is_a_finding(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    assert any(finding.serious for finding in check_policy_file(path).findings)


@pytest.mark.parametrize("path", shipped_policies(), ids=lambda path: path.stem)
def test_shipped_policies_are_valid(path: Path) -> None:
    assert check_policy_file(path).policy is not None


def test_contradictions_of_a_policy_are_warnings() -> None:
    policy = parse_policy(changed("teams", {"t": {"draw_at_most": "5.00"}}))
    assert "teams.t.draw_at_most" in [problem.field for problem in contradictions(policy)]


def test_a_team_may_differ() -> None:
    policy = parse_policy(changed("teams", {"t": {"limits": {"agent": {"refund": "60.00"}}}}))
    limit = Rules(1, policy).limits_for("agent", ("t",), NOW)["refund"]
    assert limit is not None
    assert limit.text == "60.00"
