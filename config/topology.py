"""Streams, consumers and subjects, as data (contract: Subjects)."""

from __future__ import annotations

from typing import Any

INBOX_SUBJECT = "resolution.inbox"
DECIDE_SUBJECT = "resolution.decide"
READ_SUBJECT = "resolution.read"
VIEWS_SUBJECT = "resolution.views"
ESCALATION_SUBJECT = "resolution.notify.escalation"
DECIDERS_SUBJECT = "resolution.deciders"
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
LEDGER = "LEDGER"
REJECTED = "REJECTED"
ALARM = "ALARM"
KEYS = "KV_ledger-keys"
SEAL = "SEAL"
INTAKE_CONSUMER = "intake"
INTAKE_BATCH = 1000
REJECTED_DAYS = 30
_SECOND_NS = 1_000_000_000
_DAY_NS = 24 * 3600 * _SECOND_NS


def streams(replicas: int = 1) -> list[dict[str, Any]]:
    """The streams, in the words of the JetStream API. Durations in nanoseconds."""
    common: dict[str, Any] = {
        "storage": "file",
        "retention": "limits",
        "num_replicas": replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msgs_per_subject": -1,
        "discard": "new",
        "duplicate_window": 2 * 60 * _SECOND_NS,
        "allow_atomic": True,
        "allow_direct": True,
    }
    return [
        # Trimmed behind the intake's ack floor, never by age: a PubAck means that it will be recorded.
        common | {"name": INBOX, "subjects": [f"{INBOX_SUBJECT}.*"], "max_age": 0, "max_msg_size": MAX_EVENT_BYTES},
        # For ever. An entry stays below 65,535 bytes, the limit of a C2SP tile's entry.
        common
        | {
            "name": LEDGER,
            "subjects": ["ledger.>"],
            "max_age": 0,
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
            "max_age": 0,
            "max_msg_size": 64 * 1024,
            "max_msgs_per_subject": 1,
            "discard": "old",
        },
        # That a seal was begun, with which keys, and one of its last checkpoints (ledger/seal_record.py).
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
        # The last alarm, while it is on (ledger/alarm.py); only the operator takes it back.
        common
        | {
            "name": ALARM,
            "subjects": ["alarm.>"],
            "max_age": 0,
            "max_msg_size": 16 * 1024,
            "max_msgs_per_subject": 1,
            "discard": "old",
        },
    ]


def intake_consumer() -> dict[str, Any]:
    """The durable consumer through which every intake process reads the inbox."""
    return {
        "durable_name": INTAKE_CONSUMER,
        "ack_policy": "explicit",
        "ack_wait": 30 * _SECOND_NS,
        "deliver_policy": "all",
        "max_ack_pending": 4 * INTAKE_BATCH,
        "max_deliver": -1,
    }
