"""Mappings for known exports, on invented samples in the form of the vendors' documents."""

import hashlib
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
AT = "2026-05-28T20:26:40Z"


def charge(identifier: str, **changed: object) -> Document:
    """Return a charge of Stripe."""
    return {
        "id": identifier,
        "object": "charge",
        "amount_captured": 1050,
        "captured": True,
        "created": CREATED,
        "currency": "gbp",
        "customer": "cus_1",
        "livemode": True,
        "status": "succeeded",
    } | changed


def shopify_order(number: str, **changed: object) -> Document:
    """Return an order of Shopify."""
    return {
        "id": f"gid://shopify/Order/{number}",
        "processedAt": AT,
        "test": False,
        "cancelledAt": None,
        "displayFinancialStatus": "PAID",
        "customer": {"id": "gid://shopify/Customer/7"},
        "totalPriceSet": {"shopMoney": {"amount": "7.5", "currencyCode": "EUR"}},
    } | changed


def incident(sys_id: str, **changed: object) -> Document:
    """Return an incident of ServiceNow."""
    return {
        "sys_id": sys_id,
        "number": "INC0012542",
        "opened_at": "2026-05-28 20:26:40",
        "resolved_at": "",
        "caller_id": "Pat Example",
        "assigned_to": "",
        "assignment_group": "",
        "contact_type": "Chat",
        "priority": "5 - Planning",
        "close_code": "",
    } | changed


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
    "stripe_charges": (
        [
            charge("ch_1"),
            charge("ch_2", currency="jpy", customer=None),
            charge("ch_3", status="failed"),
            charge("ch_4", captured=False),
            charge("ch_5", livemode=False),
        ],
        [
            {"order_id": "ch_1", "customer_id": "cus_1", "total": {"amount": "10.50", "currency": "GBP"}},
            {"order_id": "ch_2", "total": {"amount": "1050", "currency": "JPY"}},
        ],
        {"charge failed": 1, "charge not captured": 1, "charge in test mode": 1},
    ),
    "shopify_orders": (
        [
            shopify_order("1"),
            shopify_order("2", customer=None),
            shopify_order("3", test=True),
            shopify_order("4", cancelledAt="2026-05-29T00:00:00Z"),
            shopify_order("5", displayFinancialStatus="VOIDED"),
        ],
        [
            {
                "order_id": "gid://shopify/Order/1",
                "customer_id": "gid://shopify/Customer/7",
                "total": {"amount": "7.50", "currency": "EUR"},
            },
            {"order_id": "gid://shopify/Order/2", "total": {"amount": "7.50", "currency": "EUR"}},
        ],
        {"test order": 1, "cancelled order": 1, "order voided": 1},
    ),
    "shopify_customers": (
        [
            {"id": f"gid://shopify/Customer/{number}", "createdAt": AT, "defaultEmailAddress": address}
            for number, address in ((7, {"emailAddress": " Pat@example.org"}), (8, None))
        ],
        [
            {
                "a": "gid://shopify/Customer/7",
                "b": hashlib.sha256(b"pat@example.org").hexdigest(),
                "relation": "same_person",
            }
        ],
        {"customer without address": 1},
    ),
    "zendesk_ticket_events": (
        [
            {
                "id": 2127301143,
                "ticket_id": 666,
                "created_at": AT,
                "author_id": 5246746,
                "via": {"channel": "web"},
                "metadata": {"system": {}, "custom": {}},
                "events": [
                    {"id": 1, "type": "Comment", "body": "hello", "public": True},
                    {"id": 2, "type": "Change", "field_name": "assignee_id", "value": "9", "previous_value": None},
                    {"id": 3, "type": "Change", "field_name": "group_id", "value": "4", "previous_value": "3"},
                    {"id": 4, "type": "Change", "field_name": "status", "value": "solved", "previous_value": "open"},
                    {"id": 5, "type": "Change", "field_name": "status", "value": "open", "previous_value": "solved"},
                    {"id": 6, "type": "Change", "field_name": "status", "value": "closed", "previous_value": "solved"},
                ],
            }
        ],
        [
            {"interaction_id": "666", "to_agent_id": "9"},
            {"interaction_id": "666", "to_team_id": "4", "from_team_id": "3"},
            {"interaction_id": "666"},
            {"interaction_id": "666"},
        ],
        {},
    ),
    "servicenow_incidents": (
        [
            incident("45fa0dd6c3cf791079dcb59dc0013161"),
            incident(
                "0121b6e5873f7910b0fdc995dabb3534",
                resolved_at="2026-05-28 20:26:40",
                close_code="Known error",
                assigned_to={"display_value": "Kim", "link": f"https://x.example.org/sys_user/{'0' * 30}ab"},
            ),
        ],
        [
            {
                "interaction_id": "45fa0dd6c3cf791079dcb59dc0013161",
                "customer_id": hashlib.sha256(b"Pat Example").hexdigest(),
                "channel": "Chat",
                "severity": "5 - Planning",
            },
            {
                "interaction_id": "0121b6e5873f7910b0fdc995dabb3534",
                "customer_id": hashlib.sha256(b"Pat Example").hexdigest(),
                "channel": "Chat",
                "severity": "5 - Planning",
            },
            {
                "interaction_id": "0121b6e5873f7910b0fdc995dabb3534",
                "agent_id": f"{'0' * 30}ab",
                "resolution": "Known error",
            },
        ],
        {},
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
