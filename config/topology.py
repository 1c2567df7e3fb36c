"""Streams, consumers and subjects, as data (contract: Subjects)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

INBOX_SUBJECT = "resolution.inbox"
IMPORT_SUBJECT = "resolution.import"
SOURCE_SUBJECT = "in"
"""The subject to which the server maps a known source's inbox, once that source has a stream of its own."""
DECIDE_SUBJECT = "resolution.decide"
READ_SUBJECT = "resolution.read"
VIEWS_SUBJECT = "resolution.views"
ESCALATION_SUBJECT = "resolution.notify.escalation"
DECIDERS_SUBJECT = "resolution.deciders"
INTAKES_SUBJECT = "resolution.intakes"
ROLES = ("intake", "decisions", "projections", "guard", "seal", "archive", "dashboard")
ROLES_SUBJECT = "resolution.roles"
"""Each process with a role answers to ``resolution.roles.<role>``; no upstream may ask."""
FACT_SUBJECT = "ledger.fact"
BUDGET_SUBJECT = "ledger.budget"
CUSTOMER_SUBJECT = "ledger.customer"
REFUSED_SUBJECT = "ledger.refused"
POLICY_SUBJECT = "ledger.policy"
FLAG_SUBJECT = "ledger.flag"
REJECTED_SUBJECT = "rejected"

MAX_EVENT_BYTES = 48 * 1024
MAX_STORED_BYTES = 56 * 1024
MAX_SEALED_BYTES = 62 * 1024
"""With what is personal sealed, which makes it a quarter longer."""
INBOX = "INBOX"
"""The inbox that sources share until the ledger knows them."""
IMPORT = "IMPORT"
"""The inbox of this program's own commands, which publish in atomic batches."""
LEDGER = "LEDGER"
REJECTED = "REJECTED"
ALARM = "ALARM"
KEYS = "KV_ledger-keys"
SEAL = "SEAL"
INTAKE_CONSUMER = "intake"
INTAKE_BATCH = 1000
SOURCES_AT_MOST = 500
"""Known sources with an inbox stream of their own; the others share ``INBOX`` until one of these is idle."""
ROUTES_AT_ONCE = 50
ROUTES_A_SECOND = 2.0
"""New streams: so many at once, then so many a second, so that one sender cannot take all of them in a moment."""
SOURCE_BYTES = 64 * 1024 * 1024
SHARED_MESSAGES = 50_000
SHARED_MESSAGES_A_SOURCE = 10_000
TOKENS_SINCE = "resolution-ledger-tokens-since"
"""Metadata of ``INBOX``: up to this position of the log, requests were named by tokens that sources may share."""
REJECTED_DAYS = 30
_SECOND_NS = 1_000_000_000
_DAY_NS = 24 * 3600 * _SECOND_NS
SHORTEST_WINDOW_NS = 100_000_000
"""Within it the server drops a second message with one ``Nats-Msg-Id``; it takes no shorter one."""
_PLAIN_TOKEN = re.compile(r"[a-z0-9_-]{1,64}")


def _common(replicas: int) -> dict[str, Any]:
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


def _inbox(replicas: int) -> dict[str, Any]:
    """Return the settings that all inboxes of upstreams share.

    They are trimmed behind the intake's ack floor, never by age: a PubAck means that it will be recorded. A
    ``Nats-Msg-Id`` is deduplicated for as short as the server can, and there are no atomic batches, of which a
    stream has at most 50 open.
    """
    return _common(replicas) | {
        "max_msg_size": MAX_EVENT_BYTES,
        "duplicate_window": SHORTEST_WINDOW_NS,
        "allow_atomic": False,
    }


def source_stream(token: str, replicas: int = 1) -> dict[str, Any]:
    """The inbox stream of one known source, by its token, e.g. ``INBOX_crm``."""
    return _inbox(replicas) | {
        "name": source_stream_name(token),
        "subjects": [f"{SOURCE_SUBJECT}.{token}"],
        "subject_transform": {"src": f"{SOURCE_SUBJECT}.{token}", "dest": f"{INBOX_SUBJECT}.{token}"},
        "max_bytes": SOURCE_BYTES,
    }


def source_stream_name(token: str) -> str:
    """The name of a source's inbox stream; two tokens never share one, not even where file names ignore case."""
    if _PLAIN_TOKEN.fullmatch(token):
        return f"{INBOX}_{token}"
    readable = re.sub(r"[^a-z0-9_-]", "", token.lower())[:32]
    return f"{INBOX}_{readable}~{hashlib.sha256(token.encode()).hexdigest()[:24]}"


def source_route(token: str) -> tuple[str, str]:
    """The subject that a known source publishes to, and the one that the server maps it to."""
    return f"{INBOX_SUBJECT}.{token}", f"{SOURCE_SUBJECT}.{token}"


def inbox_streams(streams: Iterable[str]) -> list[str]:
    """Return those of a server's streams that the intake reads; the shared one first."""
    return [name for name in (INBOX, IMPORT) if name in streams] + sorted(
        name for name in streams if name.startswith(f"{INBOX}_")
    )


def earlier_inbox_fields(replicas: int = 1) -> dict[str, Any]:
    """The fields by which ``INBOX`` is recognised as an earlier version made it: any sender could fill it."""
    return {
        name: value
        for name, value in _common(replicas).items()
        if name in {"max_msgs", "max_msgs_per_subject", "duplicate_window", "allow_atomic"}
    }


def stream_configs(replicas: int = 1) -> list[dict[str, Any]]:
    """The streams that each ledger has, in the words of the JetStream API. Durations in nanoseconds."""
    common = _common(replicas)
    return [
        # Bounded for each sender: one that floods is refused alone, and others go on.
        _inbox(replicas)
        | {
            "name": INBOX,
            "subjects": [f"{INBOX_SUBJECT}.*"],
            "max_msgs": SHARED_MESSAGES,
            "max_msgs_per_subject": SHARED_MESSAGES_A_SOURCE,
            "discard_new_per_subject": True,
        },
        # For ever. An entry stays below 65,535 bytes, the limit of a C2SP tile's entry.
        common
        | {
            "name": LEDGER,
            "subjects": ["ledger.>"],
            "max_msg_size": 63 * 1024,
            "deny_delete": True,
            "deny_purge": True,
        },
        # Kept 30 days; deletable, since an entry that was retried with success is done with.
        common
        | {
            "name": REJECTED,
            "subjects": [f"{REJECTED_SUBJECT}.>"],
            "max_age": REJECTED_DAYS * _DAY_NS,
            "max_msg_size": 128 * 1024,
        },
        # Keys of persons, a bucket of their own: deletable, since destroying a key is what it is for.
        common
        | {
            "name": KEYS,
            "subjects": ["$KV.ledger-keys.>"],
            "max_msg_size": 64 * 1024,
            "max_msgs_per_subject": 1,
            "discard": "old",
        },
        # That a seal was begun, with which keys, and one of its last checkpoints (ledger/transparency/seal_record.py).
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
        # The last alarm, while it is on (ledger/transparency/alarm.py); only the operator takes it back.
        common
        | {
            "name": ALARM,
            "subjects": ["alarm.>"],
            "max_msg_size": 16 * 1024,
            "max_msgs_per_subject": 1,
            "discard": "old",
        },
        # Out of upstreams' reach, so it may have batches, without which an import takes ten times as long.
        common
        | {
            "name": IMPORT,
            "subjects": [f"{IMPORT_SUBJECT}.*"],
            "subject_transform": {"src": f"{IMPORT_SUBJECT}.*", "dest": f"{INBOX_SUBJECT}.{{{{wildcard(1)}}}}"},
            "max_msg_size": MAX_EVENT_BYTES,
        },
    ]


def intake_consumer() -> dict[str, Any]:
    """The durable consumer through which the intake reads an inbox, whichever process it is."""
    return {
        "durable_name": INTAKE_CONSUMER,
        "ack_policy": "explicit",
        "ack_wait": 30 * _SECOND_NS,
        "deliver_policy": "all",
        "max_ack_pending": 4 * INTAKE_BATCH,
        "max_deliver": -1,
    }
