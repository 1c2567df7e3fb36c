"""Escalations that other systems handle, in the list of escalations: in any order, at any position, corrected."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from projections.engine.pages import PageRequest, source_of
from projections.engine.storage import Row
from projections.views.casework import escalations, read_escalations, read_escalations_happened
from tests.support.any_order import DECISIONS, OPENED
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.view_histories import Views, recorded


def asked(name: str, time: str, escalation_id: str = "E-1", source: str = "desk", **data: Any) -> Document:
    data = {"escalation_id": escalation_id, "amount": gbp("30.00")} | data
    return event(name, "escalation.reported", source, f"2026-01-05T{time}:00Z", **data)


def ended(name: str, time: str, verdict: str = "approved", source: str = "desk", **data: Any) -> Document:
    data = {"escalation_id": "E-1", "verdict": verdict} | data
    return event(name, "escalation.outcome_reported", source, f"2026-01-05T{time}:00Z", **data)


def never(name: str, corrected: str) -> Document:
    told: Document = {"source_of": "desk", "id_of": corrected, "reason": "typed wrongly", "data": None}
    return event(name, "fact.corrected", "desk", **told)


def folded(folder: Path, *history: Document | tuple[str, bytes], batch: int = 1) -> Views:
    return Views(folder, ["casework"]).take(recorded(history), batch)


async def listed(views: Views, at: int | None = None, **page: Any) -> list[Row]:
    def read(connection: sa.Connection) -> list[Row]:
        some = PageRequest(at=at, **page)
        return read_escalations(connection, page=some, source=source_of(escalations, some))

    return (await views.read("casework", read)).result


async def test_an_escalation_of_another_system_is_listed_with_its_outcome(tmp_path: Path) -> None:
    views = folded(
        tmp_path,
        asked("a", "10:00", kind="refund", requested_by="A-1", customer_id="C-1", reason="late"),
        ended("b", "13:00", decided_by="M-1", amount=gbp("20.00")),
    )
    (row,) = await listed(views)
    assert {name: value for name, value in row.items() if value is not None} == {
        "escalation_id": "E-1",
        "reported_by": "desk",
        "position": 1,
        "requested": "2026-01-05T10:00:00.000000Z",
        "status": "approved",
        "agent_id": "A-1",
        "customer_id": "C-1",
        "kind": "refund",
        "reason": "late",
        "asked": gbp("30.00"),
        "amount": gbp("20.00"),
        "asked_of": [],
        "decided_by": "M-1",
        "waited_seconds": 10_800.0,
    }


async def test_the_outcome_may_come_first(tmp_path: Path) -> None:
    """An outcome alone is no escalation; it counts as soon as its request is known."""
    views = folded(tmp_path, ended("b", "13:00", "denied"), asked("a", "10:00"))
    assert await listed(views, at=1) == []
    (row,) = await listed(views)
    assert (row["status"], row["position"], row["waited_seconds"]) == ("denied", 2, 10_800.0)
    assert row["amount"] == gbp("0.00")


async def test_an_approval_is_final_and_has_the_amount_asked_where_none_is_told(tmp_path: Path) -> None:
    views = folded(tmp_path, asked("a", "10:00"), ended("b", "11:00"), ended("c", "12:00", "withdrawn"))
    (row,) = await listed(views)
    assert (row["status"], row["amount"], row["waited_seconds"]) == ("approved", gbp("30.00"), 3_600.0)


async def test_equal_ids_of_two_systems_and_of_the_ledger_are_three_escalations(tmp_path: Path) -> None:
    views = folded(tmp_path, OPENED, DECISIONS[2], asked("a", "10:00"), asked("b", "10:00", source="crm"))
    found = [(one["escalation_id"], one["reported_by"], one["status"]) for one in await listed(views)]
    assert found == [("E-1", None, "waiting"), ("E-1", "desk", "waiting"), ("E-1", "crm", "waiting")]


async def test_a_row_keeps_its_place_when_an_earlier_report_comes(tmp_path: Path) -> None:
    """A cursor between two pages neither repeats it nor loses it."""
    views = folded(tmp_path, asked("a", "10:00"), asked("b", "10:00", "E-2"), asked("c", "09:00"))
    first, second = await listed(views)
    assert (first["escalation_id"], first["position"], first["requested"]) == ("E-1", 1, "2026-01-05T09:00:00.000000Z")
    assert (second["escalation_id"], second["position"]) == ("E-2", 2)
    (older,) = await listed(views, at=2, limit=1)
    assert (older["position"], older["requested"]) == (1, "2026-01-05T10:00:00.000000Z")


async def test_a_request_that_never_happened_is_listed_only_before_its_correction(tmp_path: Path) -> None:
    views = folded(tmp_path, asked("a", "10:00"), ended("b", "11:00"), never("c", "a"), asked("d", "12:00", "E-2"))
    for at, known in ((1, ["E-1"]), (2, ["E-1"]), (3, []), (4, ["E-2"]), (None, ["E-2"])):
        assert [one["escalation_id"] for one in await listed(views, at=at)] == known
        assert [one["escalation_id"] for one in await listed(views, at=at, newest_first=True, limit=9)] == known


@pytest.mark.parametrize("batch", [1, 9])
async def test_events_up_to_an_event_time(tmp_path: Path, batch: int) -> None:
    """A report that came late counts at the time when it happened."""
    views = folded(tmp_path, ended("b", "13:00"), asked("a", "10:00"), OPENED, DECISIONS[2], batch=batch)

    async def until(time: str) -> list[tuple[object, ...]]:
        moment = f"2026-01-05T{time}:00.000000Z"
        rows = (await views.read("casework", lambda c: read_escalations_happened(c, moment))).result
        return [(one["escalation_id"], one["reported_by"], one["status"]) for one in rows]

    assert await until("09:00") == []
    assert await until("10:01") == [("E-1", "desk", "waiting")]
    assert await until("11:00") == [("E-1", "desk", "waiting"), ("E-1", None, "waiting")]
    assert await until("13:00") == [("E-1", "desk", "approved"), ("E-1", None, "waiting")]


async def test_a_refund_that_names_only_an_order_concerns_no_action(tmp_path: Path) -> None:
    refund = event("r", "refund.settled", order_id="O-1", processor_reference="P-1", total=gbp("3.00"))
    views = folded(tmp_path, refund, asked("a", "10:00"))
    assert len(await listed(views)) == 1
