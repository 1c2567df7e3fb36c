"""Random histories of every kind of fact, with decisions and corrections among them, and their permutations."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st

from domain.commands import action_id_of
from domain.events import decisions
from domain.events.decisions import LEDGER_SOURCE, Record
from domain.money import Money
from domain.serialization import encode
from ledger.store.cloudevents import encode_event, parse_time
from projections.engine.events import TYPES
from tests.support.builders import event, gbp
from tests.support.documents import Document

type History = list[Document | tuple[str, bytes]]
"""Facts as documents, decisions as (subject, JSON)."""

_TYPE_OF = {cls: name for name, cls in TYPES.items()}
_POUNDS = Money(500, "GBP")
_BUDGET: Document = {"holder": "agent:A-1", "period": "2026-01"}
_REQUEST: Document = {"source": "crm", "request_id": "r", "seen_position": 0}
ACTION: Document = {
    **_REQUEST,
    **_BUDGET,
    "agent_id": "A-1",
    "role": "agent",
    "kind": "refund",
    "basis": "goodwill",
    "amount": _POUNDS,
    "reason": "late",
    "policy_version": 1,
    "training": (),
    "limits": (),
    "customer_id": "C-1",
    "interaction_id": "I-1",
}
POSTED: Document = {**_REQUEST, **_BUDGET, "agent_id": "A-1", "amount": _POUNDS}
_MATTER = {name: ACTION[name] for name in ("agent_id", "kind", "basis", "amount", "reason", "interaction_id")}
_ESCALATION: Document = {"escalation_id": "E-1", "budget": "agent:A-1", "period": "2026-01"}
REPORTED = action_id_of("crm", "report-0")
DECIDED = action_id_of("crm", "report-1")
"""The action of a request whose id a report may have."""


def decision(body: Record, time: str) -> tuple[str, bytes]:
    """Return a decision of a budget as the log holds it."""
    data = encode_event(LEDGER_SOURCE, f"d-{id(body)}", _TYPE_OF[type(body)], parse_time(time), encode(body))
    return "ledger.budget.agent:A-1.2026-01.GBP.x", data


OPENED = decision(
    decisions.BudgetOpened(
        **_REQUEST,
        **_BUDGET,
        currency="GBP",
        granted=Money(20_000, "GBP"),
        carried_over=Money(0, "GBP"),
        policy_version=1,
    ),
    "2026-01-01T00:00:00Z",
)
DECISIONS = [
    decision(decisions.ActionTaken(**ACTION, action_id="act-1", authority="own"), "2026-01-05T10:01:30Z"),
    decision(
        decisions.AuthorityFellShort(**_REQUEST, **_MATTER, outcome="escalate", reasons=(), preview=False),
        "2026-01-05T10:02:00Z",
    ),
    decision(
        decisions.EscalationRequested(
            **_REQUEST,
            **_MATTER,
            **_ESCALATION,
            action_id="act-2",
            role="agent",
            reasons=(),
            payer="team",
            to=("M-1",),
            due=parse_time("2026-01-07T10:00:00Z"),
            policy_version=1,
            currency="GBP",
        ),
        "2026-01-05T10:03:00Z",
    ),
    decision(
        decisions.EscalationApproved(
            **_REQUEST,
            **_ESCALATION,
            agent_id="A-1",
            amount=_POUNDS,
            asked=_POUNDS,
            action_id="act-2",
            paid_by="team:t",
            waited_seconds=60.0,
            decided_by="M-1",
        ),
        "2026-01-05T10:04:00Z",
    ),
    decision(decisions.ActionHeld(**ACTION, action_id="act-3"), "2026-01-05T10:00:30Z"),
    decision(decisions.ActionSettled(**POSTED, action_id="act-3", held=_POUNDS), "2026-01-05T10:05:00Z"),
    decision(
        decisions.ActionCharged(**POSTED, action_id=REPORTED, overdrawn=Money(0, "GBP"), relates_to=1),
        "2026-01-05T10:06:00Z",
    ),
    decision(
        decisions.ActionReversed(
            **POSTED, action_id=REPORTED, recovered=True, reversed_by="M-1", reason="wrong", relates_to=1
        ),
        "2026-01-05T10:07:00Z",
    ),
    decision(decisions.ActionTaken(**ACTION, action_id=DECIDED, authority="own"), "2026-01-05T10:06:10Z"),
    decision(
        decisions.ActionCharged(
            **(POSTED | {"amount": Money(200, "GBP")}),
            action_id=DECIDED,
            overdrawn=Money(0, "GBP"),
            relates_to=1,
            decided=_POUNDS,
            reported=Money(700, "GBP"),
        ),
        "2026-01-05T10:06:20Z",
    ),
]

_word = st.sampled_from(["A", "B", ""])
_maybe = st.none() | st.sampled_from(["A", "B"])
_interaction = st.sampled_from(["I-1", "I-2"])
_customer = st.sampled_from(["C-1", "C-2"])
_employee = st.sampled_from(["A-1", "A-2"])
_total = st.sampled_from(["1.00", "2.50"]).map(gbp)
_score = st.fixed_dictionaries({"score": st.integers(1, 5), "best": st.just(5), "worst": st.just(1)})


def _fields(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Document]:
    known = st.fixed_dictionaries(fields)
    return known.map(lambda data: {name: value for name, value in data.items() if value is not None})


_employed = _fields(employee_id=_employee, role=st.sampled_from(["agent", "senior"]), team_ids=_word.map(lambda x: [x]))
_link = _fields(a=_customer, b=st.just("C-3"), relation=st.just("household"))
_FACTS: dict[str, st.SearchStrategy[Document]] = {
    "interaction.opened": _fields(
        interaction_id=_interaction,
        channel=_word,
        reason=_maybe,
        customer_id=_customer,
        team_id=_maybe,
        agent_id=_maybe,
    ),
    "interaction.transferred": _fields(
        interaction_id=_interaction,
        to_team_id=_maybe,
        to_agent_id=_maybe,
        line=st.none() | st.integers(1, 3),
        waited_seconds=st.none() | st.sampled_from([0.1, 0.2, 0.7]),
        story_repeated=st.none() | st.booleans(),
    ),
    "interaction.resolved": _fields(interaction_id=_interaction, resolution=_maybe),
    "interaction.reopened": _fields(interaction_id=_interaction),
    "purchase.completed": _fields(order_id=_word.map(lambda x: f"O-{x}"), customer_id=_customer, total=_total),
    "purchase.returned": _fields(customer_id=_customer, total=_total),
    "feedback.received": st.builds(
        lambda a, b: a | b,
        _score,
        _fields(customer_id=_customer, interaction_id=_interaction, instrument=st.just("csat")),
    ),
    "recognition.given": _fields(
        recognition_id=st.sampled_from(["R-1", "R-2"]),
        giver_id=_employee,
        receiver_id=_employee,
        reason=st.sampled_from(["kind", "quick"]),
        interaction_id=_interaction,
    ),
    "employee.joined": _employed,
    "employee.changed": _employed,
    "employee.left": _fields(employee_id=_employee),
    "training.completed": _fields(
        employee_id=_employee, course_id=st.just("K"), valid_until=st.none() | st.just("2026-03-01T00:00:00+02:00")
    ),
    "idea.submitted": _fields(idea_id=st.just("1"), employee_id=_employee, text=_word),
    "idea.decided": _fields(idea_id=st.just("1"), decision=_word, decided_by=_employee),
    "obstacle.reported": _fields(obstacle_id=st.just("1"), employee_id=_employee, text=_word),
    "obstacle.answered": _fields(obstacle_id=st.just("1"), answered_by=_employee, text=_word),
    "morale.surveyed": st.builds(
        lambda a, b: a | b,
        _score,
        _fields(team_id=_word, period=st.just("2026-01"), invited=st.just(9), respondents=st.integers(4, 6)),
    ),
    "customer.linked": _link,
    "customer.unlinked": _link,
    "action.reported": _fields(
        agent_id=_employee,
        kind=st.just("refund"),
        amount=_total,
        reason=st.just("late"),
        customer_id=_customer,
        interaction_id=_interaction,
    ),
    "refund.settled": _fields(action_id=st.sampled_from(["act-1", "act-3", REPORTED]), total=_total),
    "escalation.reported": _fields(
        escalation_id=st.sampled_from(["X-1", "X-2"]),
        amount=_total,
        kind=_maybe,
        requested_by=st.none() | _employee,
        reason=_maybe,
    ),
    "escalation.outcome_reported": _fields(
        escalation_id=st.sampled_from(["X-1", "X-2"]),
        verdict=st.sampled_from(["approved", "denied", "withdrawn"]),
        decided_by=_maybe,
        amount=st.none() | _total,
    ),
}
_ABOUT_INTERACTIONS = [name for name in _FACTS if name.startswith("interaction.")]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Return a history: facts at a few instants written in several ways, decisions, and corrections of some facts."""
    names = draw(
        st.lists(st.sampled_from(list(_FACTS)) | st.sampled_from(_ABOUT_INTERACTIONS), min_size=1, max_size=14)
    )
    found: History = []
    for number, name in enumerate(names):
        minute = draw(st.integers(0, 6))
        time = draw(
            st.sampled_from(
                [f"2026-01-05T10:0{minute}:00Z", f"2026-01-05T10:0{minute}:00.0Z", f"2026-01-05T15:3{minute}:00+05:30"]
            )
        )
        source = draw(st.sampled_from(["crm", "desk"]))
        is_known = name == "action.reported" and source == "crm" and number < 2
        identifier = f"report-{number}" if is_known else f"e-{number}"
        fact = event(identifier, name, source, time, **draw(_FACTS[name]))
        place = draw(st.none() | st.integers(0, 3))
        found.append(fact if place is None else fact | {"sequence": f"{place}"})
    found.insert(0, OPENED)
    for one in DECISIONS[: draw(st.integers(0, len(DECISIONS)))]:
        found.insert(draw(st.integers(1, len(found))), one)
    known = [one for one in found if not isinstance(one, tuple)]
    for number, wrong in enumerate(draw(st.lists(st.sampled_from(known), max_size=3))):
        data = draw(st.none() | _FACTS[wrong["type"].removeprefix("resolution.").removesuffix(".v1")])
        told = {"source_of": wrong["source"], "id_of": wrong["id"], "reason": "typed wrongly", "data": data}
        place = draw(st.integers(found.index(wrong) + 1, len(found)))
        found.insert(place, event(f"c-{number}", "fact.corrected", wrong["source"], **told))
    return found


def permuted(history: History, random: Random) -> History:
    """Return a history with its facts in another order: decisions keep their places, corrections follow their facts.

    Corrections of one fact keep their order.
    """
    told = [one for one in history if not isinstance(one, tuple)]
    shuffled = random.sample(told, len(told))
    groups: dict[tuple[str, str], list[int]] = {}
    members: dict[tuple[str, str], list[Document]] = {}
    for place, one in enumerate(shuffled):
        groups.setdefault(_corrected(one), []).append(place)
    for one in told:
        members.setdefault(_corrected(one), []).append(one)
    for name, places in groups.items():
        for place, one in zip(places, members[name], strict=True):
            shuffled[place] = one
    rest = iter(shuffled)
    return [one if isinstance(one, tuple) else next(rest) for one in history]


def _corrected(fact: Document) -> tuple[str, str]:
    """Return the source and id of a fact, or of the fact that it corrects."""
    data = fact["data"]
    return (data["source_of"], data["id_of"]) if "source_of" in data else (fact["source"], fact["id"])
