"""Streams, consumers and subjects, as data (contract: Subjects)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable

INBOX_SUBJECT = "resolution.inbox"
IMPORT_SUBJECT = "resolution.import"
SOURCE_SUBJECT = "in"
"""The server maps a known source's inbox to this subject once the source has its own stream."""
DECIDE_SUBJECT = "resolution.decide"
OPERATE_SUBJECT = "resolution.operate"
"""Requests of the ledger's own commands and page: the server lets no source publish here."""
READ_SUBJECT = "resolution.read"
VIEWS_SUBJECT = "resolution.views"
ESCALATION_SUBJECT = "resolution.notify.escalation"
"""One subject below it for each source: the steps of the escalations that the source filed."""
ROLES = ("intake", "decisions", "projections", "guard", "seal", "archive", "webhooks", "dashboard")
ROLES_SUBJECT = "resolution.roles"
"""Each process with a role answers to ``resolution.roles.<role>``; upstreams may not ask."""
SEAL_SUBJECT = "resolution.seal"
"""The process that seals answers here with public files and tiles of the seal; upstreams may not ask."""
FACT_SUBJECT = "ledger.fact"
BUDGET_SUBJECT = "ledger.budget"
CUSTOMER_SUBJECT = "ledger.customer"
ORDER_SUBJECT = "ledger.order"
REFUSED_SUBJECT = "ledger.refused"
POLICY_SUBJECT = "ledger.policy"
SOURCES_SUBJECT = "ledger.sources"
FLAG_SUBJECT = "ledger.flag"
CASE_SUBJECT = "ledger.case"
REJECTED_SUBJECT = "rejected"

MAX_EVENT_BYTES = 48 * 1024
MAX_STORED_BYTES = 56 * 1024
MAX_ENCRYPTED_BYTES = 62 * 1024
"""The limit after encryption of personal fields, which makes an event a quarter longer."""
INBOX = "INBOX"
"""The inbox that unknown sources share."""
IMPORT = "IMPORT"
"""The inbox of this program's own commands, which publish in atomic batches."""
LEDGER = "LEDGER"
REJECTED = "REJECTED"
NOTIFY = "NOTIFY"
ALARM = "ALARM"
KEYS = "KV_ledger-keys"
SESSIONS = "KV_ledger-sessions"
"""Sessions of the page, which every dashboard process sees."""
SESSIONS_SUBJECT = "$KV.ledger-sessions"
TOKENS = "KV_ledger-tokens"
"""Tokens of the HTTP API, by their hashes, which every dashboard process reads (dashboard/auth/tokens.py)."""
TOKENS_SUBJECT = "$KV.ledger-tokens"
LEASES = "KV_ledger-leases"
"""Which process works, of those that stand by for one another (ledger/store/lease.py)."""
SNAPSHOTS = "OBJ_ledger-snapshots"
"""An object store with copies of roles' state, from which a fresh machine starts (ledger/store/snapshots.py)."""
SNAPSHOTS_SUBJECT = "$O.ledger-snapshots"
SEAL = "SEAL"
WEBHOOKS = "WEBHOOKS"
INTAKE_CONSUMER = "intake"
INTAKE_BATCH = 1000
SOURCES_AT_MOST = 500
"""Known sources with their own inbox stream; others share ``INBOX`` until one of these is idle."""
ROUTES_AT_ONCE = 50
ROUTES_A_SECOND = 2.0
"""Limit of new streams: a burst, then a rate, so that one sender cannot use up all of them in a moment."""
SOURCE_BYTES = 64 * 1024 * 1024
SHARED_MESSAGES = 50_000
SHARED_MESSAGES_A_SOURCE = 10_000
LEDGER_SUBJECTS = "ledger.>"
RETIRING_SUBJECT = "ledger.retiring"
"""The subject of the complete copy while ``LEDGER`` is absent, so that the server refuses an empty ``LEDGER``."""
TOKENS_SINCE = "resolution-ledger-tokens-since"
"""Metadata of ``INBOX``: up to this position of the log, requests were named by tokens that sources may share."""
REJECTED_DAYS = 30
NOTIFY_DAYS = 7
SESSION_HOURS = 12
SESSIONS_KEPT = 10_000
"""Sessions at the same time; the server drops the oldest first."""
_NOTIFICATIONS_A_SUBJECT = 100_000
_SECOND_NS = 1_000_000_000
_HOUR_NS = 3600 * _SECOND_NS
_DAY_NS = 24 * _HOUR_NS
SHORTEST_WINDOW_NS = 100_000_000
"""Within it the server drops a second message with one ``Nats-Msg-Id``; it allows no shorter window."""
_PLAIN_TOKEN = re.compile(r"[a-z0-9_-]{1,64}")


class DeclaredStream(TypedDict, total=False):
    """The declared fields of a stream, in the JetStream API's form; durations in nanoseconds."""

    name: str
    subjects: list[str]
    subject_transform: dict[str, str]
    storage: str
    retention: str
    num_replicas: int
    max_msgs: int
    max_bytes: int
    max_msgs_per_subject: int
    max_msg_size: int
    max_age: int
    discard: str
    discard_new_per_subject: bool
    duplicate_window: int
    allow_atomic: bool
    allow_direct: bool
    allow_rollup_hdrs: bool
    deny_delete: bool
    deny_purge: bool


class ConsumerConfig(TypedDict):
    """The declared fields of a consumer; durations in nanoseconds."""

    durable_name: str
    ack_policy: str
    ack_wait: int
    deliver_policy: str
    max_ack_pending: int
    max_deliver: int


def _common(replicas: int) -> DeclaredStream:
    return {
        "storage": "file",
        "retention": "limits",
        "num_replicas": replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msgs_per_subject": -1,
        "max_age": 0,
        "discard": "new",
        "duplicate_window": 2 * 60 * _SECOND_NS,
        "allow_atomic": True,
        "allow_direct": True,
    }


def _inbox(replicas: int) -> DeclaredStream:
    """Return the settings that all inboxes of upstreams share.

    Inboxes are trimmed behind the intake's ack floor, never by age: a PubAck means that the message will be recorded.
    ``Nats-Msg-Id`` is deduplicated for the shortest time that the server allows. There are no atomic batches, of which
    a
    stream has at most 50 open.
    """
    return _common(replicas) | {
        "max_msg_size": MAX_EVENT_BYTES,
        "duplicate_window": SHORTEST_WINDOW_NS,
        "allow_atomic": False,
    }


def source_stream(token: str, replicas: int = 1) -> DeclaredStream:
    """Return the inbox stream of one known source, by its token, e.g. ``INBOX_crm``."""
    return _inbox(replicas) | {
        "name": source_stream_name(token),
        "subjects": [f"{SOURCE_SUBJECT}.{token}"],
        "subject_transform": {"src": f"{SOURCE_SUBJECT}.{token}", "dest": f"{INBOX_SUBJECT}.{token}"},
        "max_bytes": SOURCE_BYTES,
    }


def source_stream_name(token: str) -> str:
    """Return the name of a source's inbox stream, unique for each token even if file names ignore case."""
    if _PLAIN_TOKEN.fullmatch(token):
        return f"{INBOX}_{token}"
    readable = re.sub(r"[^a-z0-9_-]", "", token.lower())[:32]
    return f"{INBOX}_{readable}~{hashlib.sha256(token.encode()).hexdigest()[:24]}"


def source_route(token: str) -> tuple[str, str]:
    """Return the subject that a known source publishes to, and the one that the server maps it to."""
    return f"{INBOX_SUBJECT}.{token}", f"{SOURCE_SUBJECT}.{token}"


def inbox_streams(streams: Iterable[str]) -> list[str]:
    """Return the names of streams that the intake reads; the shared one first."""
    return [name for name in (INBOX, IMPORT) if name in streams] + sorted(
        name for name in streams if name.startswith(f"{INBOX}_")
    )


def earlier_inbox_fields(replicas: int = 1) -> DeclaredStream:
    """Return the fields that identify ``INBOX`` of an earlier version, which any sender could fill."""
    common = _common(replicas)
    return {
        "max_msgs": common["max_msgs"],
        "max_msgs_per_subject": common["max_msgs_per_subject"],
        "duplicate_window": common["duplicate_window"],
        "allow_atomic": common["allow_atomic"],
    }


def _notify(replicas: int) -> DeclaredStream:
    """Return the stream of notifications. A flood on one subject shortens the time of that subject alone."""
    return _common(replicas) | {
        "name": NOTIFY,
        "subjects": ["resolution.notify.>"],
        "max_age": NOTIFY_DAYS * _DAY_NS,
        "max_msgs_per_subject": _NOTIFICATIONS_A_SUBJECT,
        "max_msg_size": 64 * 1024,
        "discard": "old",
    }


def _book(replicas: int) -> DeclaredStream:
    """Return the settings of a stream that keeps the last message of each subject."""
    return _common(replicas) | {"max_msg_size": 64 * 1024, "max_msgs_per_subject": 1, "discard": "old"}


_SESSIONS_FIELDS: DeclaredStream = {
    "name": SESSIONS,
    "subjects": [f"{SESSIONS_SUBJECT}.>"],
    "max_age": SESSION_HOURS * _HOUR_NS,
    "max_msgs": SESSIONS_KEPT,
}


_BUCKETS = (TOKENS.removeprefix("KV_"), LEASES.removeprefix("KV_"))


_SNAPSHOTS_FIELDS: DeclaredStream = {
    "name": SNAPSHOTS,
    "subjects": [f"{SNAPSHOTS_SUBJECT}.C.>", f"{SNAPSHOTS_SUBJECT}.M.>"],
    "allow_atomic": False,
    "allow_rollup_hdrs": True,
}


def ledger_subjects(retired_until: int = 0) -> DeclaredStream:
    """Return the fields by which ``LEDGER`` takes events, after those up to a position were retired.

    The events keep their subjects. A process that does not know of the retirement publishes to other subjects, and the
    server refuses its events.
    """
    if not retired_until:
        return {"subjects": [LEDGER_SUBJECTS]}
    since = f"ledger.since{retired_until + 1}.>"
    return {"subjects": [since], "subject_transform": {"src": since, "dest": LEDGER_SUBJECTS}}


def stream_configs(replicas: int = 1, retired_until: int = 0) -> list[DeclaredStream]:
    """Return the streams of each ledger; events up to ``retired_until`` have left ``LEDGER``."""
    common = _common(replicas)
    return [
        # Bounded for each sender, so that a flood of one sender does not block others.
        _inbox(replicas)
        | {
            "name": INBOX,
            "subjects": [f"{INBOX_SUBJECT}.*"],
            "max_msgs": SHARED_MESSAGES,
            "max_msgs_per_subject": SHARED_MESSAGES_A_SOURCE,
            "discard_new_per_subject": True,
        },
        # Kept forever. An entry is below 65,535 bytes, the limit of a C2SP tile's entry.
        common
        | {
            "name": LEDGER,
            "max_msg_size": 63 * 1024,
            "deny_delete": True,
            "deny_purge": True,
        }
        | ledger_subjects(retired_until),
        # Kept 30 days; deletable, since a successful retry settles an entry.
        common
        | {
            "name": REJECTED,
            "subjects": [f"{REJECTED_SUBJECT}.>"],
            "max_age": REJECTED_DAYS * _DAY_NS,
            "max_msg_size": 128 * 1024,
        },
        _notify(replicas),
        # Keys of persons in their own bucket: deletable, so that a key can be destroyed.
        _book(replicas) | {"name": KEYS, "subjects": ["$KV.ledger-keys.>"]},
        # Hashes of the cookies of browsers (dashboard/auth/sessions.py).
        _book(replicas) | _SESSIONS_FIELDS,
        *(_book(replicas) | {"name": f"KV_{name}", "subjects": [f"$KV.{name}.>"]} for name in _BUCKETS),
        # In the form of an object store, as nats-py and other clients make it.
        common | _SNAPSHOTS_FIELDS,
        # Begun seals with their keys, and one of the last checkpoints (ledger/transparency/seal_record.py).
        common
        | {
            "name": SEAL,
            "subjects": ["seal.>"],
            "max_age": 0,
            "max_msg_size": 1024 * 1024,
            "max_msgs_per_subject": 1,
            "discard": "old",
            "deny_delete": True,
            "deny_purge": True,
        },
        # Subscriptions, their progress and their dead letters (projections/webhooks.py).
        _book(replicas) | {"name": WEBHOOKS, "subjects": ["webhooks.>"]},
        # The last alarm, while it is on (ledger/transparency/alarm.py); only the operator clears it.
        common
        | {
            "name": ALARM,
            "subjects": ["alarm.>"],
            "max_msg_size": 16 * 1024,
            "max_msgs_per_subject": 1,
            "discard": "old",
        },
        # Upstreams cannot publish here, so batches are allowed; without them an import takes ten times as long.
        common
        | {
            "name": IMPORT,
            "subjects": [f"{IMPORT_SUBJECT}.*"],
            "subject_transform": {"src": f"{IMPORT_SUBJECT}.*", "dest": f"{INBOX_SUBJECT}.{{{{wildcard(1)}}}}"},
            "max_msg_size": MAX_EVENT_BYTES,
        },
    ]


def intake_consumer() -> ConsumerConfig:
    """Return the durable consumer through which any intake process reads an inbox."""
    return {
        "durable_name": INTAKE_CONSUMER,
        "ack_policy": "explicit",
        "ack_wait": 30 * _SECOND_NS,
        "deliver_policy": "all",
        "max_ack_pending": 4 * INTAKE_BATCH,
        "max_deliver": -1,
    }
