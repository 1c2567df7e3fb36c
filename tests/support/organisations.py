"""Policies and staff that tests publish: a basic organisation, and one that uses every rule."""

from __future__ import annotations

from tests.support.documents import Document

_MONTHLY_POUNDS: Document = {
    "currency": "GBP",
    "time_zone": "Europe/London",
    "period": "month",
    "effective_from": "2020-01-01T00:00:00Z",
}

BASIC_POLICY: Document = _MONTHLY_POUNDS | {
    "roles": {
        "agent": {
            "budget": "200.00",
            "carry_over": "50.00",
            "limits": {"refund": "50.00", "keep_item": "20.00", "fix": "unlimited"},
            "per_interaction": "60.00",
            "requires": {"keep_item": ["goodwill-basics"]},
        },
        "manager": {"budget": "2000.00", "limits": {"refund": "500.00", "credit": "250.00"}},
    },
}
"""Two roles, a limit an action and an interaction, one required training; nothing can be escalated."""

FULL_POLICY: Document = _MONTHLY_POUNDS | {
    "roles": {
        "agent": {
            "budget": "200.00",
            "carry_over": "50.00",
            "limits": {"refund": "50.00", "credit": "25.00", "keep_item": "20.00", "fix": "unlimited"},
            "per_interaction": "60.00",
            "per_customer": {"amount": "100.00", "days": 90, "hard_above": "80.00", "unnamed": "unlimited"},
            "requires": {"keep_item": ["goodwill-basics"]},
        },
        "manager": {
            "budget": "2000.00",
            "limits": {"refund": "500.00", "credit": "250.00", "upgrade": "100.00"},
            "approves": {"refund": "500.00", "credit": "250.00"},
        },
        "director": {"budget": "5000.00", "limits": {"refund": "unlimited"}, "approves": {"refund": "unlimited"}},
    },
    "teams": {"doorstep": {"pool": "1000.00", "draw_at_most": "100.00", "limits": {"agent": {"refund": "60.00"}}}},
    "escalation": {"payer": "team", "after_hours": 48, "then": "next_level"},
}
"""Every rule there is. Agents of the team `doorstep` share a pool; agents of other teams have none."""

STAFF = {
    "A-1": ("agent", ["phone"], "M-1"),
    "A-2": ("agent", ["phone"], "M-1"),
    "D-1": ("agent", ["doorstep"], "M-1"),
    "D-2": ("agent", ["doorstep"], "M-1"),
    "M-1": ("manager", ["phone"], "X-1"),
    "M-2": ("manager", ["phone"], "X-1"),
    "X-1": ("director", [], None),
}
"""The full organisation's staff: employee to role, teams and manager."""
