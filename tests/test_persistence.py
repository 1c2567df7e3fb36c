"""The `eventsourcing` module beyond the library's suites: races, crashes, clusters, hostile ids."""

import asyncio
import contextlib
import gc
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore
from eventsourcing.system import MultiThreadedRunner, ProcessApplication, SingleThreadedRunner, System
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nats_servers import Cluster, Server
from support import ROOT

from ledger.names import token_of_id
from ledger.persistence import JetStreamFactory
from ledger.recorders import JetStreamApplicationRecorder
from ledger.replies import Replies
from ledger.streams import js_api

Factories = Callable[[], JetStreamFactory]


@pytest.fixture
def factories(es_env: dict[str, str]) -> Iterator[Factories]:
    """Factories on the same streams, each with a connection and caches of its own; closed in the end."""
    made: list[JetStreamFactory] = []

    def make(**more: str) -> JetStreamFactory:
        made.append(JetStreamFactory(es_env | more))
        return made[-1]

    yield make
    for factory in made:
        factory.close()


def recorder_of(factory: JetStreamFactory) -> JetStreamApplicationRecorder:
    recorder = factory.application_recorder()
    assert isinstance(recorder, JetStreamApplicationRecorder)
    return recorder


def event(identifier: UUID | str, version: int, state: bytes = b"{}", topic: str = "t") -> StoredEvent:
    return StoredEvent(identifier, version, topic, state)


def versions(events: Sequence[StoredEvent]) -> list[int]:
    return [one.originator_version for one in events]


# ---------------------------------------------------------------------- caches, gaps


def test_a_recorder_that_knows_nothing_continues_where_another_left_off(factories: Factories) -> None:
    warm, a = recorder_of(factories()), uuid4()
    warm.insert_events([event(a, 1), event(a, 2), event(a, 3)])
    cold = recorder_of(factories())
    assert cold.insert_events([event(a, 4)]) == [4]
    with pytest.raises(IntegrityError):
        warm.insert_events([event(a, 4)])
    assert warm.insert_events([event(a, 5)]) == [5]
    for version in range(1, 6):
        with pytest.raises(IntegrityError):
            recorder_of(factories()).insert_events([event(a, version)])
    assert versions(recorder_of(factories()).select_events(a)) == [1, 2, 3, 4, 5]


def test_what_another_recorded_meanwhile_is_read(factories: Factories) -> None:
    one, other, a = recorder_of(factories()), recorder_of(factories()), uuid4()
    one.insert_events([event(a, 1)])
    assert versions(one.select_events(a, gt=1)) == []
    other.insert_events([event(a, 2), event(a, 3)])
    assert versions(one.select_events(a, gt=1)) == [2, 3]
    assert versions(one.select_events(a, gt=3)) == []
    assert versions(one.select_events(a, desc=True, limit=1)) == [3]


def test_snapshots_may_be_taken_of_earlier_versions_later(factories: Factories) -> None:
    a = uuid4()
    for version in (8, 2, 5):
        factories().aggregate_recorder("snapshots").insert_events([event(a, version)])
    cold = factories().aggregate_recorder("snapshots")
    assert versions(cold.select_events(a)) == [2, 5, 8]
    assert versions(cold.select_events(a, desc=True, limit=1)) == [8]
    assert versions(cold.select_events(a, desc=True, limit=1, lte=7)) == [5]
    assert versions(cold.select_events(a, desc=True, limit=2)) == [8, 5]
    for version in (2, 5, 8):
        with pytest.raises(IntegrityError):
            factories().aggregate_recorder("snapshots").insert_events([event(a, version)])
    cold.insert_events([event(a, 9), event(a, 3)])
    assert versions(factories().aggregate_recorder("snapshots").select_events(a)) == [2, 3, 5, 8, 9]


@pytest.fixture(params=[False, True], ids=["remembering", "forgetful"])
def forgetful(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With memory for one short sequence, and without any bound that is met."""
    if request.param:
        monkeypatch.setattr("ledger.memory._BYTES", 1000)
        monkeypatch.setattr("ledger.memory._TAILS", 1)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 6), max_size=3), st.booleans()), max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_does_what_the_library_does_on_sqlite(
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
            events = [event(identifier, version, secrets.token_bytes(3)) for version in numbers]
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
    recorder.insert_events([event(b, 1)])
    for clash in (event(b, 1), event(b, 1, b"other")):
        with pytest.raises(IntegrityError):
            recorder_of(factories()).insert_events([event(a, 1), clash, event(c, 1)])
    assert not recorder.select_events(a)
    assert not recorder.select_events(c)
    assert recorder.insert_events([event(a, 1), event(b, 2), event(a, 2), event(c, 1)]) == [2, 3, 4, 5]


def test_1000_events_are_one_batch_and_1001_are_refused_whole(factories: Factories) -> None:
    recorder, a = recorder_of(factories()), uuid4()
    with pytest.raises(NotSupportedError, match="1000"):
        recorder.insert_events([event(a, version) for version in range(1, 1002)])
    assert recorder.max_notification_id() is None
    assert recorder.insert_events([event(a, version) for version in range(1, 1001)]) == list(range(1, 1001))
    assert len(recorder_of(factories()).select_events(a)) == 1000


def test_a_process_stores_events_and_tracking_together_or_not_at_all(factories: Factories) -> None:
    one, other = factories().process_recorder(), factories().process_recorder()
    a, b = uuid4(), uuid4()
    one.insert_events([event(a, 1)], tracking=Tracking("up", 7))
    for number in (6, 7):  # the other knows nothing of 7
        with pytest.raises(IntegrityError):
            other.insert_events([event(b, 1)], tracking=Tracking("up", number))
    with pytest.raises(IntegrityError):
        other.insert_events([event(a, 1)], tracking=Tracking("up", 8))
    assert not one.select_events(b)
    assert one.max_tracking_id("up") == 7
    other.insert_events([event(b, 1)], tracking=Tracking("up", 8))
    with pytest.raises(IntegrityError):
        one.insert_events([], tracking=Tracking("up", 8))
    ids = [found.originator_id for found in one.select_notifications(None, 9)]
    assert ids == [a, b]  # tracking is no event
    assert one.max_notification_id() == one.select_notifications(None, 9)[-1].id


def test_events_too_large_are_refused_by_name(factories: Factories) -> None:
    recorder, a = recorder_of(factories()), uuid4()
    with pytest.raises(DataError, match="too large"):
        recorder.insert_events([event(a, 1, b"x" * 2_000_000)])
    with pytest.raises(DataError, match="at once"):
        recorder.insert_events([event(a, version, b"x" * 500_000) for version in range(1, 70)])
    assert recorder.insert_events([event(a, 1, b"x" * 500_000)]) == [1]


# ---------------------------------------------------------------------- ids, topics, states


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=6, unique=True),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.binary(max_size=50)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.floats()).map(
        lambda d: json.dumps(d).encode()
    ),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_topics_and_states_come_back_as_they_were(
    shared_recorder: JetStreamApplicationRecorder, identifiers: list[str], topic: str, state: bytes
) -> None:
    batch = [event(f"{secrets.token_hex(4)}{identifier}", 1, state, topic) for identifier in identifiers]
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
    recorder.insert_events([event(identifier, 1, json.dumps(identifier).encode()) for identifier in HOSTILE])
    cold = recorder_of(factories())
    for identifier in HOSTILE:
        assert cold.select_events(identifier) == [event(identifier, 1, json.dumps(identifier).encode())]
        with pytest.raises(IntegrityError):
            cold.insert_events([event(identifier, 1)])
    assert [found.originator_id for found in cold.select_notifications(1, 99)] == HOSTILE


def test_what_utf_8_cannot_hold_is_refused(factories: Factories) -> None:
    recorder = recorder_of(factories())
    with pytest.raises(DataError, match="originator_id"):
        recorder.insert_events([event("\ud800", 1)])
    with pytest.raises(DataError, match="topic"):
        recorder.insert_events([event("a", 1, topic="\ud800")])
    with pytest.raises(DataError, match="64 bits"):
        recorder.insert_events([event("a", 2**63)])
    assert recorder.max_notification_id() is None


def test_a_uuid_and_its_text_are_one_sequence(factories: Factories) -> None:
    recorder, a = recorder_of(factories()), uuid4()
    recorder.insert_events([event(a, 1), event(str(a), 2)])
    assert [found.originator_id for found in recorder.select_events(str(a))] == [a, str(a)]


# ---------------------------------------------------------------------- time-outs, crashes, races


def test_an_acknowledgement_that_was_lost_is_no_conflict(factories: Factories, monkeypatch: pytest.MonkeyPatch) -> None:
    a = uuid4()
    original, lost = Replies.on_reply, list[bytes]()

    def lossy(self: Replies, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        if b'"seq"' in data and len(lost) < 2:
            lost.append(data)
        else:
            original(self, subject, reply, headers, data)

    monkeypatch.setattr(Replies, "on_reply", lossy)
    monkeypatch.setattr("ledger.log._ACK_SECONDS", 0.3)
    recorder = recorder_of(factories())
    assert recorder.insert_events([event(a, 1), event(a, 2)]) == [1, 2]
    assert recorder.insert_events([event(a, 3)]) == [3]
    assert len(lost) == 2
    assert versions(recorder_of(factories()).select_events(a)) == [1, 2, 3]


def test_the_same_event_of_somebody_else_is_a_conflict(factories: Factories) -> None:
    """Byte for byte the same, and yet not ours: only one may think that it recorded it."""
    a = uuid4()
    recorders = [recorder_of(factories()) for _ in range(4)]

    def insert(recorder: JetStreamApplicationRecorder) -> bool:
        try:
            recorder.insert_events([event(a, 1, b"same")])
        except IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(insert, recorders)) == 1


def test_a_server_that_pauses_delays_and_neither_loses_nor_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.log._ACK_SECONDS", 0.3)
    a = uuid4()
    with Server(tmp_path) as server:
        factory = JetStreamFactory({"NATS_URL": server.url})
        recorder = recorder_of(factory)
        recorder.insert_events([event(a, 1)])
        for version in range(2, 8):
            server.send(signal.SIGSTOP)
            threading.Timer(0.7, server.send, [signal.SIGCONT]).start()
            assert recorder.insert_events([event(a, version)]) == [version]
        assert versions(recorder.select_events(a)) == list(range(1, 8))
        factory.close()


def test_a_server_that_is_killed_and_started_again_is_found_again(tmp_path: Path) -> None:
    a, seen = uuid4(), list[int]()
    with Server(tmp_path) as server:
        factory = JetStreamFactory({"NATS_URL": server.url, "NATS_TIMEOUT": "20"})
        recorder = recorder_of(factory)

        def follow() -> None:
            with recorder.subscribe() as subscription:
                for notification in subscription:
                    seen.append(notification.id)
                    if notification.id == 6:
                        return

        follower = threading.Thread(target=follow)
        follower.start()
        for version in range(1, 7):
            if version % 2 == 0:
                server.stop(signal.SIGKILL)
                threading.Timer(0.5, server.start).start()
            assert recorder.insert_events([event(a, version)]) == [version]
            assert versions(recorder.select_events(a)) == list(range(1, version + 1))
        follower.join(30)
        assert seen == [1, 2, 3, 4, 5, 6]
        factory.close()


def test_nobody_there_is_said_in_time(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        factory = JetStreamFactory({"NATS_URL": server.url, "NATS_TIMEOUT": "1"})
        recorder = recorder_of(factory)
    begun = time.monotonic()
    for call in (lambda: recorder.select_events(uuid4()), recorder.max_notification_id):
        with pytest.raises(OperationalError):
            call()
    with pytest.raises(OperationalError):
        recorder.insert_events([event(uuid4(), 1)])
    other = JetStreamFactory({"NATS_URL": server.url, "NATS_TIMEOUT": "1"})
    with pytest.raises(OperationalError, match="no NATS server answers"):
        other.application_recorder()
    assert time.monotonic() - begun < 40
    factory.close()
    other.close()


RACER = """
import os, sys
from eventsourcing.persistence import IntegrityError, StoredEvent
from ledger.persistence import JetStreamFactory
name = sys.argv[1]
factory = JetStreamFactory(dict(os.environ))
recorder = factory.application_recorder()
won = 0
print("ready", flush=True)
sys.stdin.readline()
while True:
    version = len(recorder.select_events("shared")) + 1
    if version > 150:
        break
    try:
        recorder.insert_events([StoredEvent("shared", version, "t", name.encode()), StoredEvent(f"{name}-{version}", 1, "t", b"")])
        won += 1
    except IntegrityError:
        pass
print(won)
factory.close()
"""


def test_two_processes_race_and_each_version_is_won_once(es_env: dict[str, str], factories: Factories) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, name], cwd=ROOT, env=os.environ | es_env, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in "ab"
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    wins = [int(racer.communicate("go\n", timeout=100)[0]) for racer in together(racers)]
    recorder = recorder_of(factories())
    shared = recorder.select_events("shared")
    assert versions(shared) == list(range(1, 151))
    assert sum(wins) == 150
    for stored in shared:
        for name in "ab":
            expected = 1 if stored.state == name.encode() else 0
            assert len(recorder.select_events(f"{name}-{stored.originator_version}")) == expected


def together(racers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """Start them all before any is waited for."""
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    return racers


WRITER = """
import os
from uuid import uuid4
from eventsourcing.persistence import StoredEvent
from ledger.persistence import JetStreamFactory
recorder = JetStreamFactory(dict(os.environ)).application_recorder()
while True:
    a = uuid4()
    recorder.insert_events([StoredEvent(a, version, "t", b"{}") for version in range(1, 51)])
    print(a, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_batches(es_env: dict[str, str], factories: Factories) -> None:
    acknowledged = set[UUID]()
    for round_number in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER], cwd=ROOT, env=os.environ | es_env, text=True, stdout=subprocess.PIPE
        )
        assert writer.stdout
        acknowledged.add(UUID(writer.stdout.readline().strip()))
        time.sleep(0.02 * round_number)
        writer.kill()
        rest = writer.communicate(timeout=20)[0].splitlines()
        acknowledged |= {UUID(line) for line in rest if len(line) == 36}
    stored: dict[UUID | str, list[int]] = {}
    recorder = recorder_of(factories())
    for number, notification in enumerate(recorder.select_notifications(None, 10**6), 1):
        assert notification.id == number
        stored.setdefault(notification.originator_id, []).append(notification.originator_version)
    assert acknowledged <= stored.keys()
    assert all(found == list(range(1, 51)) for found in stored.values())
    recorder.insert_events([event(uuid4(), 1)])


class Orders(Application[UUID]):
    def place(self) -> None:
        self.save(Aggregate())


class Parcels(ProcessApplication[UUID]):
    @singledispatchmethod
    def policy(self, domain_event: object, processing_event: ProcessingEvent[UUID]) -> None:
        """One parcel for each order."""

    @policy.register
    def _(self, domain_event: Aggregate.Created, processing_event: ProcessingEvent[UUID]) -> None:
        processing_event.collect_events(Aggregate())


@pytest.mark.parametrize("runner_class", [SingleThreadedRunner, MultiThreadedRunner])
def test_a_system_of_applications_runs(es_env: dict[str, str], runner_class: type[Any]) -> None:
    """Orders lead to parcels, each once, also by a second runner that goes on where the first stopped."""
    streams = {f"{name.upper()}_NATS_STREAM": f"{name}{es_env['NATS_STREAM']}" for name in ("orders", "parcels")}
    env = {name: value for name, value in es_env.items() if name != "NATS_STREAM"} | streams
    for expected in (5, 10):
        with runner_class(System(pipes=[[Orders, Parcels]]), env) as runner:
            for _ in range(5):
                runner.get(Orders).place()
            parcels = runner.get(Parcels)
            deadline = time.monotonic() + 20
            while len(parcels.recorder.select_notifications(None, 99)) < expected and time.monotonic() < deadline:
                time.sleep(0.05)
            assert len(parcels.recorder.select_notifications(None, 99)) == expected
            assert parcels.recorder.max_tracking_id("Orders") == expected


# ---------------------------------------------------------------------- a cluster


def test_three_servers_lose_nothing_when_their_leader_is_killed(tmp_path: Path) -> None:
    written: dict[UUID, int] = {}
    with Cluster(tmp_path) as cluster:
        factory = JetStreamFactory({"NATS_URL": cluster.url, "NATS_REPLICAS": "3", "NATS_TIMEOUT": "60"})
        recorder = recorder_of(factory)
        ids = [uuid4() for _ in range(4)]
        stop = threading.Event()

        def write(identifier: UUID) -> None:
            version = 0
            while not stop.is_set():
                version += 1
                recorder.insert_events([event(identifier, version)])
                written[identifier] = version
                assert versions(recorder.select_events(identifier)) == list(range(1, version + 1))  # its own writes

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(write, identifier) for identifier in ids]
            try:
                for _ in range(2):
                    time.sleep(1.5)
                    leader = leader_of(factory)
                    cluster.servers[leader].stop(signal.SIGKILL)
                    time.sleep(1)
                    cluster.servers[leader].start()
                time.sleep(4)
            finally:
                stop.set()
            for one in running:
                one.result()
        assert min(written.values()) > 5
        factory.close()
        fresh = JetStreamFactory({"NATS_URL": cluster.url, "NATS_REPLICAS": "3", "NATS_TIMEOUT": "60"})
        recorder = recorder_of(fresh)
        for identifier, version in written.items():
            assert versions(recorder.select_events(identifier)) == list(range(1, version + 1))
            with pytest.raises(IntegrityError):
                recorder.insert_events([event(identifier, version)])
        fresh.close()


def leader_of(factory: JetStreamFactory) -> int:
    """The number of the server that leads the stream of events; waits until one is elected."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OperationalError):
            info = factory._bridge.run(lambda client: js_api(client, "STREAM.INFO.stored_events"))
            if leader := info.get("cluster", {}).get("leader"):
                return int(leader[1:])
        time.sleep(0.1)
    raise AssertionError("nobody leads")


# ---------------------------------------------------------------------- threads, forks, closing


def test_it_may_be_called_from_any_thread_and_from_within_a_loop(factories: Factories) -> None:
    recorder = recorder_of(factories())

    async def inside() -> int | None:
        recorder.insert_events([event(uuid4(), 1)])
        return recorder.max_notification_id()

    assert asyncio.run(inside()) == 1
    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(lambda _: recorder.insert_events([event(uuid4(), 1), event(uuid4(), 1)]), range(200)))
    assert sorted(number for ids in found for number in ids or ()) == list(range(2, 402))

    def from_its_own_thread() -> None:
        with pytest.raises(InterfaceError, match="thread"):
            recorder.max_notification_id()
        answered.set()

    answered = threading.Event()
    recorder._bridge.soon(from_its_own_thread)
    assert answered.wait(5)


def test_what_is_closed_says_so_and_whoever_waits_is_told(factories: Factories) -> None:
    factory = factories()
    recorder = recorder_of(factory)
    subscription = recorder.subscribe()
    ended = list[type[BaseException]]()

    def follow() -> None:
        try:
            next(subscription)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the test asks for
            ended.append(type(error))

    follower = threading.Thread(target=follow)
    follower.start()
    time.sleep(0.3)
    factory.close()
    factory.close()
    follower.join(5)
    assert ended == [InterfaceError]
    with pytest.raises(InterfaceError, match="closed"):
        recorder.insert_events([event(uuid4(), 1)])
    subscription.stop()


def test_a_subscription_that_is_left_closes_its_connection(factories: Factories) -> None:
    recorder = recorder_of(factories())
    recorder.insert_events([event(uuid4(), 1)])
    for _ in range(3):
        with recorder.subscribe() as subscription:
            assert next(subscription).id == 1
    waiting = recorder.subscribe(gt=1)
    threading.Timer(0.3, waiting.stop).start()
    assert list(waiting) == []
    deadline = time.monotonic() + 5
    while len(recorder._bridge._clients) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(recorder._bridge._clients) == 1


def test_an_application_that_is_forgotten_leaves_no_thread(es_env: dict[str, str]) -> None:
    def use() -> None:
        Application[UUID](es_env).save(Aggregate())

    before = threading.active_count()
    for _ in range(5):
        use()
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before


FORKER = """
import os, sys
from eventsourcing.persistence import InterfaceError, StoredEvent
from ledger.persistence import JetStreamFactory
factory = JetStreamFactory(dict(os.environ))
recorder = factory.application_recorder()
recorder.insert_events([StoredEvent("a", 1, "t", b"")])
child = os.fork()
if child == 0:
    try:
        recorder.select_events("a")
    except InterfaceError as error:
        assert "fork" in str(error)
        factory.close()
        with JetStreamFactory(dict(os.environ)) as own:
            own.application_recorder().insert_events([StoredEvent("a", 2, "t", b"")])
            own.close()
        sys.exit(7)
    sys.exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
recorder.insert_events([StoredEvent("a", 3, "t", b"")])
assert len(recorder.select_events("a")) == 3
print("done")
"""


def test_a_fork_is_told_and_does_not_disturb_its_parent(es_env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKER],
        cwd=ROOT,
        env=os.environ | es_env,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr


# ---------------------------------------------------------------------- settings


def test_settings_that_are_missing_or_wrong_are_named() -> None:
    with pytest.raises(OSError, match="NATS_URL"):
        JetStreamFactory({})
    for wrong in ({"NATS_REPLICAS": "x"}, {"NATS_REPLICAS": "0"}, {"NATS_TIMEOUT": "-1"}, {"NATS_TIMEOUT": "nan"}, {"NATS_STREAM": "a.b"},
                  {"NATS_SUBJECT_PREFIX": "a*"}):  # fmt: skip
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
