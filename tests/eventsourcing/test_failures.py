"""The `eventsourcing` module where things go wrong: time-outs, crashes, races, a cluster."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import (
    IntegrityError,
    OperationalError,
)

from ledger.eventsourcing.recorders import JetStreamApplicationRecorder
from ledger.nats.request_reply import RequestReply
from ledger.persistence import JetStreamFactory
from ledger.store.streams import js_api
from tests.support.environment import ROOT
from tests.support.nats_servers import Cluster, Server
from tests.support.recorder_helpers import recorder_of, stored_event, versions

pytestmark = pytest.mark.integration

Factories = Callable[[], JetStreamFactory]


def test_an_acknowledgement_that_was_lost_is_no_conflict(factories: Factories, monkeypatch: pytest.MonkeyPatch) -> None:
    a = uuid4()
    original, lost = RequestReply.on_reply, list[bytes]()

    def lossy(self: RequestReply, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        if b'"seq"' in data and len(lost) < 2:
            lost.append(data)
        else:
            original(self, subject, reply, headers, data)

    monkeypatch.setattr(RequestReply, "on_reply", lossy)
    monkeypatch.setattr("ledger.store.log._ACK_SECONDS", 0.3)
    recorder = recorder_of(factories())
    assert recorder.insert_events([stored_event(a, 1), stored_event(a, 2)]) == [1, 2]
    assert recorder.insert_events([stored_event(a, 3)]) == [3]
    assert len(lost) == 2
    assert versions(recorder_of(factories()).select_events(a)) == [1, 2, 3]


def test_an_equal_event_of_another_writer_is_a_conflict(factories: Factories) -> None:
    """Byte for byte the same, and yet not ours: only one may think that it recorded it."""
    a = uuid4()
    recorders = [recorder_of(factories()) for _ in range(4)]

    def insert(recorder: JetStreamApplicationRecorder) -> bool:
        try:
            recorder.insert_events([stored_event(a, 1, b"same")])
        except IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(insert, recorders)) == 1


def test_a_server_that_pauses_delays_and_neither_loses_nor_doubles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.store.log._ACK_SECONDS", 0.3)
    a = uuid4()
    with Server(tmp_path) as server:
        factory = JetStreamFactory({"NATS_URL": server.url})
        recorder = recorder_of(factory)
        recorder.insert_events([stored_event(a, 1)])
        for version in range(2, 8):
            server.send(signal.SIGSTOP)
            threading.Timer(0.7, server.send, [signal.SIGCONT]).start()
            assert recorder.insert_events([stored_event(a, version)]) == [version]
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
            assert recorder.insert_events([stored_event(a, version)]) == [version]
            assert versions(recorder.select_events(a)) == list(range(1, version + 1))
        follower.join(30)
        assert seen == [1, 2, 3, 4, 5, 6]
        factory.close()


def test_a_missing_server_is_an_error_in_time(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        factory = JetStreamFactory({"NATS_URL": server.url, "NATS_TIMEOUT": "1"})
        recorder = recorder_of(factory)
    begun = time.monotonic()
    for call in (lambda: recorder.select_events(uuid4()), recorder.max_notification_id):
        with pytest.raises(OperationalError):
            call()
    with pytest.raises(OperationalError):
        recorder.insert_events([stored_event(uuid4(), 1)])
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
        subprocess.Popen(
            [sys.executable, "-c", RACER, name],
            cwd=ROOT,
            env=os.environ | es_env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in "ab"
    ]
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
    recorder.insert_events([stored_event(uuid4(), 1)])


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
                recorder.insert_events([stored_event(identifier, version)])
                written[identifier] = version
                assert versions(recorder.select_events(identifier)) == list(range(1, version + 1))  # its own writes

        def everybody_writes_on() -> None:
            """However long a busy machine takes."""
            before, deadline = {one: written.get(one, 0) for one in ids}, time.monotonic() + 60
            while any(written.get(one, 0) < before[one] + 2 for one in ids):
                assert time.monotonic() < deadline, (before, written)
                assert not any(one.done() for one in running), [one.exception() for one in running if one.done()]
                time.sleep(0.05)

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(write, identifier) for identifier in ids]
            try:
                for _ in range(2):
                    everybody_writes_on()
                    leader = leader_of(factory)
                    cluster.servers[leader].stop(signal.SIGKILL)
                    time.sleep(1)
                    cluster.servers[leader].start()
                everybody_writes_on()
            finally:
                stop.set()
            for one in running:
                one.result()
        assert min(written.values()) >= 6
        factory.close()
        fresh = JetStreamFactory({"NATS_URL": cluster.url, "NATS_REPLICAS": "3", "NATS_TIMEOUT": "60"})
        recorder = recorder_of(fresh)
        for identifier, version in written.items():
            assert versions(recorder.select_events(identifier)) == list(range(1, version + 1))
            with pytest.raises(IntegrityError):
                recorder.insert_events([stored_event(identifier, version)])
        fresh.close()


def leader_of(factory: JetStreamFactory) -> int:
    """Return the number of the server that leads the stream of events, once one is elected."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OperationalError):
            info = factory._loop_thread.run(lambda client: js_api(client, "STREAM.INFO.stored_events"))
            if leader := info.get("cluster", {}).get("leader"):
                return int(leader[1:])
        time.sleep(0.1)
    raise AssertionError("nobody leads")
