"""Pure decisions on actions: given a context, when an agent asks, then the outcome and its reasons."""

from datetime import timedelta
from typing import Any

import pytest

from domain.commands import ActionRequest, Preview, RequestError
from domain.decisions.authority import Agent, available, judge
from domain.money import Money
from domain.policy.model import Rules
from domain.policy.parsing import parse_policy
from tests.support.builders import AGENT, NOW, RULES, decision_context, new_budget
from tests.support.documents import Document
from tests.support.organisations import BASIC_POLICY


def asked(amount: str = "5.00", **fields: Any) -> ActionRequest:
    given: Document = {"request_id": "r", "agent_id": "A-1", "kind": "refund", "reason": "late"} | fields
    return ActionRequest(amount=Money.parse(amount, "GBP"), **given)


def verdict(
    request: ActionRequest, agent: Agent = AGENT, source: str = "crm", rules: Rules = RULES
) -> tuple[str, list[str]]:
    found = judge(decision_context(request, agent, rules, source=source), request.amount)
    return found.outcome, [reason.rule for reason in found.reasons]


def test_an_action_within_all_limits_is_taken() -> None:
    assert verdict(asked("50.00")) == ("taken", [])


def test_an_action_beyond_limits_names_each_of_them() -> None:
    assert verdict(asked("50.01")) == ("escalate", ["per_action"])
    assert verdict(asked("70.00", interaction_id="I")) == ("escalate", ["per_action", "per_interaction"])
    assert verdict(asked("250.00", interaction_id="I")) == ("escalate", ["per_action", "per_interaction", "budget"])


def test_an_unlimited_kind_is_bounded_by_the_budget() -> None:
    assert verdict(asked("200.00", kind="fix")) == ("taken", [])
    assert verdict(asked("200.01", kind="fix")) == ("escalate", ["budget"])


def test_a_kind_of_another_role_is_escalated_and_an_unknown_kind_refused() -> None:
    assert verdict(asked(kind="credit")) == ("escalate", ["kind"])
    assert verdict(asked(kind="gift")) == ("refused", ["kind"])


def test_training_opens_a_kind_and_expires() -> None:
    assert verdict(asked(kind="keep_item")) == ("escalate", ["training"])
    for until, outcome in ((None, "taken"), (NOW + timedelta(days=1), "taken"), (NOW, "escalate")):
        trained = Agent(agent_id="A-1", role="agent", training={"goodwill-basics": until})
        assert verdict(asked(kind="keep_item"), trained)[0] == outcome


def test_an_agent_may_not_act_for_the_own_account_a_relation_or_after_leaving() -> None:
    assert verdict(asked(customer_id="A-1")) == ("refused", ["self_dealing"])
    related = Agent(agent_id="A-1", role="agent", related=frozenset({"C-1"}))
    assert verdict(asked(customer_id="C-1", basis="entitlement"), related) == ("refused", ["self_dealing"])
    assert verdict(asked(), Agent(agent_id="A-1", role="agent", left=True)) == ("refused", ["left"])


def test_entitlements_and_corrections_have_no_limit() -> None:
    for basis in ("entitlement", "correction"):
        assert verdict(asked("9999.00", basis=basis, kind="gift")) == ("taken", [])


def test_a_source_speaks_only_for_its_roles() -> None:
    rules = Rules(1, parse_policy(BASIC_POLICY | {"sources": {"desk": ["manager"], "crm": ["agent"]}}))
    assert verdict(asked(), rules=rules) == ("taken", [])
    assert verdict(asked(), source="desk", rules=rules) == ("refused", ["source"])


def test_another_currency_is_an_error() -> None:
    request = ActionRequest(request_id="r", agent_id="A-1", kind="refund", amount=Money(5, "EUR"), reason="x")
    with pytest.raises(RequestError) as caught:
        judge(decision_context(request), request.amount)
    assert (caught.value.code, caught.value.field) == ("currency", "amount.currency")


def test_the_available_amount_is_the_tightest_limit() -> None:
    preview = Preview(agent_id="A-1", kind="refund", interaction_id="I")
    budget = new_budget()
    assert available(decision_context(preview, budget=budget))[0].text == "50.00"
    budget.by_interaction["I"] = 4500
    assert available(decision_context(preview, budget=budget))[0].text == "15.00"
    budget.spent_minor = 19900
    assert available(decision_context(preview, budget=budget))[0].text == "1.00"
