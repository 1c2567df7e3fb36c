"""The `eventsourcing` module beyond the library's suites: caches, batches, hostile ids, settings."""

import json
import secrets
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    Tracking,
)
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.eventsourcing.recorders import JetStreamApplicationRecorder
from ledger.persistence import JetStreamFactory
from ledger.store.subject_tokens import token_of_id
from tests.support.nats_servers import Server
from tests.support.recorder_helpers import recorder_of, stored_event, versions

Factories = Callable[[], JetStreamFactory]


# ---------------------------------------------------------------------- caches, gaps


def test_a_recorder_that_knows_nothing_continues_where_another_left_off(factories: Factories) -> None:
    warm, a = recorder_of(factories()), uuid4()
    warm.insert_events([stored_event(a, 1), stored_event(a, 2), stored_event(a, 3)])
    cold = recorder_of(factories())
    assert cold.insert_events([stored_event(a, 4)]) == [4]
    with pytest.raises(IntegrityError):
        warm.insert_events([stored_event(a, 4)])
    assert warm.insert_events([stored_event(a, 5)]) == [5]
    for version in range(1, 6):
        with pytest.raises(IntegrityError):
            recorder_of(factories()).insert_events([stored_event(a, version)])
    assert versions(recorder_of(factories()).select_events(a)) == [1, 2, 3, 4, 5]


def test_events_of_another_recorder_are_read(factories: Factories) -> None:
    one, other, a = recorder_of(factories()), recorder_of(factories()), uuid4()
    one.insert_events([stored_event(a, 1)])
    assert versions(one.select_events(a, gt=1)) == []
    other.insert_events([stored_event(a, 2), stored_event(a, 3)])
    assert versions(one.select_events(a, gt=1)) == [2, 3]
    assert versions(one.select_events(a, gt=3)) == []
    assert versions(one.select_events(a, desc=True, limit=1)) == [3]


def test_snapshots_may_be_taken_of_earlier_versions_later(factories: Factories) -> None:
    a = uuid4()
    for version in (8, 2, 5):
        factories().aggregate_recorder("snapshots").insert_events([stored_event(a, version)])
    cold = factories().aggregate_recorder("snapshots")
    assert versions(cold.select_events(a)) == [2, 5, 8]
    assert versions(cold.select_events(a, desc=True, limit=1)) == [8]
    assert versions(cold.select_events(a, desc=True, limit=1, lte=7)) == [5]
    assert versions(cold.select_events(a, desc=True, limit=2)) == [8, 5]
    for version in (2, 5, 8):
        with pytest.raises(IntegrityError):
            factories().aggregate_recorder("snapshots").insert_events([stored_event(a, version)])
    cold.insert_events([stored_event(a, 9), stored_event(a, 3)])
    assert versions(factories().aggregate_recorder("snapshots").select_events(a)) == [2, 3, 5, 8, 9]


@pytest.fixture(params=[False, True], ids=["remembering", "forgetful"])
def forgetful(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with a cache of one short sequence, and with a cache that is never full."""
    if request.param:
        monkeypatch.setattr("ledger.eventsourcing.stream_cache._BYTES", 1000)
        monkeypatch.setattr("ledger.eventsourcing.stream_cache._TAILS", 1)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 6), max_size=3), st.booleans()), max_size=12))
@settings(
    max_examples=settings().max_examples // 4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_sequence_of_operations_has_the_result_it_has_on_sqlite(
    nats_server: Server, forgetful: None, steps: list[tuple[str, list[int], bool]]
) -> None:
    """Given any inserts, by two recorders in turn, both stores refuse and show the same."""
    oracle = SQLiteApplicationRecorder(SQLiteDatastore(":memory:", originator_id_type="text"))
    oracle.create_table()
    env = {"NATS_URL": nats_server.url, "NATS_STREAM": f"t{secrets.token_hex(6)}"}
    pair = [JetStreamFactory(env), JetStreamFactory(env)]
    try:
        ours = [recorder_of(factory) for factory in pair]
        for identifier, numbers, second in steps:
            events = [stored_event(identifier, version, secrets.token_bytes(3)) for version in numbers]
            try:
                oracle.insert_events(events)
            except IntegrityError:
                with pytest.raises(IntegrityError):
                    ours[second].insert_events(events)
            else:
                ours[second].insert_events(events)
            for gt, lte, desc, limit in (
                (None, None, False, None),
                (2, 4, False, None),
                (None, None, True, 1),
                (1, None, True, 2),
            ):
                for recorder in ours:
                    found = recorder.select_events(identifier, gt=gt, lte=lte, desc=desc, limit=limit)
                    assert found == oracle.select_events(identifier, gt=gt, lte=lte, desc=desc, limit=limit)
        kept = [(n.originator_id, n.originator_version, n.state) for n in oracle.select_notifications(1, 99)]
        assert [(n.originator_id, n.originator_version, n.state) for n in ours[0].select_notifications(1, 99)] == kept
    finally:
        for factory in pair:
            factory.close()


# ---------------------------------------------------------------------- batches


def test_several_aggregates_are_stored_together_or_not_at_all(factories: Factories) -> None:
    recorder, a, b, c = recorder_of(factories()), uuid4(), uuid4(), uuid4()
    recorder.insert_events([stored_event(b, 1)])
    for clash in (stored_event(b, 1), stored_event(b, 1, b"other")):
        with pytest.raises(IntegrityError):
            recorder_of(factories()).insert_events([stored_event(a, 1), clash, stored_event(c, 1)])
    assert not recorder.select_events(a)
    assert not recorder.select_events(c)
    assert recorder.insert_events([stored_event(a, 1), stored_event(b, 2), stored_event(a, 2), stored_event(c, 1)]) == [
        2,
        3,
        4,
        5,
    ]


def test_1000_events_are_one_batch_and_1001_are_refused_whole(factories: Factories) -> None:
    recorder, a = recorder_of(factories()), uuid4()
    with pytest.raises(NotSupportedError, match="1000"):
        recorder.insert_events([stored_event(a, version) for version in range(1, 1002)])
    assert recorder.max_notification_id() is None
    assert recorder.insert_events([stored_event(a, version) for version in range(1, 1001)]) == list(range(1, 1001))
    assert len(recorder_of(factories()).select_events(a)) == 1000


def test_a_process_stores_events_and_tracking_together_or_not_at_all(factories: Factories) -> None:
    one, other = factories().process_recorder(), factories().process_recorder()
    a, b = uuid4(), uuid4()
    one.insert_events([stored_event(a, 1)], tracking=Tracking("up", 7))
    for number in (6, 7):  # the other knows nothing of 7
        with pytest.raises(IntegrityError):
            other.insert_events([stored_event(b, 1)], tracking=Tracking("up", number))
    with pytest.raises(IntegrityError):
        other.insert_events([stored_event(a, 1)], tracking=Tracking("up", 8))
    assert not one.select_events(b)
    assert one.max_tracking_id("up") == 7
    other.insert_events([stored_event(b, 1)], tracking=Tracking("up", 8))
    with pytest.raises(IntegrityError):
        one.insert_events([], tracking=Tracking("up", 8))
    ids = [found.originator_id for found in one.select_notifications(None, 9)]
    assert ids == [a, b]  # tracking is no event
    assert one.max_notification_id() == one.select_notifications(None, 9)[-1].id


def test_events_too_large_are_refused_by_name(factories: Factories) -> None:
    recorder, a = recorder_of(factories()), uuid4()
    with pytest.raises(DataError, match="too large"):
        recorder.insert_events([stored_event(a, 1, b"x" * 2_000_000)])
    with pytest.raises(DataError, match="at once"):
        recorder.insert_events([stored_event(a, version, b"x" * 500_000) for version in range(1, 70)])
    assert recorder.insert_events([stored_event(a, 1, b"x" * 500_000)]) == [1]


# ---------------------------------------------------------------------- ids, topics, states


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=6, unique=True),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.binary(max_size=50)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.floats()).map(
        lambda d: json.dumps(d).encode()
    ),
)
@settings(
    max_examples=settings().max_examples * 3 // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_ids_topics_and_states_come_back_as_they_were(
    shared_recorder: JetStreamApplicationRecorder, identifiers: list[str], topic: str, state: bytes
) -> None:
    batch = [stored_event(f"{secrets.token_hex(4)}{identifier}", 1, state, topic) for identifier in identifiers]
    shared_recorder.insert_events(batch)
    for stored in batch:
        assert shared_recorder.select_events(stored.originator_id) == [stored]


@pytest.fixture(scope="module")
def shared_recorder(nats_server: Server) -> Iterator[JetStreamApplicationRecorder]:
    factory = JetStreamFactory({"NATS_URL": nats_server.url, "NATS_STREAM": f"t{secrets.token_hex(6)}"})
    yield recorder_of(factory)
    factory.close()


HOSTILE = [
    "",
    ".",
    "*",
    ">",
    "a.b",
    "a b",
    "%",
    "%2E",
    "\r\nPUB x 1",
    "\0",
    "é",
    "e\u0301",
    "🙂" * 300,
    "x" * 5000,
    "../..",
    "_INBOX.>",
]


def test_hostile_ids_are_sequences_of_their_own(factories: Factories) -> None:
    recorder = recorder_of(factories())
    recorder.insert_events([stored_event(identifier, 1, json.dumps(identifier).encode()) for identifier in HOSTILE])
    cold = recorder_of(factories())
    for identifier in HOSTILE:
        assert cold.select_events(identifier) == [stored_event(identifier, 1, json.dumps(identifier).encode())]
        with pytest.raises(IntegrityError):
            cold.insert_events([stored_event(identifier, 1)])
    assert [found.originator_id for found in cold.select_notifications(1, 99)] == HOSTILE


def test_text_outside_utf_8_is_refused(factories: Factories) -> None:
    recorder = recorder_of(factories())
    with pytest.raises(DataError, match="originator_id"):
        recorder.insert_events([stored_event("\ud800", 1)])
    with pytest.raises(DataError, match="topic"):
        recorder.insert_events([stored_event("a", 1, topic="\ud800")])
    with pytest.raises(DataError, match="64 bits"):
        recorder.insert_events([stored_event("a", 2**63)])
    assert recorder.max_notification_id() is None


def test_a_uuid_and_its_text_are_one_sequence(factories: Factories) -> None:
    recorder, a = recorder_of(factories()), uuid4()
    recorder.insert_events([stored_event(a, 1), stored_event(str(a), 2)])
    assert [found.originator_id for found in recorder.select_events(str(a))] == [a, str(a)]


# ---------------------------------------------------------------------- settings


def test_settings_that_are_missing_or_wrong_are_named() -> None:
    with pytest.raises(OSError, match="NATS_URL"):
        JetStreamFactory({})
    for wrong in (
        {"NATS_REPLICAS": "x"},
        {"NATS_REPLICAS": "0"},
        {"NATS_TIMEOUT": "-1"},
        {"NATS_TIMEOUT": "nan"},
        {"NATS_STREAM": "a.b"},
        {"NATS_SUBJECT_PREFIX": "a*"},
    ):
        with pytest.raises(OSError, match=next(iter(wrong))):
            JetStreamFactory({"NATS_URL": "nats://127.0.0.1:1"} | wrong)


def test_a_stream_that_was_changed_is_refused(factories: Factories, es_env: dict[str, str]) -> None:
    recorder_of(factories())
    other = JetStreamFactory(es_env | {"NATS_SUBJECT_PREFIX": "other"})
    with pytest.raises(ProgrammingError, match="subjects"):
        other.application_recorder()
    other.close()


def test_streams_are_named_like_the_librarys_tables(nats_server: Server) -> None:
    env = {"PERSISTENCE_MODULE": "ledger.persistence", "NATS_URL": nats_server.url}

    class Named(Application[UUID]):
        name = f"Größe & Co. {secrets.token_hex(4)}"
        is_snapshotting_enabled = True

    app = Named(env)
    aggregate = Aggregate()
    app.save(aggregate)
    app.take_snapshot(aggregate.id)
    for purpose in ("events", "snapshots"):
        without = JetStreamFactory(env | {"NATS_STREAM": token_of_id(Named.name.lower()), "CREATE_TABLE": "no"})
        assert len(without.aggregate_recorder(purpose).select_events(aggregate.id)) == 1
        without.close()
    app.close()
