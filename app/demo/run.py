"""The run of the demo: facts through an inbox, actions through decisions, then a summary."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from app.demo.moments import SOURCE, make_world, moments_of
from app.demo.organisation import CURRENCY, HEAD, TRIAL_DAY, policy_document
from app.demo.organisations.world import BEGIN
from app.outcome import Outcome, Outgoing
from app.output import console, counting_progress, print_table
from app.publisher import Publisher
from app.runtime.roles import running
from app.runtime.seal import seal_to_the_end
from app.runtime.session import Session
from app.runtime.views import read_view
from config import topology
from consumers.decisions.service import DecisionService
from consumers.guard.service import GuardService
from domain.abuse.history import DAY
from domain.analytics.loyalty.estimators import DESCRIPTION
from domain.money import money_text
from domain.serialization import encode
from ledger.errors import LedgerError
from ledger.store.cloudevents import encode_event
from projections.reports.loyalty import loyalty_report
from projections.views.balances import read_balances

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping

    from app.demo.moments import DemoFact, DemoRequest
    from config.settings import Settings
    from dashboard.nats_requests import ReplyFields
    from domain.serialization import Json, JsonObject
    from ledger.nats.client import LedgerClient

_IN_FLIGHT = 64
_SECONDS_AT_MOST = 120.0


async def run_demo(settings: Settings, *, seed: int, days: int, quiet: bool) -> dict[str, Any]:
    """Simulate the organisation and return a summary; the same seed again records nothing new."""
    begun = time.monotonic()
    facts, requests = moments_of(make_world(seed))
    outcome, answers = Outcome(), Counter[str]()
    async with Session(settings) as session:
        async with running(session, ("intake", "decisions"), history=True) as services:
            (decider,) = (one for one in services if isinstance(one, DecisionService))
            operator = await session.connection("demo")
            await _publish_policy(operator, seed, trial=False)
            publisher = await Publisher.open(session, outcome, lambda _: None)
            await _publish(publisher, _taken_until(facts, BEGIN))
            await _until_posted(session, decider)
            with counting_progress("days", days, shown=not quiet) as progressed:
                for number in range(days):
                    until = BEGIN + (number + 1) * DAY
                    if number == TRIAL_DAY:
                        await _publish_policy(operator, seed, trial=True)
                    await _publish(publisher, _taken_until(facts, until))
                    await _until_posted(session, decider)
                    answers += await _ask_all(operator, _taken_until(requests, until))
                    progressed(1)
        with counting_progress("cases of possible misuse", None, shown=not quiet):
            await _raise_flags(session)
        with counting_progress("views", None, shown=not quiet):
            summary = await _summary(session, answers, outcome)
        await seal_to_the_end(session)
    summary |= {"seed": seed, "days": days, "seconds": round(time.monotonic() - begun, 1)}
    if not quiet:
        _show(summary, settings)
    return summary


def _taken_until[M: (DemoFact, DemoRequest)](moments: deque[M], until: float) -> list[M]:
    """Remove the moments before a time from the front, and return them."""
    found: list[M] = []
    while moments and moments[0].due < until:
        found.append(moments.popleft())
    return found


async def _publish_policy(operator: LedgerClient, seed: int, *, trial: bool) -> None:
    document = policy_document(trial=trial)
    request: JsonObject = {
        "request_id": f"demo-{seed}-policy{'-trial' if trial else ''}",
        "policy": document,
        "published_by": HEAD,
        "time": document["effective_from"],
    }
    await _decide(operator, "policy", request)


async def _publish(publisher: Publisher, moments: list[DemoFact]) -> None:
    """Publish facts, and wait until they are recorded."""
    for moment in moments:
        event = encode_event(moment.source, moment.id, moment.type, moment.at, encode(moment.data))
        publisher.outcome.read += 1
        await publisher.add(Outgoing(publisher.outcome.read, moment.source, moment.id, event))
    await publisher.settle()


async def _until_posted(session: Session, decider: DecisionService) -> None:
    """Wait until the decider knows all facts and has posted the reported actions: then its answers repeat."""
    async with asyncio.timeout(_SECONDS_AT_MOST):
        await decider.state.reach(await session.log.last_position())
        while decider.state.pending.dues:
            await decider.state.reach(decider.state.position + 1)


async def _ask_all(operator: LedgerClient, requests: list[DemoRequest]) -> Counter[str]:
    """Request decisions concurrently; requests of one agent, customer or pool keep their order.

    So the answers do not depend on the speed of requests. Returns the number of answers to actions by outcome.
    """
    answers = Counter[str]()
    gate = asyncio.Semaphore(_IN_FLIGHT)
    before: dict[str, asyncio.Task[None]] = {}

    async def ask(request: DemoRequest, earlier: list[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        async with gate:
            outcome = await _decide(operator, request.operation, request.body)
            if (
                outcome == "refused" and request.body.get("operation") == "approve"
            ):  # the approver's budget is too small
                denied = {"operation": "deny", "request_id": f"{request.body['request_id']}-no"}
                await _decide(operator, request.operation, request.body | denied)
        if request.operation == "action":
            answers[outcome] += 1

    async with asyncio.TaskGroup() as group:
        for request in requests:
            task = group.create_task(ask(request, [before[key] for key in request.keys if key in before]))
            before.update(dict.fromkeys(request.keys, task))
    return answers


async def _decide(operator: LedgerClient, operation: str, request: Mapping[str, Json]) -> str:
    """Return the outcome of a request; an escalation was perhaps not filed, an action to be reversed not taken.

    Raises:
        LedgerError: any other request is an error.

    """
    reply = await operator.request(f"{topology.OPERATE_SUBJECT}.{SOURCE}.{operation}", encode(request), timeout=30)
    answer: ReplyFields = json.loads(reply.data)
    if answer["outcome"] == "error" and operation not in ("escalation", "reversal"):
        raise LedgerError(answer["error"]["message"])
    return answer["outcome"]


async def _raise_flags(session: Session) -> None:
    """Run the guard over the whole history, by event times."""
    async with running(session, ("guard",), history=True) as services:
        (guard,) = (one for one in services if isinstance(one, GuardService))
        async with asyncio.timeout(_SECONDS_AT_MOST):
            behind = True
            while behind:
                await asyncio.sleep(0.05)
                behind = guard.position < await session.log.last_position()


async def _summary(session: Session, answers: Counter[str], outcome: Outcome) -> dict[str, Any]:
    balances = await read_view(session, "budget_balances", read_balances)
    loyalty = await loyalty_report(partial(read_view, session), ())
    await read_view(session, "audit_trail", lambda connection: connection)
    spent: dict[str, Decimal] = {}
    for item in balances.result:
        if item["spent"]["currency"] == CURRENCY:
            spent[item["period"]] = spent.get(item["period"], Decimal(0)) + Decimal(item["spent"]["amount"])
    asked, (value,) = sum(answers.values()), [one for one in loyalty["currencies"] if one["currency"] == CURRENCY]
    return {
        "events": await session.log.last_position(),
        "facts": {"recorded": outcome.recorded, "duplicate": outcome.duplicate, "rejected": outcome.rejected_count},
        "asked": asked,
        "answers": dict(sorted(answers.items())),
        "decided_on_the_spot": round(answers["taken"] / asked, 4) if asked else None,
        "periods": [
            {"period": period, "spent": {"amount": str(spent[period]), "currency": CURRENCY}}
            for period in sorted(spent)
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
    console.print(f"Continue with: resolution-ledger audit cases --data-dir {settings.data_dir}")
