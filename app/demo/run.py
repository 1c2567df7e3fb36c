"""The run of the demo: facts through an inbox, actions through decisions, then a summary."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.demo.organisation import START, Moment, Organisation
from app.outcome import Outcome, Outgoing
from app.output import console, counting_progress, print_table
from app.policy_file import check_policy_file
from app.publisher import Publisher
from app.runtime.roles import running
from app.runtime.session import Session
from app.runtime.views import read_view
from config import topology
from domain.analytics.loyalty.estimators import DESCRIPTION
from domain.money import money_text
from domain.serialization import encode
from ledger.errors import LedgerError
from ledger.store.cloudevents import encode_event, time_text
from projections.reports.loyalty import loyalty_report
from projections.views.balances import read_balances

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from config.settings import Settings
    from dashboard.nats_requests import ReplyFields
    from domain.serialization import Json
    from ledger.nats.client import LedgerClient

SOURCE = "demo"
_IN_FLIGHT = 64
_ASK_ANYWAY, _SAY_YES = 0.7, 0.93
_POLICY = Path(__file__).resolve().parents[2] / "config" / "policies" / "contact-centre.yaml"


async def run_demo(settings: Settings, *, seed: int, days: int, quiet: bool) -> dict[str, Any]:
    """Simulate the organisation and return a summary; the same seed again records nothing new."""
    begun = time.monotonic()
    async with Session(settings) as session, running(session, ("intake", "decisions"), history=True):
        operator = await session.connection("demo")
        organisation = Organisation(seed)
        outcome = Outcome()
        answers: Counter[str] = Counter()
        await _publish_policy(operator, seed)
        with counting_progress("days", days, shown=not quiet) as progressed:
            publisher = await Publisher.open(session, outcome, lambda _: None)
            await _publish(publisher, organisation.joining(), seed)
            await publisher.settle()
            above = {one.employee_id: one.manager_id for one in organisation.employees}
            for number in range(days):
                moments = organisation.day(number)
                await _publish(publisher, [moment for moment in moments if moment.kind != "ask"], seed)
                asks = [moment for moment in moments if moment.kind == "ask"]
                counted, beyond = await _ask_all(operator, asks, seed)
                answers.update(counted)
                if beyond:
                    await _escalate(operator, beyond, asks[-1].at, above, seed)
                progressed(1)
            await publisher.settle()
        with counting_progress("views", None, shown=not quiet):
            summary = await _summary(session, answers, outcome)
    summary |= {"seed": seed, "days": days, "seconds": round(time.monotonic() - begun, 1)}
    if not quiet:
        _show(summary, settings)
    return summary


async def _publish_policy(operator: LedgerClient, seed: int) -> None:
    policy = check_policy_file(_POLICY).policy
    assert policy is not None
    request = {
        "request_id": f"demo-{seed}-policy",
        "policy": policy.document,
        "published_by": "E-001",
        "time": time_text(START - timedelta(days=2)),
    }
    answer = await _request(operator, "policy", request)
    if answer["outcome"] == "error":
        raise LedgerError(answer["error"]["message"])


async def _publish(publisher: Publisher, moments: list[Moment], seed: int) -> None:
    for moment in moments:
        data = encode(moment.data)
        name = hashlib.sha256(moment.kind.encode() + time_text(moment.at).encode() + data).hexdigest()[:20]
        identifier = f"demo-{seed}-{name}"
        event = encode_event(SOURCE, identifier, f"resolution.{moment.kind}.v1", moment.at, data)
        publisher.outcome.read += 1
        await publisher.add(Outgoing(publisher.outcome.read, SOURCE, identifier, event))
    await publisher.flush()


async def _ask_all(operator: LedgerClient, moments: list[Moment], seed: int) -> tuple[Counter[str], list[Moment]]:
    """Request a day's actions concurrently; requests of one agent or one customer keep their order.

    The answers do not depend on the speed of requests, since agents share no other limit. Returns the number of answers
    by outcome, and the moments beyond the agents' authority.
    """
    answers: Counter[str] = Counter()
    beyond: list[Moment] = []
    gate = asyncio.Semaphore(_IN_FLIGHT)
    before: dict[str, asyncio.Task[None]] = {}

    async def ask(moment: Moment, earlier: list[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        interaction = moment.data["interaction_id"]
        request = {"request_id": f"demo-{seed}-{interaction}", "time": time_text(moment.at), **moment.data}
        async with gate:
            answer = await _request(operator, "action", request)
        if answer["outcome"] == "error":
            raise LedgerError(answer["error"]["message"])
        answers[answer["outcome"]] += 1
        if answer["outcome"] == "escalate":
            beyond.append(moment)

    async with asyncio.TaskGroup() as group:
        for moment in sorted(moments, key=lambda moment: moment.at):
            shared = (moment.data["agent_id"], moment.data["customer_id"])
            task = group.create_task(ask(moment, [before[name] for name in shared if name in before]))
            before.update(dict.fromkeys(shared, task))
    return answers, sorted(beyond, key=lambda moment: (moment.at, moment.data["interaction_id"]))


async def _escalate(
    operator: LedgerClient, beyond: list[Moment], evening: datetime, above: dict[str, str], seed: int
) -> None:
    """Escalate most of the moments beyond authority after the day's last request, and decide them one by one.

    Each choice is derived from the interaction's id, so that the same seed gives the same events. ``evening`` is the
    time of that last request: the ledger's clock in history mode, at which an earlier escalation could be overdue.
    """

    async def file(number: int, moment: Moment) -> tuple[datetime, str, str] | None:
        interaction = moment.data["interaction_id"]
        at = evening + timedelta(minutes=10, seconds=number)
        request = {
            "request_id": f"demo-{seed}-{interaction}-up",
            "operation": "request",
            "time": time_text(at),
            **moment.data,
        }
        answer = await _request(operator, "escalation", request)
        waited = timedelta(minutes=5 + 115 * _hash_fraction(interaction, "waits") ** 2)
        name = answer.get("escalation_id")
        return None if name is None else (at + waited, name, above[moment.data["agent_id"]])

    asking = (
        file(*one) for one in enumerate(beyond) if _hash_fraction(one[1].data["interaction_id"], "asks") < _ASK_ANYWAY
    )
    filed = [one for one in await asyncio.gather(*asking) if one is not None]
    for at, escalation_id, manager in sorted(filed):
        operation = "approve" if _hash_fraction(escalation_id, "decides") < _SAY_YES else "deny"
        decision = {
            "request_id": f"demo-{seed}-{escalation_id}",
            "operation": operation,
            "time": time_text(at),
            "escalation_id": escalation_id,
            "decided_by": manager,
        }
        answer = await _request(operator, "escalation", decision)
        if answer["outcome"] == "refused":  # the manager's own budget is too small
            no = decision | {"operation": "deny", "request_id": f"{decision['request_id']}-no"}
            await _request(operator, "escalation", no)


def _hash_fraction(name: str, what: str) -> float:
    """Return a number between 0 and 1 that is derived from a name and a purpose."""
    return int.from_bytes(hashlib.sha256(f"{what} {name}".encode()).digest()[:6]) / 2**48


async def _request(operator: LedgerClient, operation: str, request: Mapping[str, Json]) -> ReplyFields:
    reply = await operator.request(f"{topology.OPERATE_SUBJECT}.{SOURCE}.{operation}", encode(request), timeout=30)
    answer: ReplyFields = json.loads(reply.data)
    return answer


async def _summary(session: Session, answers: Counter[str], outcome: Outcome) -> dict[str, Any]:
    balances = await read_view(session, "budget_balances", read_balances)
    loyalty = await loyalty_report(partial(read_view, session), ())
    await read_view(session, "audit_trail", lambda connection: connection)
    spent: dict[str, Decimal] = {}
    for item in balances.result:
        spent[item["period"]] = spent.get(item["period"], Decimal(0)) + Decimal(item["spent"]["amount"])
    asked, value = sum(answers.values()), loyalty["currencies"][0]
    return {
        "events": await session.log.last_position(),
        "facts": {"recorded": outcome.recorded, "duplicate": outcome.duplicate, "rejected": outcome.rejected_count},
        "asked": asked,
        "answers": dict(sorted(answers.items())),
        "decided_on_the_spot": round(answers["taken"] / asked, 4) if asked else None,
        "periods": [
            {"period": period, "spent": {"amount": str(spent[period]), "currency": "GBP"}} for period in sorted(spent)
        ],
        "loyalty": {"rung": 1, "caveat": DESCRIPTION, "windows": [] if "why" in value else value["summary"]},
        "position": loyalty["position"],
    }


def _show(summary: dict[str, Any], settings: Settings) -> None:
    answers = summary["answers"]
    rows: list[tuple[str, object]] = [
        ("events in the ledger", summary["events"]),
        ("asked for", summary["asked"]),
        ("decided on the spot", f"{answers.get('taken', 0)} ({100 * (summary['decided_on_the_spot'] or 0):.1f} %)"),
        ("escalated", answers.get("escalate", 0)),
        ("refused", answers.get("refused", 0)),
    ]
    print_table(f"{summary['days']} days of an organisation, in {summary['seconds']} s", ("", ""), rows, numbers=(1,))
    print_table(
        "Cost of the actions",
        ("period", "spent"),
        [(line["period"], money_text(line["spent"])) for line in summary["periods"]],
        numbers=(1,),
    )
    print_table(
        "Purchases of those customers (mean revenue of a customer)",
        ("window", "customers", "before", "after"),
        [
            (f"{line['days']} days", line["n"], money_text(line["mean_before"]), money_text(line["mean_after"]))
            for line in summary["loyalty"]["windows"]
            if line["n"]
        ],
        numbers=(1, 2, 3),
    )
    console.print(f"Level 1, before and after: {DESCRIPTION}.")
    console.print(f"Continue with: resolution-ledger audit trail --agent E-042 --data-dir {settings.data_dir}")
