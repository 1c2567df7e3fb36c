"""The company of decision scenarios: a policy with a small number for each rule, and its staff."""

from __future__ import annotations

from typing import Any

from tests.support.decision_events import Described, joined, published
from tests.support.documents import Document

_POLICY: Document = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2026-01-01T00:00:00Z",
    "roles": {
        "agent": {
            "budget": "200.00",
            "carry_over": "50.00",
            "limits": {"refund": "50.00", "keep_item": "20.00", "fix": "unlimited"},
            "per_interaction": "60.00",
            "per_customer": {"amount": "100.00", "days": 90, "hard_above": "80.00", "unnamed": "unlimited"},
            "requires": {"keep_item": ["goodwill-basics"]},
        },
        "manager": {
            "budget": "2000.00",
            "limits": {"refund": "500.00", "credit": "250.00"},
            "approves": {"refund": "500.00", "keep_item": "500.00"},
        },
        "director": {
            "budget": "5000.00",
            "limits": {"refund": "unlimited"},
            "approves": {"refund": "2000.00", "credit": "unlimited"},
        },
    },
    "teams": {"doorstep": {"pool": "40.00", "draw_at_most": "30.00"}},
    "escalation": {"payer": "approver", "after_hours": 48, "then": "next_level"},
}

STAFF = (
    joined("A-7", "agent", "phone", manager_id="M-1"),
    joined("A-8", "agent", "phone", manager_id="M-1"),
    joined("D-1", "agent", "doorstep", manager_id="M-1"),
    joined("D-2", "agent", "doorstep", manager_id="M-1"),
    joined("M-1", "manager", "phone", manager_id="X-1"),
    joined("M-2", "manager", "phone", manager_id="X-1"),
    joined("X-1", "director"),
)
"""Two agents on the phone, two at the doorstep with a pool, two managers and their director."""


def policy(**changes: Any) -> Document:
    """Return the policy with other fields: of the document, or by the name of a role.

    ``None`` removes a field. The limits of a role are added to those that it has.
    """
    document, roles = dict(_POLICY), dict(_POLICY["roles"])
    for name, value in changes.items():
        if name in roles and value is not None:
            limits = _changed(roles[name]["limits"], value.get("limits", {}))
            roles[name] = _changed(roles[name], value | {"limits": limits})
        elif name in roles:
            del roles[name]
        else:
            document = _changed(document, {name: value})
    return document if "roles" in changes else document | {"roles": roles}


def company(**changes: Any) -> tuple[Described, ...]:
    """Return the publication of the policy, changed as ``policy`` does, and the staff."""
    return published(policy(**changes)), *STAFF


def _changed(document: Document, changes: Document) -> Document:
    return {name: value for name, value in (document | changes).items() if value is not None}
