"""A history in which each list of the page is longer than a page of the API, in two currencies."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from config import topology
from domain.commands import action_id_of
from ledger.store.log import Draft, Log
from tests.support.loyalty_histories import BEGIN, LoyaltyHistory
from tests.support.report_histories import money
from tests.support.report_oracle import recorded_of

if TYPE_CHECKING:
    from datetime import datetime

    from app.runtime.session import Session
    from tests.support.documents import Document

MANY = 1010
"""The rows of each list; a page of the API has at most 1,000."""
TEAMS = ("centre", "east", "harbour", "north", "south", "west")
KINDS = ("refund", "credit", "keep_item", "fix")
REASONS = ("late", "damaged", "billing")
PERIOD = "2025-06"
_CAUSE: Document = {"source": "crm", "request_id": "r", "seen_position": 0}
_BATCH = 500


class LongHistory(LoyaltyHistory):
    """Helped customers, and ``MANY`` actions, escalations, budgets, flags and accesses without a customer."""

    def __init__(self, seed: int = 5) -> None:
        super().__init__(seed, helped=60, requests=90)

    def events(self) -> list[Document]:
        """Return the events, each with its position."""
        for number in range(MANY):
            self._many(number)
        for number in range(30):
            self._reported(number)
        return super().events()

    def _many(self, number: int) -> None:
        """Add one event of each kind, eight hours after the one before."""
        at, minor = BEGIN + timedelta(hours=8 * number), 100 + number * 37 % 5000
        currency = "EUR" if number % 5 == 0 else "GBP"
        holder, agent, team = f"agent:H-{number:04}", f"A-{number % 9}", TEAMS[number % 7 % 6]
        said: Document = {"agent_id": agent, "role": "agent", "team_id": team, "kind": KINDS[number % 4]}
        said |= {"basis": "goodwill", "reason": REASONS[number % 3], "policy_version": 1}
        budget: Document = {"holder": holder, "period": PERIOD}
        opened = {"currency": currency, "granted": money(20_000, currency), "carried_over": money(0, currency)}
        self._decide("budget.opened", at, budget | opened | {"policy_version": 1})
        done = said | budget | {"action_id": f"long-{number}", "amount": money(minor, currency), "authority": "own"}
        interaction = {"interaction_id": f"N-{number}"}
        if number % 2 or team == "harbour":
            done |= interaction
        self._decide("action.taken", at, done | {"training": [], "limits": []})
        if number < 600:
            self._handled(number, interaction, {"agent_id": agent, "team_id": team, "reason": said["reason"]})
        self._asked(number, said | {"amount": money(6000 + number, currency), "currency": currency})
        flag: Document = {
            "flag_id": f"flag-{number:024}",
            "rule": "R10",
            "rule_version": 1,
            "about": [f"agent:{agent}"],
        }
        self._decide("flag.raised", at, flag | {"explanation": f"pattern {number}", "evidence": [1]})
        access = {"who": f"P-{number % 7}", "what": ("sign-in", "export: actions")[number % 2], "via": "http"}
        self._add("resolution-ledger", "access.recorded", at, access)

    def _decide(self, name: str, at: datetime, data: Document) -> None:
        self._add("resolution-ledger", name, at, _CAUSE | data)

    def _handled(self, number: int, interaction: Document, of: Document) -> None:
        """Add an interaction; one in four is transferred, and the first have a customer, an outcome and a score."""
        at = BEGIN + timedelta(hours=8 * number)
        named = {"customer_id": f"B-{number}"} if number < 300 else {}
        self._add(
            "crm", "interaction.opened", at, interaction | of | named | {"channel": ("phone", "chat")[number % 2]}
        )
        if number % 4 == 0:
            moved = {"to_agent_id": f"A-{number % 5}"}
            self._add("crm", "interaction.transferred", at + timedelta(minutes=20), interaction | moved)
        if named:
            self._add("crm", "interaction.resolved", at + timedelta(hours=1), interaction)
            score = {"instrument": "csat", "score": 1 + number % 5, "worst": 1, "best": 5}
            self._add("crm", "feedback.received", at + timedelta(hours=2), interaction | named | score)

    def _asked(self, number: int, request: Document) -> None:
        """Add an escalation of an amount of its own; most are approved, some denied, the last ones wait."""
        at, name = BEGIN + timedelta(hours=8 * number + 1), f"esc-long-{number}"
        of: Document = {"escalation_id": name, "budget": "agent:M", "period": PERIOD, "amount": request["amount"]}
        of["interaction_id"] = f"N-{number}"
        more = {
            "reasons": [{"rule": "per_action", "message": "m"}],
            "payer": "approver",
            "to": ["M"],
            "due": at.isoformat(),
        }
        self._decide("escalation.requested", at, request | of | more | {"action_id": f"act-{name}"})
        if number >= MANY - 20:
            return
        step, waited = ("denied", "approved", "approved")[number % 3], 60.0 * (1 + number)
        ended = of | {"agent_id": request["agent_id"], "waited_seconds": waited, "decided_by": "M"}
        if step == "denied":
            ended["reason"] = "no receipt"
        if step == "approved":
            ended |= {"asked": request["amount"], "action_id": f"act-{name}", "paid_by": "agent:M"}
        self._decide(f"escalation.{step}", at + timedelta(seconds=waited), ended)

    def _reported(self, number: int) -> None:
        """Report an action of another system; every other one is charged to its agent's budget."""
        at, currency = BEGIN + timedelta(days=30 + 7 * number), "EUR" if number % 3 == 0 else "GBP"
        name = f"e-{len(self._events)}"
        amount = money(700 + number, currency)
        said = {"agent_id": f"A-{number % 9}", "kind": "gift", "reason": "late", "team_id": "west", "amount": amount}
        self._add("crm", "action.reported", at, said)
        if number % 2:
            of: Document = {
                "holder": f"agent:H-{number * 5 + (currency == 'GBP'):04}",
                "period": PERIOD,
                "basis": "goodwill",
            }
            of |= {"action_id": action_id_of("crm", name), "agent_id": said["agent_id"], "amount": amount}
            self._decide("action.charged", at, of | {"overdrawn": money(0, currency), "relates_to": 1})


def subject_of_event(event: Document) -> str:
    """Return the subject on which the ledger keeps an event."""
    name = event["type"].removeprefix("resolution.")
    if name.startswith("flag."):
        return f"ledger.flag.{event['data']['flag_id']}"
    return "ledger.access" if name.startswith("access.") else recorded_of(event).subject


async def append_history(session: Session, events: list[Document]) -> None:
    """Append these events to an empty log with the recorded times that they have."""
    log = await Log.unstamped(session.client, topology.LEDGER)
    for begin in range(0, len(events), _BATCH):
        some = events[begin : begin + _BATCH]
        await log.append([Draft(subject_of_event(one), recorded_of(one).data) for one in some])
