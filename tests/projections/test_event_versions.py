"""A second version of an event type: both are read, the first by an upcast, and what is stored never changes."""

import msgspec
import pytest

from domain.events.facts import Fact, PurchaseCompleted
from domain.money import Money
from projections.engine import events
from projections.engine.events import UnknownEventError, Upcast, read_event, types_of
from tests.support.builders import event, gbp
from tests.support.view_histories import recorded

FIRST, SECOND = "resolution.purchase.completed.v1", "resolution.purchase.completed.v2"


class PurchaseInPounds(Fact, frozen=True, kw_only=True):
    """The first version of a type whose second version has a currency: an amount that meant pounds."""

    order_id: str
    pounds: str


def in_currency(first: PurchaseInPounds) -> PurchaseCompleted:
    return PurchaseCompleted(order_id=first.order_id, total=Money(int(first.pounds.replace(".", "")), "GBP"))


@pytest.fixture
def two_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    types: dict[str, type[msgspec.Struct]] = {FIRST: PurchaseInPounds, SECOND: PurchaseCompleted}
    monkeypatch.setattr(events, "TYPES", types)
    monkeypatch.setattr(events, "UPCASTS", {PurchaseInPounds: Upcast(PurchaseCompleted, in_currency)})


EARLY = event("p-1", "purchase.completed", order_id="O-1", pounds="5.00")
LATE = event("p-1", "purchase.completed", order_id="O-1", total=gbp("5.00")) | {"type": SECOND}


@pytest.mark.usefixtures("two_versions")
def test_a_reader_of_the_newest_version_reads_the_first_one_too() -> None:
    early, late = (read_event(one, types_of(PurchaseCompleted)) for one in recorded([EARLY, LATE]))
    assert early.body == late.body == PurchaseCompleted(order_id="O-1", total=Money(500, "GBP"))
    assert (early.type, late.type) == (FIRST, SECOND)
    assert msgspec.json.decode(early.stored.data) == EARLY["data"]


def test_a_version_that_is_not_known_yet_is_an_error_that_names_the_position() -> None:
    with pytest.raises(UnknownEventError, match=f"position 1, {SECOND}: a type this version does not know"):
        read_event(recorded([LATE])[0])
