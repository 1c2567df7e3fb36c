"""Persistence module of the `eventsourcing` library on JetStream: ``PERSISTENCE_MODULE=ledger.persistence``.

Settings from the application's environment, optionally with the application's name as a prefix, as in that library
(``BANKACCOUNTS_NATS_STREAM``); `docs/integrate/eventsourcing.md` explains them:

NATS_URL             one or more servers, separated by commas: nats:// or tls://; required
NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CREDENTIALS (a .creds file), NATS_NKEY (a file with a user's seed)
NATS_TLS_CA, NATS_TLS_CERT, NATS_TLS_KEY (PEM files), NATS_TLS_FIRST (``yes``: TLS before anything else)
NATS_INBOX_PREFIX    prefix of the subjects of answers; ``_INBOX``
NATS_STREAM          prefix of the streams' names; the application's name in lower case, else ``stored``
NATS_SUBJECT_PREFIX  first token of every subject; ``es``
NATS_REPLICAS        number of servers that hold each stream; 1
NATS_TIMEOUT         seconds to retry while no server answers; 10
CREATE_TABLE         ``no``: an operator has created the streams; ``yes``
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment, EnvType, resolve_topic, strtobool

from ledger.eventsourcing.event_loop_thread import EventLoopThread
from ledger.eventsourcing.recorders import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamProcessRecorder,
    JetStreamRecorder,
    JetStreamTrackingRecorder,
)
from ledger.eventsourcing.versioned_streams import event_stream_config
from ledger.nats.client import connect
from ledger.nats.connection_options import ConnectionOptionError, ConnectionOptions
from ledger.store.streams import syncs_always, verify_version
from ledger.store.subject_tokens import token_of_id

if TYPE_CHECKING:
    from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder, ProcessRecorder

    from ledger.nats.client import LedgerClient

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_%:~-]+")
_MOST = 1_000_000
_OPTIONS = ("user", "password", "token", "creds", "nkey", "tls_ca", "tls_cert", "tls_key", "inbox_prefix")
_CONNECTION = {option: f"NATS_{option.upper()}" for option in _OPTIONS} | {"creds": "NATS_CREDENTIALS"}


class JetStreamFactory(InfrastructureFactory[JetStreamTrackingRecorder]):
    """Constructs recorders that share one connection, from the settings above."""

    aggregate_recorder_class = JetStreamAggregateRecorder
    application_recorder_class = JetStreamApplicationRecorder
    tracking_recorder_class = JetStreamTrackingRecorder
    process_recorder_class = JetStreamProcessRecorder

    def __init__(self, env: Environment | EnvType | None) -> None:
        """Read the settings; the first recorder connects.

        Raises:
            OSError: a setting is missing or invalid, as in the library's other modules.
        """
        super().__init__(env)
        self._patience_seconds = self._number("NATS_TIMEOUT", "10", float)
        self._replicas = self._number("NATS_REPLICAS", "1", int)
        self._prefix = self._setting("NATS_SUBJECT_PREFIX") or "es"
        self._stream = self._setting("NATS_STREAM") or token_of_id(self.env.name.lower()) or "stored"
        for name, value in (("NATS_SUBJECT_PREFIX", self._prefix), ("NATS_STREAM", self._stream)):
            if not _NAME.fullmatch(value):
                raise OSError(f"{name} is {value!r}: letters, digits, -, _ and % only")
        self._create = bool(strtobool(self._setting("CREATE_TABLE") or "yes"))
        self._loop_thread = EventLoopThread(partial(_connect, self._server(), self._patience_seconds))

    def _setting(self, name: str) -> str:
        return (self.env.get(name) or "").strip()

    def _number[N: (int, float)](self, name: str, default: str, kind: type[N]) -> N:
        text = self._setting(name) or default
        try:
            number = kind(text)
        except ValueError:
            number = kind(0)
        if not 0 < number < _MOST:
            raise OSError(f"{name} is {text!r}: a number above 0 is expected")
        return number

    def _server(self) -> ConnectionOptions:
        url = self._setting("NATS_URL")
        if not url:
            keys = ", ".join(self.env.create_keys("NATS_URL"))
            raise OSError(f"NATS server not found in environment with keys: {keys}; for example nats://127.0.0.1:4222")
        options: dict[str, Any] = {option: self._setting(name) for option, name in _CONNECTION.items()}
        tls_first = strtobool(self._setting("NATS_TLS_FIRST") or "no")
        try:
            return ConnectionOptions.of(url, tls_first=bool(tls_first), **options)
        except ConnectionOptionError as error:
            raise OSError(f"{_CONNECTION.get(error.option, 'NATS_URL')}: {error.reason}") from None

    def _recorder[R: JetStreamRecorder](self, recorder_class: type[R], purpose: str) -> R:
        config = event_stream_config(f"{self._stream}_{purpose}", self._prefix, self._replicas)
        return recorder_class(self._loop_thread, config, self._patience_seconds, create=self._create)

    def _class_from[R: JetStreamRecorder](self, setting: str, default: type[R]) -> type[R]:
        topic = self._setting(setting)
        found: type[R] = resolve_topic(topic) if topic else default
        if not issubclass(found, default):
            raise OSError(f"{setting} is {topic!r}: not a subclass of {default.__name__}")
        return found

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return a recorder of events, or of ``snapshots``, each in its own stream."""
        return self._recorder(self.aggregate_recorder_class, purpose)

    def application_recorder(self) -> ApplicationRecorder:
        """Return a recorder for an application; APPLICATION_RECORDER_TOPIC may name a subclass."""
        return self._recorder(
            self._class_from(self.APPLICATION_RECORDER_TOPIC, self.application_recorder_class), "events"
        )

    def tracking_recorder(
        self, tracking_recorder_class: type[JetStreamTrackingRecorder] | None = None
    ) -> JetStreamTrackingRecorder:
        """Return a recorder for a materialised view; TRACKING_RECORDER_TOPIC may name a subclass."""
        return self._recorder(
            tracking_recorder_class or self._class_from(self.TRACKING_RECORDER_TOPIC, self.tracking_recorder_class),
            "tracking",
        )

    def process_recorder(self) -> ProcessRecorder:
        """Return a recorder for an application that follows others; PROCESS_RECORDER_TOPIC may name a subclass."""
        return self._recorder(self._class_from(self.PROCESS_RECORDER_TOPIC, self.process_recorder_class), "events")

    def close(self) -> None:
        """Close the connection; this ends the factory's recorders and subscriptions."""
        self._loop_thread.close()


async def _connect(server: ConnectionOptions, patience_seconds: float) -> LedgerClient:
    client = await connect(server, "eventsourcing", wait_seconds=patience_seconds)
    try:
        verify_version(client)
        if await syncs_always(client) is False:
            _log.warning("the NATS server acknowledges events before they are on disk: set `sync_interval: always`")
    except BaseException:
        await client.close()
        raise
    return client


Factory = JetStreamFactory
