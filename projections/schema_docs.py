"""The views' tables for SQL dashboards: a stable schema, versioned with each view. Names, types, units, meaning.

Held against the tables themselves by tests/projections/test_schema.py, and printed as docs/sql.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterator

_EVERYWHERE = {
    "position": "position in the log of the event that made the row",
    "since": "position of the event that made the row what it is; what it was before stands in `<table>_past`",
    "happened": "when what the last event tells of was done",
    "agent_id": "the agent",
    "customer_id": "the customer",
    "team_id": "the team",
    "interaction_id": "the interaction",
    "action_id": "the action",
    "escalation_id": "the escalation",
    "order_id": "the order",
    "employee_id": "the employee",
    "role": "the agent's role then",
    "kind": "refund, credit, discount, replacement, keep_item, fee_waiver, upgrade, gift, fix, other",
    "basis": "goodwill, entitlement, correction",
    "reason": "why, in the words of whoever asked",
    "currency": "ISO 4217",
    "time": "when it happened",
    "at": "when it happened",
    "line": "support line, 1 is the first",
    "channel": "phone, chat, and the like",
    "holder": "`agent:<id>` or `team:<id>`",
    "period": "2026-11-21, 2026-W47, 2026-11 or 2026-Q4",
    "decided_by": "who decided it",
    "waited_seconds": "from asking to the answer, seconds",
    "transfers": "times it was passed on",
    "asked_minor": "what was asked for",
    "amount_minor": "its cost to the company",
    "withdrawn": "corrected: it never happened",
    "score": "what was answered, between `worst` and `best`",
    "best": "the best there is",
    "worst": "the worst there is",
    "opened": "when it was opened",
    "status": "where it stands",
}
_TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "authority.asked": (
        "Each request for more authority, here or in another system.",
        {
            "asking": "source (of another system's) and id",
            "reported": "another system told of it",
            "requested": "when it was asked",
            "outcome": "approved, denied, withdrawn, expired; null while it waits",
            "approved_minor": "what was approved, at most what was asked",
            "rejections": "times somebody said no before",
        },
    ),
    "authority.shortfalls": (
        "Each time somebody could not give what they wanted to.",
        {
            "shortfall": "its position, as text",
            "outcome": "escalate or refused",
            "followed": "they asked for it then; else it is silent",
        },
    ),
    "authority.latest": (
        "The last shortfall of each matter; the projection's own.",
        {
            "matter": "agent, kind and what it is about",
            "shortfall": "as in `shortfalls`",
        },
    ),
    "budget_balances.balances": (
        "What each holder was granted, spent, has reserved and has left, by period.",
        {
            "granted_minor": "granted, carried over, drawn and moved in, less what was moved out",
            "spent_minor": "spent",
            "reserved_minor": "reserved: held, or waiting for an answer",
            "opened": "when the period was opened",
            "closed": "its books are closed",
        },
    ),
    "budget_balances.holds": ("What is reserved for an action; the projection's own.", {"minor": "so much"}),
    "casework.interactions": (
        "Interactions as they stand.",
        {
            "status": "open or resolved",
            "stories_repeated": "times the customer had to tell it again",
            "resolution": "how it ended",
            "agent_id": "who handles it",
            "team_id": "whose it is",
        },
    ),
    "casework.actions": (
        "Actions as they stand.",
        {
            "state": "taken, held, settled, voided, charged, reversed, reported",
            "reversed_minor": "taken back",
            "settled_minor": "moved by the payment system",
            "escalation_id": "where somebody else allowed it",
            "time": "when it was done",
        },
    ),
    "casework.escalations": (
        "Escalations as they stand.",
        {
            "requested": "when it was asked",
            "status": "waiting, approved, denied, withdrawn, expired",
            "amount_minor": "what was approved",
            "asked_of": "who may decide, a JSON list",
            "due": "when it goes on by itself",
            "action_id": "what it would be, or became",
        },
    ),
    "casework.households": (
        "Customers who are one person or household, in both directions.",
        {
            "pair": "both, and how",
            "a": "a customer",
            "b": "another",
            "linked": "false: told to be wrong",
        },
    ),
    "decisions.depended": (
        "What judging decisions again needs (`report what-if`); the projection's own.",
        {
            "type": "of the event; or `corrected`, `reported`",
            "at": "when it happened, microseconds since 1970",
            "data": "what is needed of it, JSON",
        },
    ),
    "flags.flags": (
        "Suspected abuse, for a human to look at; no verdict.",
        {
            "flag_id": "its id",
            "rule": "R1 to R15",
            "rule_version": "of the rule",
            "about": "agents and customers, a JSON list",
            "explanation": "one sentence",
            "evidence": "positions that prove it, a JSON list",
            "raised": "when it was raised",
            "status": "open, confirmed, coached, dismissed",
            "unmasked_by": "who began to look at it",
            "reviewed": "when it was reviewed",
            "reviewed_by": "by whom",
            "answered_by": "the person concerned who answered",
            "answer": "what they said, sealed",
            "note": "of the review, sealed",
        },
    ),
    "flags.evidence": (
        "Which positions prove which flag.",
        {"flag_id": "the flag", "position": "an event that proves it"},
    ),
    "journeys.journeys": (
        "The way of each interaction.",
        {
            "first_team": "the team it began in",
            "team": "the team it is in",
            "highest_line": "the highest line it saw",
            "moved_up": "it went to a higher line",
            "left_teams": "teams it left, a JSON list",
            "came_back": "it came back to one",
            "repeated_stories": "times the story was told again; null where nobody says",
            "waited_seconds": "between teams",
            "first_action": "when something was done for the customer",
            "resolved": "when it was resolved",
            "reopened": "times it was opened again",
        },
    ),
    "journeys.feedback": (
        "What customers answered.",
        {
            "told": "source and id of the answer",
            "instrument": "csat, nps, ces and the like",
        },
    ),
    "loyalty_effects.purchases": (
        "Purchases, and what came back.",
        {
            "total_minor": "what was paid, or given back",
            "margin_minor": "of it, margin; null where nobody says",
            "returned": "it came back",
        },
    ),
    "loyalty_effects.actions": ("What was done for customers.", {"cost_minor": "its cost to the company"}),
    "loyalty_effects.requests": (
        "Goodwill that met a limit for one action.",
        {
            "limit_minor": "the limit",
            "at_once": "within the limit, and given",
        },
    ),
    "people.employees": (
        "Who works here.",
        {
            "role": "the role now",
            "team_ids": "a JSON list",
            "manager_id": "whose people they are",
            "joined": "when",
            "left": "when; null: still here",
            "role_since": "when they got the role",
        },
    ),
    "people.thanks": (
        "Thanks that were given.",
        {
            "recognition_id": "its id",
            "giver_id": "by whom",
            "giver_kind": "colleague, customer, manager",
            "receiver_id": "to whom",
            "points": "points with it",
        },
    ),
    "people.courses": (
        "Courses that were completed.",
        {
            "completion": "employee, course and time",
            "course_id": "the course",
            "completed": "when",
            "valid_until": "until when it opens authority; null: for ever",
        },
    ),
    "people.voices": (
        "Ideas and obstacles.",
        {
            "voice_id": "its id",
            "what": "idea or obstacle",
            "said": "when it was said",
            "text": "in their words, sealed",
            "kind": "what it is about",
            "answered": "when",
            "answered_by": "by whom",
            "answer": "what came of it",
        },
    ),
    "people.morale": (
        "How teams feel; never of fewer than five people, please.",
        {
            "survey": "team and period",
            "invited": "people asked",
            "respondents": "people who answered",
            "period": "of the survey",
        },
    ),
    "audit_trail.trail": (
        "Every event, in a person's words.",
        {
            "type": "stored type",
            "source": "who told it",
            "event_id": "its id there",
            "recorded": "when the ledger recorded it",
            "who": "who did it",
            "whom": "for whom",
            "what": "what, in words",
            "corrected_by": "position of its correction",
        },
    ),
    "audit_trail.mentions": (
        "Which event names whom.",
        {
            "kind": "agent, customer, interaction, action, escalation",
            "id": "the id",
            "position": "the event",
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
        "first_action",
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
    """One column: what it is called, holds, is measured in, and means."""

    view: str
    table: str
    name: str
    type: str
    unit: str
    key: bool
    meaning: str


def columns() -> Iterator[Column]:
    """Every column of every view's tables.

    Raises:
        KeyError: somebody added a column and did not say what it means.

    """
    for view, make in MODELS.items():
        for table in make().metadata.sorted_tables:
            if table.name.endswith("_past"):
                continue
            meanings = _EVERYWHERE | _TABLES[f"{view}.{table.name}"][1]
            for one in table.columns:
                kind = next((name for cls, name in _TYPES if isinstance(one.type, cls)), "text")
                is_money = one.name == "minor" or one.name.endswith("_minor")
                unit = "minor units of `currency`" if is_money else "RFC 3339, UTC" if _is_time(one, kind) else ""
                yield Column(view, table.name, one.name, kind, unit, one.primary_key, meanings[one.name])


def _is_time(column: sa.Column[Any], kind: str) -> bool:
    return kind == "text" and column.name in _TIMES


def schema_text() -> str:
    """docs/sql.md."""
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
                _TABLES[name][0],
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

`<data-dir>/views/<view>.sqlite` leads to the generation that serves; after `admin projections rebuild` it leads to
the new one, so open it again now and then. Read, never write: a view is made of the log alone, and is dropped when
it is rebuilt.

The schema below is stable. Names, types and meanings of a view stay as long as its version does; columns may be
added. `progress` in each file says up to which position the log was read. `<table>_past` keeps what rows were
before, with the same columns; a row was in force from its `since` up to the next one's. Amounts are whole minor
units (pence, yen) of the row's `currency`; times are RFC 3339 in UTC, so that they sort as text. Text that says
something about a person is sealed (`sealed:...`), and readable through the commands and the HTTP API alone."""
