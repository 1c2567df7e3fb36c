"""The history that the golden ledger tells: facts, requests and bad messages, in order (tests/golden/README.md).

Times lie in 2022 and 2025, when the Croatian kuna and the Bulgarian lev were money. The ledger is run in history mode,
where the times of requests rule, so that holds and escalations are as open on the day of a test as they were here.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.support.documents import Document


class Fact(NamedTuple):
    """An event for an inbox; ``token`` where it is not sent to the inbox of its own source."""

    event: Document
    token: str

    @property
    def body(self) -> bytes:
        return json.dumps(self.event, ensure_ascii=False).encode()


class Bad(NamedTuple):
    """Bytes for an inbox that cannot be recorded."""

    token: str
    body: bytes


class Ask(NamedTuple):
    """A request for a decision, and the outcome that its answer must have."""

    operation: str
    fields: Document
    outcome: str
    token: str = "crm"


class Command(NamedTuple):
    """Words of the command line; ``settle`` first waits until everything before is known everywhere."""

    words: tuple[str, ...]


Step = Fact | Bad | Ask | Command


def money(amount: str, currency: str = "BGN") -> dict[str, str]:
    """Return an amount as JSON carries it, in the golden organisation's currency unless named."""
    return {"amount": amount, "currency": currency}


def fact(source: str, identifier: str, name: str, time: str = "2025-03-03T08:00:00Z", **data: Any) -> Fact:
    """Return the step that publishes a fact of this type (`resolution.<name>.v1`)."""
    event = {
        "specversion": "1.0",
        "id": identifier,
        "source": source,
        "type": f"resolution.{name}.v1",
        "time": time,
        "data": data,
    }
    return Fact(event, source.replace(".", "_"))


def ask(request_id: str, outcome: str, time: str, amount: str, currency: str = "BGN", /, **fields: Any) -> Ask:
    """Return the step that asks for an action: a refund by agent A-1, unless ``fields`` say otherwise."""
    base = {"request_id": request_id, "time": time, "agent_id": "A-1", "kind": "refund", "reason": "late"}
    return Ask("action", base | {"amount": money(amount, currency)} | fields, outcome)


def other(operation: str, request_id: str, time: str, outcome: str = "done", /, **fields: Any) -> Ask:
    """Return the step that asks for another decision, with the outcome to be expected."""
    return Ask(operation, {"request_id": request_id, "time": time} | fields, outcome)


ROLES: Document = {
    "agent": {
        "budget": "200.00",
        "carry_over": "50.00",
        "limits": {"refund": "50.00", "keep_item": "20.00"},
        "per_interaction": "60.00",
        "per_customer": {"amount": "100.00", "days": 90, "hard_above": "60.00"},
        "requires": {"keep_item": ["goodwill-basics"]},
    },
    "driver": {"budget": "10.00", "limits": {"refund": "30.00"}},
    "manager": {
        "budget": "1000.00",
        "limits": {"refund": "300.00", "credit": "250.00"},
        "approves": {"refund": "300.00", "credit": "250.00"},
    },
    "director": {"budget": "5000.00", "limits": {"refund": "unlimited"}, "approves": {"refund": "unlimited"}},
}
KUNA: Document = {
    "currency": "HRK",
    "time_zone": "Europe/Zagreb",
    "period": "month",
    "effective_from": "2022-01-01T00:00:00Z",
    "default_role": "agent",
    "roles": ROLES,
}
LEV: Document = {
    "currency": "BGN",
    "time_zone": "Europe/Sofia",
    "period": "month",
    "effective_from": "2025-01-01T00:00:00Z",
    "roles": ROLES,
    "teams": {"depot": {"pool": "400.00", "draw_at_most": "25.00"}},
    "trial": {
        "limit": {"role": "agent", "kind": "refund", "amount": "70.00"},
        "share_of_teams": 0.5,
        "seed": 7,
        "until": "2025-12-31T00:00:00Z",
    },
    "escalation": {"payer": "team", "after_hours": 48, "then": "next_level"},
    "costs": {"agent_hour": "24.00", "manager_hour": "45.00", "return_processing": "6.00", "customer_hour": "10.00"},
    "guidelines": [{"id": "g-1", "text": "Late parcels: give half of the postage."}],
    "privacy": {"record_reads": True, "pseudonyms": True},
}
SHADOW = LEV | {
    "mode": "shadow",
    "effective_from": "2025-03-09T00:00:00Z",
    "roles": ROLES | {"agent": ROLES["agent"] | {"limits": {"refund": "10.00"}}},
}
STAFF = {
    "A-1": ("agent", "north", "M-1"),
    "A-2": ("agent", "south", "M-1"),
    "A-3": ("agent", "east", "M-1"),
    "A-4": ("agent", "west", "M-1"),
    "D-1": ("driver", "depot", "M-2"),
    "M-1": ("manager", "north", "X-1"),
    "M-2": ("manager", "depot", "X-1"),
    "X-1": ("director", "head", None),
}


def _staff() -> list[Step]:
    steps: list[Step] = []
    for name, (role, team, manager) in STAFF.items():
        above = {"manager_id": manager} if manager else {}
        steps.append(
            fact(
                "hr",
                f"join-{name}",
                "employee.joined",
                "2022-11-01T08:00:00Z",
                employee_id=name,
                role=role,
                team_ids=[team],
                **above,
            )
        )
    return [
        *steps,
        fact(
            "hr",
            "train-1",
            "training.completed",
            "2025-02-01T08:00:00Z",
            employee_id="A-1",
            course_id="goodwill-basics",
            valid_until="2026-02-01T00:00:00Z",
        ),
        fact(
            "hr",
            "declare-1",
            "relationship.declared",
            "2025-02-01T08:00:00Z",
            employee_id="A-2",
            customer_id="C-7",
            nature="sister",
        ),
        fact(
            "hr",
            "deputy-1",
            "delegation.declared",
            "2025-02-01T08:00:00Z",
            from_employee_id="M-1",
            to_employee_id="M-2",
            from_time="2025-03-01T00:00:00Z",
            until_time="2025-03-31T00:00:00Z",
        ),
        fact(
            "hr",
            "join-A-9",
            "employee.joined",
            "2025-01-02T08:00:00Z",
            employee_id="A-9",
            role="agent",
            team_ids=["west"],
            manager_id="M-1",
        ),
        fact(
            "hr",
            "change-A-9",
            "employee.changed",
            "2025-01-20T08:00:00Z",
            employee_id="A-9",
            role="agent",
            team_ids=["east"],
            manager_id="M-1",
        ),
        fact("hr", "leave-A-9", "employee.left", "2025-02-20T08:00:00Z", employee_id="A-9", reason="moved"),
        fact("hr", "shift-1", "shift.started", "2025-02-03T07:00:00Z", employee_id="D-1"),
        fact("hr", "shift-2", "shift.ended", "2025-02-03T16:00:00Z", employee_id="D-1"),
    ]


def _kuna() -> list[Step]:
    return [
        other("policy", "policy-1", "2022-11-01T09:00:00Z", policy=KUNA, published_by="owner"),
        fact(
            "a_b",
            "hrk-1",
            "purchase.completed",
            "2022-12-01T10:00:00Z",
            order_id="O-HR-1",
            customer_id="C-1",
            total=money("750.00", "HRK"),
            margin=money("75.00", "HRK"),
        ),
        fact(
            "a.b",
            "hrk-1",
            "purchase.completed",
            "2022-12-02T10:00:00Z",
            order_id="O-HR-2",
            customer_id="C-2",
            total=money("300.50", "HRK"),
        ),
        ask("r-hrk-1", "taken", "2022-12-20T10:00:00Z", "35.00", "HRK", customer_id="C-1", order_id="O-HR-1"),
        ask("r-hrk-2", "escalate", "2022-12-20T10:05:00Z", "80.00", "HRK", customer_id="C-2", order_id="O-HR-2"),
    ]


def _facts() -> list[Step]:
    """Facts of `a.b` and of `a_b`, which share one inbox token, with ids that both use."""
    return [
        fact(
            "a.b",
            "ev-1",
            "interaction.opened",
            customer_id="C-1",
            interaction_id="I-1",
            channel="phone",
            reason="late parcel",
            agent_id="A-1",
            team_id="north",
            line=1,
            order_id="O-1",
            severity="high",
        ),
        fact("a_b", "ev-1", "interaction.opened", customer_id="C-2", interaction_id="I-2", channel="e-mail"),
        fact(
            "a.b",
            "ev-2",
            "purchase.completed",
            "2025-02-20T10:00:00Z",
            order_id="O-1",
            customer_id="C-1",
            total=money("120.00"),
            margin=money("30.00"),
            colour="красно",
        ),
        fact(
            "a_b",
            "ev-2",
            "purchase.completed",
            "2025-02-21T10:00:00Z",
            order_id="O-2",
            customer_id="C-2",
            total=money("80.40"),
        ),
        fact(
            "a.b",
            "ev-3",
            "purchase.completed",
            "2025-02-22T10:00:00Z",
            order_id="O-3",
            customer_id="C-3",
            total=money("64.00"),
        ),
        fact(
            "a_b",
            "ev-3",
            "purchase.returned",
            "2025-03-01T10:00:00Z",
            order_id="O-2",
            customer_id="C-2",
            total=money("20.00"),
            item_kept=True,
        ),
        fact(
            "a.b",
            "ev-4",
            "interaction.transferred",
            "2025-03-03T08:20:00Z",
            interaction_id="I-1",
            to_agent_id="A-2",
            to_team_id="south",
            from_agent_id="A-1",
            from_team_id="north",
            line=2,
            story_repeated=True,
            waited_seconds=240.5,
        ),
        fact(
            "a.b",
            "ev-5",
            "interaction.resolved",
            "2025-03-03T08:40:00Z",
            interaction_id="I-1",
            agent_id="A-2",
            resolution="refunded",
        ),
        fact("a.b", "ev-6", "interaction.reopened", "2025-03-03T09:00:00Z", interaction_id="I-1", reason="again"),
        fact(
            "a_b",
            "ev-7",
            "feedback.received",
            "2025-03-03T09:30:00Z",
            customer_id="C-9",
            instrument="csat",
            score=2,
            best=5,
            worst=1,
            interaction_id="I-9",
            comment="Това е тайна 🤫",
        ),
        fact(
            "a_b",
            "ev-8",
            "interaction.opened",
            "2025-03-03T09:10:00Z",
            customer_id="C-9",
            interaction_id="I-9",
            channel="chat",
            agent_id="A-4",
            team_id="west",
        ),
        fact("a.b", "ev-9", "customer.linked", a="C-3", b="C-4", relation="household"),
        fact("a.b", "ev-10", "customer.unlinked", "2025-03-04T08:00:00Z", a="C-3", b="C-4", relation="household"),
        fact("a.b", "ev-11", "customer.referred", customer_id="C-1", referred_customer_id="C-5"),
        fact(
            "a.b",
            "ev-12",
            "recognition.given",
            recognition_id="T-1",
            giver_id="C-1",
            receiver_id="A-1",
            reason="kind",
            points=10,
            interaction_id="I-1",
            giver_kind="customer",
        ),
        fact(
            "hr",
            "obstacle-1",
            "obstacle.reported",
            obstacle_id="B-1",
            employee_id="A-2",
            text="may not waive postage",
            kind="fee_waiver",
            amount=money("6.00"),
        ),
        fact("hr", "obstacle-2", "obstacle.answered", obstacle_id="B-1", answered_by="M-1", text="from April on"),
        fact("hr", "idea-1", "idea.submitted", idea_id="D-1", employee_id="A-2", text="postage refunds for all"),
        fact("hr", "idea-2", "idea.decided", idea_id="D-1", decision="accepted", decided_by="X-1"),
        fact(
            "hr",
            "morale-1",
            "morale.surveyed",
            team_id="north",
            period="2025-02",
            invited=12,
            respondents=9,
            score=4.5,
            best=5,
            worst=1,
        ),
        fact(
            "a.b",
            "esc-1",
            "escalation.reported",
            escalation_id="Z-1",
            kind="refund",
            amount=money("90.00"),
            requested_by="A-1",
            interaction_id="I-1",
            customer_id="C-1",
            reason="broken",
        ),
        fact(
            "a.b",
            "esc-2",
            "escalation.outcome_reported",
            escalation_id="Z-1",
            verdict="approved",
            decided_by="M-1",
            amount=money("70.00"),
            reason="fair",
        ),
        # Corrections: one with the right data, one for a fact that never happened, of each of the two sources.
        fact(
            "a_b",
            "fix-1",
            "fact.corrected",
            source_of="a_b",
            id_of="ev-2",
            reason="typing error",
            data={"order_id": "O-2", "customer_id": "C-2", "total": money("84.40")},
        ),
        fact("a.b", "fix-2", "fact.corrected", source_of="a.b", id_of="ev-11", reason="never happened", data=None),
    ]


def _rejected() -> list[Step]:
    good = fact("a.b", "ev-1", "interaction.opened", interaction_id="I-77").body  # another event under a used id
    return [
        Bad("a_b", b"no json at all \xff\xfe"),
        Bad("a_b", good),
        Bad("a_b", fact("a_b", "bad-1", "parcel.lost", parcel_id="P-1").body),
        Bad(
            "a_b",
            fact("a_b", "bad-2", "purchase.completed", order_id="O-9", total={"amount": 5, "currency": "BGN"}).body,
        ),
        Bad("a_b", fact("crm", "bad-3", "interaction.opened", interaction_id="I-78").body),
        Bad("a_b", fact("a_b", "bad-4", "budget.granted", holder="agent:A-1").body),
        Bad("a_b", fact("a_b", "bad-5", "fact.corrected", source_of="a_b", id_of="ev-99", data=None, reason="x").body),
    ]


def _february() -> list[Step]:
    return [
        other("policy", "policy-2", "2025-01-02T09:00:00Z", policy=LEV, published_by="owner"),
        ask("r-feb-1", "taken", "2025-02-10T10:00:00Z", "20.00", customer_id="C-1", note="за закъснението"),
        ask("r-feb-2", "taken", "2025-02-11T10:00:00Z", "15.00", agent_id="A-2", customer_id="C-2"),
        ask("r-feb-3", "held", "2025-02-27T10:00:00Z", "8.00", agent_id="A-2", customer_id="C-2", hold=True),
    ]


def _march() -> list[Step]:
    return [
        ask(
            "r-1",
            "taken",
            "2025-03-03T10:00:00Z",
            "5.00",
            customer_id="C-1",
            interaction_id="I-1",
            order_id="O-1",
            note="half of the postage",
            guideline="g-1",
        ),
        ask(
            "r-2",
            "taken",
            "2025-03-03T10:01:00Z",
            "12.00",
            agent_id="A-4",
            customer_id="C-9",
            interaction_id="I-9",
            note="C-9 has waited twice",
        ),
        ask("r-3", "held", "2025-03-03T10:02:00Z", "18.00", customer_id="C-3", order_id="O-3", hold=True),
        other("hold", "r-4", "2025-03-03T10:03:00Z", action_id="<r-3>", operation="settle", amount=money("16.00")),
        ask("r-5", "held", "2025-03-03T10:04:00Z", "9.00", customer_id="C-3", hold=True),
        other("hold", "r-6", "2025-03-03T10:05:00Z", action_id="<r-5>", operation="void", reason="not needed"),
        ask("r-7", "taken", "2025-03-03T10:06:00Z", "20.00", customer_id="C-1", order_id="O-1", basis="entitlement"),
        ask("r-8", "taken", "2025-03-03T10:07:00Z", "10.00", customer_id="C-1", order_id="O-1", basis="correction"),
        ask("r-9", "escalate", "2025-03-03T10:08:00Z", "300.00", customer_id="C-4", escalate=True),
        other(
            "escalation",
            "r-10",
            "2025-03-03T10:30:00Z",
            operation="approve",
            escalation_id="<r-9>",
            decided_by="M-1",
            amount=money("90.00"),
            reason="half",
        ),
        ask("r-11", "escalate", "2025-03-03T10:31:00Z", "75.00", agent_id="A-2", customer_id="C-4", escalate=True),
        other(
            "escalation",
            "r-12",
            "2025-03-03T10:32:00Z",
            operation="deny",
            escalation_id="<r-11>",
            decided_by="M-2",
            reason="no",
        ),
        Ask(
            "escalation",
            {
                "request_id": "r-13",
                "time": "2025-03-03T10:33:00Z",
                "operation": "request",
                "agent_id": "A-3",
                "kind": "refund",
                "amount": money("95.00"),
                "reason": "broken",
                "customer_id": "C-6",
            },
            "done",
        ),
        other(
            "escalation",
            "r-14",
            "2025-03-03T10:34:00Z",
            operation="forward",
            escalation_id="<r-13>",
            decided_by="M-1",
            reason="above me",
            to="X-1",
        ),
        other(
            "escalation",
            "r-15",
            "2025-03-03T10:35:00Z",
            operation="withdraw",
            escalation_id="<r-13>",
            decided_by="A-3",
            reason="solved",
        ),
        Ask(
            "escalation",
            {
                "request_id": "r-16",
                "time": "2025-03-03T10:36:00Z",
                "operation": "request",
                "agent_id": "D-1",
                "kind": "refund",
                "amount": money("60.00"),
                "reason": "broken",
                "customer_id": "C-8",
            },
            "done",
        ),  # unanswered: forwarded, at last expired
        ask("r-17", "refused", "2025-03-03T10:37:00Z", "5.00", agent_id="A-2", customer_id="C-7"),
        ask("r-18", "refused", "2025-03-03T10:38:00Z", "5.00", kind="gift", customer_id="C-1"),
        ask("r-19", "refused", "2025-03-03T10:39:00Z", "5.00", agent_id="A-9", customer_id="C-1"),
        ask("r-20", "error", "2025-03-03T10:40:00Z", "5.00", agent_id="A-404"),
        other(
            "reversal",
            "r-21",
            "2025-03-03T10:41:00Z",
            action_id="<r-1>",
            reversed_by="A-1",
            reason="wrong order",
            recovered=True,
            amount=money("2.00"),
        ),
        other(
            "budget",
            "r-22",
            "2025-03-03T10:42:00Z",
            operation="grant",
            holder="agent:A-2",
            amount=money("10.00"),
            granted_by="M-1",
            reason="busy week",
        ),
        other(
            "budget",
            "r-23",
            "2025-03-03T10:43:00Z",
            operation="grant",
            holder="agent:M-1",
            amount=money("11.00"),
            granted_by="M-1",
            reason="for myself",
        ),
        other(
            "budget",
            "r-24",
            "2025-03-03T10:44:00Z",
            operation="transfer",
            holder="agent:A-1",
            to_holder="agent:A-3",
            amount=money("7.00"),
            granted_by="M-1",
            reason="help",
        ),
        ask("r-25", "taken", "2025-03-03T10:45:00Z", "24.00", agent_id="D-1", customer_id="C-8"),  # draws on the pool
        ask("r-26", "taken", "2025-03-03T10:46:00Z", "50.00", agent_id="A-4", customer_id="C-10"),
        ask("r-27", "taken", "2025-03-03T10:47:00Z", "30.00", agent_id="A-3", customer_id="C-10"),  # hard: near the cap
        ask("r-28", "escalate", "2025-03-03T10:48:00Z", "45.00", agent_id="A-3", customer_id="C-10"),
        ask("r-29", "taken", "2025-03-03T10:49:00Z", "4.00", kind="keep_item", customer_id="C-11"),
        ask("r-30", "escalate", "2025-03-03T10:50:00Z", "4.00", agent_id="A-2", kind="keep_item", customer_id="C-11"),
        Ask(
            "preview",
            {
                "agent_id": "A-1",
                "kind": "refund",
                "amount": money("250.00"),
                "reason": "late",
                "time": "2025-03-03T10:51:00Z",
                "customer_id": "C-1",
            },
            "escalate",
        ),
        ask("r-31", "taken", "2025-03-03T10:52:00Z", "6.50", customer_id="C-12")._replace(token="a_b"),
        fact(
            "a_b",
            "till-1",
            "action.reported",
            "2025-03-03T11:00:00Z",
            agent_id="A-4",
            kind="refund",
            amount=money("14.00"),
            reason="broken",
            customer_id="C-13",
            offline_reason="no network",
            note="на каса",
        ),
        fact(
            "a.b",
            "till-1",
            "action.reported",
            "2025-03-03T11:05:00Z",
            agent_id="D-1",
            kind="refund",
            amount=money("28.00"),
            reason="broken",
            customer_id="C-14",
        ),  # more than D-1 has left: overdrawn
        fact(
            "a.b",
            "settle-1",
            "refund.settled",
            "2025-03-04T11:00:00Z",
            action_id="<crm r-2>",
            total=money("12.00"),
            processor_reference="P-1",
        ),
    ]


def _trial() -> list[Step]:
    """More than the limit in teams that the trial drew, and in the others."""
    steps: list[Step] = []
    for number, agent in enumerate(["A-1", "A-2", "A-3", "A-4"]):
        request = ask(
            f"r-trial-{number}",
            "*",
            f"2025-03-06T10:0{number}:00Z",
            "55.00",
            agent_id=agent,
            customer_id=f"C-2{number}",
        )
        steps += [
            request,
            fact(
                "a.b",
                f"after-{number}",
                "purchase.completed",
                "2025-03-07T10:00:00Z",
                order_id=f"O-2{number}",
                customer_id=f"C-2{number}",
                total=money("40.00"),
            ),
        ]
    return steps


def _churn() -> list[Step]:
    """Taken and reversed by one agent, again and again: a flag, then more evidence for it."""
    steps: list[Step] = []
    for number in range(6):
        time = f"2025-03-07T1{number}:00:00Z"
        steps += [
            ask(f"r-churn-{number}", "taken", time, "3.00", agent_id="A-3", customer_id=f"C-3{number}"),
            other(
                "reversal",
                f"r-unchurn-{number}",
                time,
                action_id=f"<r-churn-{number}>",
                reversed_by="A-3",
                reason="mistake",
                recovered=True,
            ),
        ]
    return steps


def _last() -> list[Step]:
    """Return the last steps: a shadow policy, a hold of A-1 and an escalation of A-2, both of which stay open."""
    return [
        other("policy", "policy-3", "2025-03-08T09:00:00Z", policy=SHADOW, published_by="owner"),
        ask("r-shadow", "taken", "2025-03-10T09:00:00Z", "15.00", customer_id="C-15"),
        ask("r-hold", "held", "2025-03-10T10:00:00Z", "11.00", customer_id="C-16", order_id="O-1", hold=True),
        ask("r-wait", "escalate", "2025-03-10T10:05:00Z", "88.00", agent_id="A-2", customer_id="C-17", escalate=True),
    ]


def story() -> list[Step]:
    """Return all steps, in order."""
    return [
        *_staff(),
        *_kuna(),
        *_facts(),
        *_rejected(),
        *_february(),
        Command(("admin", "seal", "rotate")),
        *_march(),
        *_trial(),
        *_churn(),
        *_last(),
        Command(("admin", "hold", "C-2", "--reason", "lawsuit", "--by", "counsel")),
        Command(("admin", "forget", "C-9", "--by", "dpo", "--reason", "asked for it")),
        Command(("audit", "trail", "--customer", "C-1", "--by", "auditor", "--json")),
    ]
