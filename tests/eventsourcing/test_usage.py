"""The `eventsourcing` module as programs use it: threads, loops, forks, closing, systems of applications."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import (
    InterfaceError,
)
from eventsourcing.system import MultiThreadedRunner, ProcessApplication, SingleThreadedRunner, System

from ledger.persistence import JetStreamFactory
from tests.support.environment import ROOT
from tests.support.recorder_helpers import recorder_of, stored_event

Factories = Callable[[], JetStreamFactory]


def test_recorders_are_called_from_any_thread_and_within_an_event_loop(factories: Factories) -> None:
    recorder = recorder_of(factories())

    async def inside() -> int | None:
        recorder.insert_events([stored_event(uuid4(), 1)])
        return recorder.max_notification_id()

    assert asyncio.run(inside()) == 1
    with ThreadPoolExecutor(40) as pool:
        found = list(
            pool.map(lambda _: recorder.insert_events([stored_event(uuid4(), 1), stored_event(uuid4(), 1)]), range(200))
        )
    assert sorted(number for ids in found for number in ids or ()) == list(range(2, 402))

    def from_its_own_thread() -> None:
        with pytest.raises(InterfaceError, match="thread"):
            recorder.max_notification_id()
        answered.set()

    answered = threading.Event()
    recorder._loop_thread.call_soon(from_its_own_thread)
    assert answered.wait(5)


def test_a_closed_factory_refuses_calls_and_ends_waiting_ones(factories: Factories) -> None:
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
        recorder.insert_events([stored_event(uuid4(), 1)])
    subscription.stop()


def test_calls_made_before_a_close_are_still_answered(factories: Factories) -> None:
    factory = factories()
    recorder = recorder_of(factory)
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(recorder.insert_events, [stored_event(uuid4(), 1)]) for _ in range(20)]
        while len(recorder._loop_thread._running_calls) < 20 and not all(one.done() for one in asked):
            time.sleep(0)
        factory.close()
    assert sorted(number for one in asked for number in one.result() or ()) == list(range(1, 21))


def test_a_subscription_that_is_left_closes_its_connection(factories: Factories) -> None:
    recorder = recorder_of(factories())
    recorder.insert_events([stored_event(uuid4(), 1)])
    for _ in range(3):
        with recorder.subscribe() as subscription:
            assert next(subscription).id == 1
    waiting = recorder.subscribe(gt=1)
    threading.Timer(0.3, waiting.stop).start()
    assert list(waiting) == []
    deadline = time.monotonic() + 5
    while len(recorder._loop_thread._clients) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(recorder._loop_thread._clients) == 1


def test_a_subscription_goes_on_after_ctrl_c(factories: Factories) -> None:
    recorder = recorder_of(factories())
    recorder.insert_events([stored_event(uuid4(), 1)])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with recorder.subscribe() as subscription:
            assert next(subscription).id == 1
            threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
            with pytest.raises(KeyboardInterrupt):
                next(subscription)
            recorder.insert_events([stored_event(uuid4(), 1)])
            assert next(subscription).id == 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_discarded_application_leaves_no_thread(es_env: dict[str, str]) -> None:
    def use() -> None:
        Application[UUID](es_env).save(Aggregate())

    before = threading.active_count()
    for _ in range(5):
        use()
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


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


def test_a_forked_process_gets_an_error_and_does_not_disturb_its_parent(es_env: dict[str, str]) -> None:
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


class Orders(Application[UUID]):
    def place(self) -> None:
        self.save(Aggregate())


class Parcels(ProcessApplication[UUID]):
    @singledispatchmethod
    def policy(self, domain_event: object, processing_event: ProcessingEvent[UUID]) -> None:
        """Record one parcel for each order."""

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
