"""Profiles of sources, their narrowing, and the registry that follows the operator's events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.events.administration import SourceChanged, SourceEvent, SourceRegistered, SourceRetired, SourceStopped
from domain.events.facts import FACTS
from domain.money import Money
from domain.source_registry import PROFILES, ProfileError, SourceRegistry, rights_of

OPERATIONS = {
    "facts": set(),
    "desk": {"preview", "action", "settle", "void", "reverse", "request", "withdraw", "answer", "brief"},
    "payments": {"settle"},
    "people": set(),
    "approvals": {"approve", "deny", "forward", "review", "brief"},
    "governance": {"policy", "grant", "transfer"},
}
"""Profile -> its requests, as the operator's page lists them."""
EVERY_OPERATION = set[str]().union(*OPERATIONS.values())


def registered(source: str = "crm", profile: str = "desk", **rights: object) -> SourceRegistered:
    return SourceRegistered(source=source, profile=profile, by="operator", **rights)  # type: ignore[arg-type]


def registry_of(*events: SourceEvent, admits_others: bool = True) -> SourceRegistry:
    registry = SourceRegistry(admits_others=admits_others)
    for event in events:
        registry.apply(event)
    return registry


def may_send(registry: SourceRegistry, source: str, name: str) -> bool:
    return registry.fact_refusal(source, f"resolution.{name}.v1") is None


def test_every_profile_has_exactly_its_requests() -> None:
    for profile, operations in OPERATIONS.items():
        registry = registry_of(registered(profile=profile))
        assert {one for one in EVERY_OPERATION if registry.request_refusal("crm", one) is None} == operations, profile
    assert PROFILES.keys() == OPERATIONS.keys()


@pytest.mark.parametrize(
    ("profile", "sends", "not_sent"),
    [
        ("facts", "purchase.completed", "employee.joined"),
        ("desk", "interaction.opened", "training.completed"),
        ("payments", "refund.settled", "purchase.completed"),
        ("people", "delegation.declared", "interaction.opened"),
    ],
)
def test_every_profile_sends_its_own_facts(profile: str, sends: str, not_sent: str) -> None:
    registry = registry_of(registered(profile=profile))
    assert may_send(registry, "crm", sends)
    assert not may_send(registry, "crm", not_sent)


@pytest.mark.parametrize("profile", ["approvals", "governance"])
def test_a_profile_without_facts_sends_none(profile: str) -> None:
    registry = registry_of(registered(profile=profile))
    assert [name for name in FACTS if registry.fact_refusal("crm", name) is None] == []


def test_patterns_narrow_the_facts_and_leave_corrections() -> None:
    registry = registry_of(registered(facts=("interaction.*", "feedback.received")))
    sent = {name for name in FACTS if registry.fact_refusal("crm", name) is None}
    assert sent == {
        f"resolution.{name}.v1"
        for name in (
            "interaction.opened",
            "interaction.transferred",
            "interaction.resolved",
            "interaction.reopened",
            "feedback.received",
            "fact.corrected",
        )
    }


@pytest.mark.parametrize(
    ("event", "field", "words"),
    [
        (registered(profile="desks"), "profile", "did you mean desk?"),
        (registered(profile="desk+desk"), "profile", "twice"),
        (registered(facts=("purchases.completed",)), "facts", "did you mean 'purchase.completed'?"),
        (registered(facts=("employee.*",)), "facts", "needs the profile people"),
        (registered(profile="facts", roles=("agent",)), "roles", "narrows the profile desk"),
        (registered(profile="people", per_day=Money(1, "GBP")), "per_day", "narrows the profile desk"),
    ],
)
def test_rights_that_no_source_can_have_name_the_fault(event: SourceRegistered, field: str, words: str) -> None:
    with pytest.raises(ProfileError, match=words) as found:
        rights_of(event)
    assert found.value.field == field


def test_several_profiles_add_up() -> None:
    registry = registry_of(registered(profile="desk+people"))
    assert may_send(registry, "crm", "employee.joined")
    assert registry.request_refusal("crm", "action") is None


def test_an_unregistered_source_sends_facts_about_people_only_while_nobody_is_registered_for_them() -> None:
    hr = registered("hr", "people")
    assert may_send(registry_of(), "till", "employee.joined")
    assert not may_send(registry_of(hr), "till", "employee.joined")
    assert not may_send(registry_of(hr, SourceStopped(source="hr", by="o")), "till", "employee.joined")
    assert may_send(registry_of(hr, SourceRetired(source="hr", by="o")), "till", "employee.joined")


def test_where_unregistered_sources_are_not_admitted_they_may_nothing() -> None:
    registry = registry_of(admits_others=False)
    assert [name for name in FACTS if registry.fact_refusal("x", name) is None] == []
    assert [one for one in EVERY_OPERATION if registry.request_refusal("x", one) is None] == []


@pytest.mark.parametrize("event", [SourceStopped(source="crm", by="o"), SourceRetired(source="crm", by="o")])
def test_a_stopped_or_retired_source_may_nothing_until_it_is_registered_again(event: SourceEvent) -> None:
    registry = registry_of(registered(), event)
    assert registry.is_shut("crm")
    assert registry.request_refusal("crm", "action") is not None
    registry.apply(registered())
    assert not registry.is_shut("crm")
    assert registry.request_refusal("crm", "action") is None


def test_a_change_does_not_start_a_stopped_source() -> None:
    change = SourceChanged(source="crm", profile="facts", by="o")
    assert registry_of(registered(), SourceStopped(source="crm", by="o"), change).is_shut("crm")


def test_an_entry_that_this_version_cannot_read_gives_no_rights() -> None:
    registry = registry_of(registered(profile="teleport"))
    assert registry.request_refusal("crm", "action") is not None
    assert not may_send(registry, "crm", "purchase.completed")


_NAMES = st.sampled_from(["crm", "till", "hr"])
_EVENTS = st.one_of(
    st.builds(registered, _NAMES, st.sampled_from(["desk", "facts", "people", "desk+governance"])),
    st.builds(lambda name: SourceChanged(source=name, profile="approvals", by="o"), _NAMES),
    st.builds(lambda name: SourceStopped(source=name, by="o"), _NAMES),
    st.builds(lambda name: SourceRetired(source=name, by="o"), _NAMES),
)


@given(st.lists(_EVENTS, max_size=12))
def test_a_registry_restored_from_its_notes_gives_the_same_rights(events: list[SourceEvent]) -> None:
    registry, restored = registry_of(*events), SourceRegistry()
    for name in ("crm", "till", "hr"):
        restored.restore(registry.note(name))
    for name in ("crm", "till", "hr", "stranger"):
        assert restored.rights(name) == registry.rights(name)
        assert restored.is_shut(name) == registry.is_shut(name)


def test_the_amount_of_a_day_is_counted_in_its_currency_and_ends_with_the_day() -> None:
    from datetime import date

    registry = registry_of(registered(per_day=Money(1000, "GBP")))
    today, tomorrow = date(2026, 1, 5), date(2026, 1, 6)
    assert registry.count("crm", today, Money(300, "GBP")) == 300
    assert registry.count("crm", today, Money(300, "EUR")) is None
    assert registry.count("crm", today, Money(200, "GBP")) == 500
    assert registry.spent_on("crm", today) == 500
    assert registry.spent_on("crm", tomorrow) == 0
