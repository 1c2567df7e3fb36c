"""Connected customers: links over any number of steps, two kinds of link, links that are taken back."""

from hypothesis import given
from hypothesis import strategies as st

from domain.customers import CustomerLinks, connected, is_linked_after
from domain.events.facts import CustomerLinked, CustomerUnlinked

LINK = CustomerLinked(a="C-1", b="C-2", relation="household")
names = st.sampled_from([f"C-{number}" for number in range(6)])
relations = st.sampled_from(["same_person", "household"])
facts = st.builds(
    lambda cls, a, b, relation: cls(a=a, b=b, relation=relation),
    st.sampled_from([CustomerLinked, CustomerUnlinked]),
    names,
    names,
    relations,
)


def test_a_group_reaches_over_several_links() -> None:
    links = CustomerLinks()
    assert links.group_of("C-1") == {"C-1"}
    links.apply(LINK)
    links.apply(CustomerLinked(a="C-3", b="C-2", relation="same_person"))
    assert links.group_of("C-1") == links.group_of("C-3") == {"C-1", "C-2", "C-3"}
    assert {links.name_of(name) for name in ("C-1", "C-2", "C-3")} == {"C-1"}
    links.apply(CustomerUnlinked(a="C-2", b="C-1", relation="household"))
    assert links.group_of("C-1") == {"C-1"}
    assert links.name_of("C-3") == "C-2"


def test_two_customers_stay_linked_by_the_other_relation() -> None:
    links = CustomerLinks()
    links.apply(LINK)
    links.apply(CustomerLinked(a="C-1", b="C-2", relation="same_person"))
    links.apply(CustomerUnlinked(a="C-1", b="C-2", relation="household"))
    assert links.group_of("C-2") == {"C-1", "C-2"}


def test_a_wrong_fact_is_taken_back() -> None:
    assert is_linked_after(LINK)
    assert not is_linked_after(LINK, undo=True)
    links = CustomerLinks()
    links.apply(LINK)
    links.apply(LINK, undo=True)
    assert links.group_of("C-1") == {"C-1"}


@given(st.lists(facts, max_size=30))
def test_groups_divide_the_customers(history: list[CustomerLinked | CustomerUnlinked]) -> None:
    links, standing = CustomerLinks(), set[tuple[str, str, str]]()
    for fact in history:
        links.apply(fact)
        pairs = {(fact.a, fact.b, fact.relation), (fact.b, fact.a, fact.relation)}
        standing = standing | pairs if is_linked_after(fact) else standing - pairs
    for name in (f"C-{number}" for number in range(6)):
        group = links.group_of(name)
        assert name in group
        assert all(links.group_of(other) == group for other in group)
        assert group == connected(name, lambda one: {b for a, b, _ in standing if a == one})
        assert links.name_of(name) == min(group)
