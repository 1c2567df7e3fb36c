"""Mappings for known exports, on invented samples in the form of the vendors' documents."""

import json
from pathlib import Path

import pytest

from app.importing.database import Fence, ImportDatabase
from app.importing.import_report import ImportReport
from app.importing.importer import import_events
from app.importing.mapping import load_mapping
from app.importing.proposal import propose
from tests.support.documents import Document

CREATED = 1_780_000_000
SAMPLES: dict[str, tuple[list[Document], list[Document], dict[str, int]]] = {
    "stripe_refunds": (
        [
            {
                "id": "re_1",
                "object": "refund",
                "amount": 1050,
                "currency": "gbp",
                "created": CREATED,
                "charge": "ch_1",
                "status": "succeeded",
            },
            {
                "id": "re_2",
                "object": "refund",
                "amount": 1200,
                "currency": "jpy",
                "created": CREATED,
                "charge": "ch_2",
                "status": "succeeded",
            },
            {
                "id": "re_3",
                "object": "refund",
                "amount": 1,
                "currency": "gbp",
                "created": CREATED,
                "charge": "ch_3",
                "status": "failed",
            },
            {
                "id": "re_4",
                "object": "refund",
                "amount": 500,
                "currency": "ugx",
                "created": CREATED,
                "charge": "ch_4",
                "status": "succeeded",
            },
            {
                "id": "re_5",
                "object": "refund",
                "amount": 500,
                "currency": "mga",
                "created": CREATED,
                "charge": "ch_5",
                "status": "succeeded",
            },
            {
                "id": "re_6",
                "object": "refund",
                "amount": 500,
                "currency": "gbp",
                "created": CREATED,
                "charge": "ch_6",
                "status": None,
            },
        ],
        [
            {"order_id": "ch_1", "total": {"amount": "10.50", "currency": "GBP"}},
            {"order_id": "ch_2", "total": {"amount": "1200", "currency": "JPY"}},
            {"order_id": "ch_4", "total": {"amount": "5", "currency": "UGX"}},
            {"order_id": "ch_5", "total": {"amount": "500.00", "currency": "MGA"}},
        ],
        {"refund failed": 1, "refund without status": 1},
    ),
    "stripe_disputes": (
        [
            {
                "id": "dp_1",
                "amount": 1500,
                "currency": "kwd",
                "created": CREATED,
                "charge": "ch_1",
                "reason": "fraudulent",
                "status": "lost",
                "evidence_details": {},
            }
        ],
        [
            {
                "escalation_id": "dp_1",
                "kind": "dispute",
                "reason": "fraudulent",
                "amount": {"amount": "1.500", "currency": "KWD"},
            }
        ],
        {},
    ),
    "shopify_refunds": (
        [
            {
                "id": "gid://shopify/Refund/1",
                "createdAt": "2026-05-28T20:26:40Z",
                "order": {"id": "gid://shopify/Order/9"},
                "totalRefundedSet": {"shopMoney": {"amount": "7.5", "currencyCode": "EUR"}},
            }
        ],
        [{"order_id": "gid://shopify/Order/9", "total": {"amount": "7.50", "currency": "EUR"}}],
        {},
    ),
    "zendesk_tickets": (
        [
            {
                "id": 35,
                "created_at": "2026-05-28T20:26:40Z",
                "requester_id": 20,
                "assignee_id": 23,
                "group_id": 98,
                "status": "open",
                "priority": "high",
                "via": {"channel": "web"},
            }
        ],
        [{"interaction_id": "35", "customer_id": "20", "channel": "web", "severity": "high"}],
        {},
    ),
    "zendesk_satisfaction": (
        [
            {
                "id": 1,
                "created_at": "2026-05-28T20:26:40Z",
                "requester_id": 20,
                "ticket_id": 35,
                "score": "good",
                "comment": "quick",
            },
            {
                "id": 2,
                "created_at": "2026-05-28T20:26:40Z",
                "requester_id": 21,
                "ticket_id": 36,
                "score": "offered",
                "comment": None,
            },
            {
                "id": 3,
                "created_at": "2026-05-28T20:26:40Z",
                "requester_id": 22,
                "ticket_id": 37,
                "score": "good, it seems",
                "comment": None,
            },
        ],
        [
            {
                "customer_id": "20",
                "interaction_id": "35",
                "instrument": "csat",
                "score": 1,
                "worst": 0,
                "best": 1,
                "comment": "quick",
            }
        ],
        {"rating offered": 1, "rating good, it seems": 1},
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_becomes_these_events_and_is_recognised(tmp_path: Path, name: str) -> None:
    rows, expected, skipped = SAMPLES[name]
    path = tmp_path / "export.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ImportReport()
    events = [json.loads(one.data) for one in import_events(load_mapping(name), [path], report, lambda _: None)]
    assert [one["data"] for one in events] == expected
    assert {one["time"] for one in events} == {"2026-05-28T20:26:40.000000Z"}
    assert (report.rejected_count, dict(report.skipped)) == (0, skipped)
    with ImportDatabase(tmp_path, str, Fence()) as database:
        assert propose(path, database).shipped == name
