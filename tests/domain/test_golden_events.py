"""A stored event decodes for ever: one golden event for each type and version ever stored."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from domain.events.decisions import RECORDS, RESERVED, TYPE_OF, EscalationRequested, EscalationStep
from domain.events.facts import FACTS
from domain.serialization import encode
from ledger.store.log import Recorded
from projections.engine.events import TYPES, read_event
from projections.views.event_summaries import describe
from tests.support.documents import Document

GOLDEN = [json.loads(line) for line in (Path(__file__).parent / "golden_events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stored", GOLDEN, ids=lambda stored: f"{stored['type']}-{len(stored['data'])}")
def test_a_golden_event_decodes_and_keeps_its_meaning(stored: Document) -> None:
    event = read_event(Recorded(1, "ledger.x", json.dumps(stored).encode()))
    assert type(event.body) is TYPES[stored["type"]]
    back = json.loads(encode(event.body))
    for name in stored["data"].keys() - {"unknown"}:  # what a class leaves out when it writes is a default
        assert back.get(name, getattr(event.body, name)) == stored["data"][name], name
    assert event.recorded == datetime(2026, 11, 21, 10, 0, 1, tzinfo=UTC)
    told = describe(event.body)
    assert not any(name in told for name in event.body.__struct_fields__ if "_" in name), "a field, and no words"
    assert told.replace(" ", "").lower() != type(event.body).__name__.lower()


def test_every_type_has_one() -> None:
    assert {stored["type"] for stored in GOLDEN} == TYPES.keys()


def test_the_newest_golden_event_of_a_type_fills_every_field() -> None:
    newest = {stored["type"]: stored for stored in GOLDEN}  # older lines are older forms, kept as they were stored
    for name, stored in newest.items():
        assert set(TYPES[name].__struct_fields__) <= set(stored["data"]), name


def test_events_of_the_ledger_cannot_be_published_by_upstreams() -> None:
    assert RECORDS.keys() <= RESERVED
    assert not RESERVED & FACTS.keys()


PERSONAL = {
    "EmployeeChanged.name",
    "EmployeeJoined.name",
    "FeedbackReceived.comment",
    "ObstacleReported.text",
    "ObstacleAnswered.text",
    "IdeaSubmitted.text",
    "ActionReported.note",
    "Done.note",
    "AuthorityFellShort.note",
    "EscalationRequested.note",
    "FlagReviewed.note",
    "FlagAnswered.text",
}


def test_personal_fields_are_marked() -> None:
    marked = {
        f"{cls.__name__}.{name}"
        for cls in {base for leaf in TYPES.values() for base in leaf.__mro__ if base is not object}
        for name, annotation in vars(cls).get("__annotations__", {}).items()
        if "Personal" in str(annotation)
    }
    assert marked == PERSONAL


@pytest.mark.parametrize("cls", [EscalationRequested, *EscalationStep.__subclasses__()])
def test_the_status_of_an_escalation_is_in_its_stored_type(cls: type[EscalationRequested | EscalationStep]) -> None:
    assert TYPE_OF[cls] == f"resolution.escalation.{cls.status}.v1"
    assert "status" not in cls.__struct_fields__
