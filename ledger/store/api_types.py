"""Shapes of the JetStream API: configurations of streams and consumers, and answers, with the fields in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from ledger.errors import ApiError


class StreamConfig(TypedDict, total=False):
    """A stream's configuration, as the server reports it; durations in nanoseconds."""

    name: str
    subjects: list[str]
    subject_transform: dict[str, str]
    mirror: dict[str, str | int]
    num_replicas: int
    max_msgs_per_subject: int
    duplicate_window: int
    sealed: bool
    metadata: dict[str, str]


class StreamState(TypedDict, total=False):
    """The messages of a stream."""

    messages: int
    first_seq: int
    first_ts: str
    last_seq: int
    consumer_count: int
    num_deleted: int
    deleted: list[int]
    subjects: dict[str, int]


class SequenceInfo(TypedDict, total=False):
    """A consumer's progress: stream sequence, consumer sequence and time."""

    stream_seq: int
    consumer_seq: int
    last_active: str


class Replica(TypedDict, total=False):
    """A copy of a stream on another server than the leader's; ``active`` in nanoseconds."""

    name: str
    current: bool
    offline: bool
    active: int
    lag: int


class Cluster(TypedDict, total=False):
    """The servers that hold a stream."""

    leader: str
    replicas: list[Replica]


class StoredMessage(TypedDict, total=False):
    """A message in an answer to STREAM.MSG.GET; ``data`` and ``hdrs`` in base64."""

    seq: int
    subject: str
    time: str
    data: str
    hdrs: str


class StreamInfo(TypedDict, total=False):
    """A stream in an answer to STREAM.LIST."""

    config: StreamConfig
    state: StreamState
    created: str
    cluster: Cluster


class ApiAnswer(StreamInfo, total=False):
    """An answer of the API: ``error``, or the fields of the answers to the requests in use."""

    error: ApiError
    ts: str
    message: StoredMessage
    delivered: SequenceInfo
    ack_floor: SequenceInfo
    num_ack_pending: int
    num_pending: int
    num_waiting: int
    total: int
    consumers: list[str]
    streams: list[str | StreamInfo]
    storage: int
    limits: dict[str, int]
