"""The schema of the views' tables for SQL tools: names, types, units and meanings, versioned with each view.

tests/projections/test_schema.py compares it with the tables. docs/reference/sql.md prints it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from projections.engine.storage import INTERNAL
from projections.plugin_views import plugin_packages
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNLISTED = ("_past", *INTERNAL)
"""The ends of names of tables that only the view itself reads, apart from earlier versions, which have its columns."""
_EVERYWHERE = {
    "position": "position in the log of the event that created the row",
    "last_fact": "position of the last fact in the order of the entity's facts, in `<table>_facts`",
    "since": "position of the event that last changed the row; earlier versions of it are in `<table>_past`",
    "happened": "event time of the last event",
    "agent_id": "the agent",
    "customer_id": "the customer",
    "team_id": "the team",
    "interaction_id": "the interaction",
    "action_id": "the action",
    "escalation_id": "the escalation",
    "order_id": "the order",
    "employee_id": "the employee",
    "role": "the agent's role at that time",
    "kind": "refund, credit, discount, replacement, keep_item, fee_waiver, upgrade, gift, fix, other",
    "basis": "goodwill, entitlement, correction",
    "reason": "the reason, in the requester's words",
    "currency": "ISO 4217 code",
    "time": "event time",
    "at": "event time",
    "line": "support line; 1 is the first",
    "matter": "agent, kind, and the interaction, else the order, else the customer, as a JSON list",
    "channel": "e.g. phone, chat",
    "holder": "`agent:<id>` or `team:<id>`",
    "period": "2026-11-21, 2026-W47, 2026-11 or 2026-Q4",
    "decided_by": "the person that decided",
    "waited_seconds": "seconds from the request to the answer",
    "transfers": "number of transfers",
    "asked_minor": "amount requested",
    "amount_minor": "cost to the company",
    "withdrawn": "corrected: it never happened",
    "score": "the score, between `worst` and `best`",
    "best": "best possible score",
    "worst": "worst possible score",
    "opened": "time of opening",
    "status": "current status",
}
_TEAM = (
    "the team that the request names, else the agent's first team: as the decider knew it; of a reported fact, when it "
    "happened"
)
_ROLE = "the agent's role: as the decider knew it; of a reported fact, when it happened; null where none is known"
_CAREER = (
    "Roles and teams of employees by time; internal to the projection.",
    {"posts": "a JSON list of [time, role, first team]; both are null after leaving"},
)
_TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "authority.asked": (
        "Requests for more authority, here or in another system.",
        {
            "asking": "id, after the source of another system's request",
            "reported": "another system reported it",
            "requested": "time of the request",
            "outcome": "approved, denied, withdrawn, expired; null while it is open",
            "approved_minor": "amount approved, at most the amount requested",
            "rejections": "number of earlier rejections",
            "rules": "the limits that it met, as a JSON list",
            "team_id": _TEAM,
            "named_team": "the team that the request names",
            "role": _ROLE,
            "agent_kind": "human or ai; null of a request in another system",
        },
    ),
    "authority.careers": _CAREER,
    "authority.shortfalls": (
        "Requests beyond the agent's authority.",
        {
            "shortfall": "its position, as text",
            "outcome": "escalate or refused",
        },
    ),
    "budget_balances.balances": (
        "Each holder's budget by period: granted, spent, reserved and remaining.",
        {
            "granted_minor": "granted, carried over, drawn and transferred in, less the amounts transferred out",
            "spent_minor": "spent",
            "reserved_minor": "reserved: held, or for an open escalation",
            "lapsed_minor": "unused when the period was closed: lapsed or carried over",
            "opened": "time of the period's opening",
            "closed": "the period is closed",
        },
    ),
    "budget_balances.holds": (
        "Reservations by action; internal to the projection.",
        {"minor": "amount reserved"},
    ),
    "casework.interactions": (
        "Current state of interactions.",
        {
            "status": "open or resolved",
            "first_agent": "the first agent",
            "first_team": "the first team",
            "stories_repeated": "times that the customer had to repeat the story",
            "resolution": "the resolution",
            "agent_id": "the agent in charge",
            "team_id": "the team in charge",
        },
    ),
    "casework.actions": (
        "Current state of actions.",
        {
            "state": "taken, held, settled, voided, charged, reversed, reported",
            "reversed_minor": "amount reversed",
            "settled_minor": "amount paid by the payment system; without its report, the amount that a request settled",
            "paid_minor": "the sum of the payments that payment systems reported",
            "escalation_id": "the escalation that approved it, if any",
            "team_id": _TEAM,
            "named_team": "the team that the request names",
            "manager_id": "the agent's manager as the decider knew",
            "role": _ROLE,
            "agent_kind": "human or ai; null of a reported action",
            "time": "time of the action",
        },
    ),
    "casework.escalations": (
        "Current state of escalations, here or in other systems; a row without a status is none.",
        {
            "asking": "id, after the source of another system's request",
            "reported_by": "the source of another system's request; null of an escalation of the ledger",
            "position": "the position of its request, or of the first report",
            "requested": "time of the request",
            "status": "waiting, approved, denied, withdrawn, expired",
            "amount_minor": "amount approved",
            "asked_of": "people asked to decide, a JSON list",
            "due": "deadline, after which it is passed on or expires",
            "action_id": "the action requested",
            "team_id": _TEAM,
            "named_team": "the team that the request names",
            "manager_id": "the agent's manager as the decider knew",
            "role": _ROLE,
            "agent_kind": "human or ai",
        },
    ),
    "casework.careers": _CAREER,
    "casework.households": (
        "Links between customers (same person or household), in both directions.",
        {
            "pair": "both customers and the relation",
            "a": "a customer",
            "b": "the linked customer",
            "linked": "false: the link was withdrawn",
        },
    ),
    "decisions.depended": (
        "Input of policy simulations (`report what-if`); internal to the projection.",
        {
            "type": "type of the event, or `corrected`, `reported`",
            "at": "event time, microseconds since 1970",
            "data": "the fields needed, JSON",
        },
    ),
    "flags.flags": (
        "Suspected misuse for human review; a flag is not a verdict.",
        {
            "flag_id": "id of the flag",
            "rule": "R1 to R18",
            "rule_version": "version of the rule",
            "about": "agents and customers concerned, a JSON list",
            "explanation": "one sentence",
            "evidence": "positions of the events that prove it, a JSON list",
            "raised": "time when it was raised",
            "status": "open, confirmed, coached, dismissed",
            "unmasked_by": "the person that unmasked it for review",
            "reviewed": "time of the review",
            "reviewed_by": "the reviewer",
            "answered_by": "the employee concerned that answered",
            "answer": "the answer, encrypted",
            "note": "note of the review, encrypted",
        },
    ),
    "flags.cases": (
        "Flags about one subject, reviewed together.",
        {
            "case_id": "id of the case",
            "subject": "the agent, else the customer, that its flags are about",
            "about": "all agents and customers concerned, a JSON list",
            "flag_ids": "its flags, a JSON list",
            "rules": "the rules of its open flags, a JSON list",
            "rank": "its place among the cases that waited that night; 1 is the best",
            "loss_minor": "expected loss in minor units: the evidence's amount times the flags' strength",
            "loss_currency": "its currency",
            "explanation": "the flag to look at first, and peers' numbers",
            "status": "below (the line of the week's capacity), open, closed",
            "found": "time of its first event",
            "opened": "time when it was opened",
            "closed": "time of the review of its last flag",
            "reviewed_flags": "the flags that were reviewed, a JSON list",
        },
    ),
    "flags.case_flags": (
        "The case of each flag.",
        {"flag_id": "the flag", "case_id": "its case"},
    ),
    "flags.evidence": (
        "Evidence of each flag, by position.",
        {"flag_id": "the flag", "position": "position of an event that proves it"},
    ),
    "journeys.journeys": (
        "The path of each interaction through teams and lines.",
        {
            "first_agent": "the first agent",
            "first_team": "the first team",
            "team": "the current team",
            "highest_line": "the highest line reached",
            "moved_up": "it moved to a higher line",
            "left_teams": "earlier teams, a JSON list",
            "came_back": "it returned to an earlier team",
            "repeated_stories": "times that the customer repeated the story; null if not reported",
            "waited_seconds": "seconds waited between teams",
            "resolved": "time of the last resolution; null while it is open",
            "first_resolved": "time of the first resolution",
            "reopened": "number of reopenings",
        },
    ),
    "journeys.feedback": (
        "Customer feedback.",
        {
            "told": "source and id of the feedback",
            "instrument": "csat, nps, ces, review",
        },
    ),
    "loyalty_effects.purchases": (
        "Purchases and returns.",
        {
            "total_minor": "amount paid, or refunded for a return",
            "margin_minor": "margin; null if not reported",
            "returned": "it is a return",
        },
    ),
    "loyalty_effects.actions": (
        "Actions for customers.",
        {
            "cost_minor": "cost to the company",
            "reported": "whether a fact reported it, not a decision",
            "withdrawn": "corrected, or the report of an action that a decision took",
        },
    ),
    "loyalty_effects.requests": (
        "Goodwill requests to which a limit for one action applied.",
        {
            "limit_minor": "the limit",
            "at_once": "within the limit, and taken",
        },
    ),
    "people.employees": (
        "Employees.",
        {
            "role": "current role",
            "team_ids": "teams, a JSON list",
            "manager_id": "the manager",
            "name": "the name, encrypted as in the log; forgotten with the key",
            "joined": "time of joining",
            "left": "time of leaving; null: still employed",
            "roles": "the employee's roles in order, a JSON list of [time, role]",
            "role_since": "start of the current role",
        },
    ),
    "people.thanks": (
        "Recognition given.",
        {
            "recognition_id": "id of the recognition",
            "giver_id": "the giver",
            "giver_kind": "customer, peer, manager",
            "receiver_id": "the receiver",
            "points": "points given",
        },
    ),
    "people.courses": (
        "Completed courses.",
        {
            "completion": "employee, course and time",
            "course_id": "the course",
            "completed": "time of completion",
            "valid_until": "end of validity; null: unlimited",
        },
    ),
    "people.voices": (
        "Ideas and obstacles.",
        {
            "voice_id": "id of the idea or obstacle",
            "what": "idea or obstacle",
            "said": "time of submission",
            "text": "the employee's words, encrypted",
            "kind": "subject",
            "answered": "time of the answer",
            "answered_by": "the person that answered",
            "answer": "the answer or decision",
        },
    ),
    "people.morale": (
        "Morale of teams; do not show figures of fewer than five people.",
        {
            "survey": "team and period",
            "invited": "people invited",
            "respondents": "people that answered",
            "period": "period of the survey",
        },
    ),
    "audit_trail.trail": (
        "One line for each event.",
        {
            "type": "stored type",
            "source": "source of the event",
            "event_id": "id that the source gave it",
            "recorded": "recorded time",
            "who": "the agent or employee",
            "whom": "the customer",
            "what": "the event in one sentence",
            "corrected_by": "position of its correction",
        },
    ),
    "audit_trail.accesses": (
        "Sign-ins, sign-outs, exports and other accesses, and reads about named people where the policy records them.",
        {
            "recorded": "recorded time",
            "who": "the person or the name of a token, `operator` on the command line, `unknown` of a refused sign-in",
            "what": "e.g. sign-in, export; of a read about named people: read",
            "via": "http or cli; null of a read",
            "about": "of a read: the subjects, such as `agent:A-7`, as a JSON list",
            "up_to": "of a read: the last position that was shown",
        },
    ),
    "audit_trail.contacts": (
        "The interactions of each agent: those with an event of their own that names the agent.",
        {"position": "the first such event"},
    ),
    "audit_trail.mentions": (
        "Ids and amounts that each event names.",
        {
            "kind": "agent, customer, interaction, order, action, escalation, amount",
            "id": "the id; of an amount, its currency and its minor units with 18 digits",
            "position": "position of the event",
        },
    ),
}
_TYPES = (
    (sa.Boolean, "0 or 1"),
    (sa.BigInteger, "integer"),
    (sa.Integer, "integer"),
    (sa.Float, "real"),
    (sa.LargeBinary, "blob"),
)
_TIMES = frozenset(
    (
        "time",
        "at",
        "opened",
        "happened",
        "requested",
        "due",
        "raised",
        "reviewed",
        "resolved",
        "joined",
        "left",
        "role_since",
        "completed",
        "valid_until",
        "said",
        "answered",
        "recorded",
    )
)


class Column(NamedTuple):
    """A column: its view, table, name, type, unit and meaning."""

    view: str
    table: str
    name: str
    type: str
    unit: str
    key: bool
    meaning: str


def columns() -> Iterator[Column]:
    """Yield every column of every view's tables.

    Raises:
        KeyError: a column has no meaning in this module; add one.

    """
    for view, make in MODELS.items():
        for table in make().metadata.sorted_tables:
            if table.name.endswith(UNLISTED):
                continue
            _, meanings = _description_of(view, table)
            for one in table.columns:
                kind = next((name for cls, name in _TYPES if isinstance(one.type, cls)), "text")
                is_money = one.name == "minor" or one.name.endswith("_minor")
                unit = "minor units of `currency`" if is_money else "RFC 3339, UTC" if _is_time(one, kind) else ""
                yield Column(view, str(table.name), str(one.name), kind, unit, one.primary_key, meanings[one.name])


def _description_of(view: str, table: sa.Table) -> tuple[str, Mapping[str, str]]:
    """Return the description of a table and of its columns; another package gives them as SQLAlchemy comments."""
    if view in plugin_packages():
        return table.comment or "", {column.name: column.comment or "" for column in table.columns}
    text, meanings = _TABLES[f"{view}.{table.name}"]
    return text, _EVERYWHERE | meanings


def _is_time(column: sa.Column[Any], kind: str) -> bool:
    return kind == "text" and column.name in _TIMES


def schema_text() -> str:
    """Return the text of docs/reference/sql.md."""
    lines = [_HEAD]
    seen = ""
    for one in columns():
        name = f"{one.view}.{one.table}"
        if name != seen:
            seen = name
            view = MODELS[one.view]()
            lines += [
                "",
                f"## `{one.table}` in `{one.view}.sqlite`, version {view.version}",
                "",
                _description_of(one.view, view.metadata.tables[one.table])[0],
                "",
                "| column | type | unit | meaning |",
                "|---|---|---|---|",
            ]
        key = " (key)" if one.key else ""
        lines.append(f"| `{one.name}`{key} | {one.type} | {one.unit} | {one.meaning} |")
    return "\n".join(lines) + "\n"


_HEAD = """# SQL for other dashboards

Each view is a SQLite database that any SQL tool reads while it is being written:

```sh
sqlite3 -readonly .resolution-ledger/views/budget_balances.sqlite 'SELECT holder, period, spent_minor FROM balances'
```

`<data-dir>/views/<view>.sqlite` links to the live generation. After `admin projections rebuild` it links to the new
one, so reopen it from time to time. Read it, never write to it: a view is derived from the log, and a rebuild replaces
it.

With views in PostgreSQL the same tables are in the schema `ledger`, as `<view>_<table>`
([Views in PostgreSQL](../operate/postgresql.md)).

The schema below is stable. Names, types and meanings of a view stay the same within a version; columns may be added.
`progress` in each file holds the position up to which the log was read. `<table>_past` keeps earlier versions of rows,
with the same columns. A version was valid from its `since` to that of the next one. `<table>_facts` keeps the facts
that rows are folded from, `<table>_days` arrays of a day's values, and `<table>_spans` a day's positions, all for the
view itself. Amounts are whole minor units (pence, yen) of the row's `currency`. Times are RFC 3339 in UTC with six
digits after the second, so they sort as text. Personal text is encrypted (`sealed:...`); only the commands and the
HTTP API can read it."""
