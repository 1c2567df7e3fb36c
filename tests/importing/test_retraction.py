"""A retracted run: each view's rows and each report are those of a ledger that never saw it."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from app.runtime.session import Session
from app.runtime.views import open_view
from config.settings import load_settings
from projections.registry import MODELS
from tests.support.documents import Document
from tests.support.forked_cli import CommandLine, json_of

pytestmark = pytest.mark.integration

MONEY = "{'amount': amount, 'currency': 'GBP'}"
FIELDS = {
    "employee.joined": "employee_id, 'agent' AS role, [team] AS team_ids",
    "training.completed": "employee_id, course_id",
    "customer.linked": "customer_id AS a, b, 'household' AS relation",
    "interaction.opened": "interaction_id, customer_id, employee_id AS agent_id, team AS team_id",
    "interaction.transferred": "interaction_id, b AS to_agent_id",
    "interaction.resolved": "interaction_id, employee_id AS agent_id",
    "interaction.reopened": "interaction_id",
    "purchase.completed": f"id AS order_id, customer_id, {MONEY} AS total",
    "purchase.returned": f"customer_id, {MONEY} AS total",
    "feedback.received": "customer_id, interaction_id, 'csat' AS instrument, 4 AS score, 5 AS best, 1 AS worst",
    "recognition.given": "id AS recognition_id, b AS giver_id, employee_id AS receiver_id, 'help' AS reason",
    "action.reported": f"employee_id AS agent_id, customer_id, interaction_id, 'refund' AS kind, "
    f"'late' AS reason, {MONEY} AS amount",
    "escalation.reported": f"interaction_id AS escalation_id, employee_id AS requested_by, {MONEY} AS amount",
    "escalation.outcome_reported": "interaction_id AS escalation_id, 'approved' AS verdict",
    "idea.submitted": "id AS idea_id, employee_id, 'text' AS text",
    "employee.left": "employee_id",
}
COLUMNS = ("customer_id", "employee_id", "interaction_id", "team", "b", "amount", "course_id")
REPORTS = (
    *(("report", name) for name in ("actions", "balances", "escalations", "gap", "loyalty", "quality", "recognition")),
    ("report", "summary", "--from", "2026-01", "--to", "2026-03"),
    ("report", "summary", "--from", "2026-01", "--to", "2026-03", "--by", "team"),
    ("audit", "flags"),
    ("audit", "cases"),
)
PLACES = ("position", "last_fact")
"""Columns with the position of an event; the comparison has the event's id instead."""
OF_THE_LOG = ("progress", "corrections", "words_of_days", "depended")
HISTORY = ("_past", "_facts", "_spans", "_days")
"""Tables of earlier states, of places in the log, and of totals by day, which the summary reads."""


def written(folder: Path, name: str, rows: list[Document]) -> tuple[str, str]:
    """Write the mapping and a file of rows; return their paths."""
    events = [
        {"type": kind, "select": f"""SELECT id, "at" AS time, {fields} FROM rows WHERE kind = '{kind}'"""}
        for kind, fields in FIELDS.items()
    ]
    files = {"rows": {"optional": list(COLUMNS)}}
    paths = folder / "mapping.yaml", folder / name
    paths[0].write_text(yaml.safe_dump({"source": "shop", "files": files, "events": events}))
    paths[1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(paths[0]), str(paths[1])


def row(mark: str, kind: str, day: int, number: int) -> Document:
    """Return a row about one of a few people, so that both files tell about the same ones."""
    return {
        "id": f"{mark}-{kind}-{number}",
        "kind": kind,
        "at": f"2026-02-{day:02d}T{number + 9:02d}:00:00Z",
        "customer_id": f"C-{number % 2}",
        "employee_id": f"A-{number % 3}",
        "interaction_id": f"I-{number % 2}",
        "team": f"T-{number % 2}",
        "b": f"A-{(number + 1) % 3}",
        "amount": f"{number + 1}.50",
        "course_id": "tone",
    }


async def view_rows(folder: Path) -> Document:
    """Return the rows of each table of each view, sorted, with ids of events in the place of their positions."""
    found: Document = {}
    async with Session(load_settings({"data_dir": str(folder)}, {}), reads_only=True) as session:
        ids: dict[object, str] = {}
        async for batch in session.log.subject_batches("ledger.>"):
            ids |= {one.position: json.loads(one.data)["id"] for one in batch}
        for name, model in MODELS.items():
            if name == "audit_trail":  # it shows the run and its retraction
                continue
            async with open_view(session, name) as connection:
                for table in model().metadata.sorted_tables:
                    if table.name in OF_THE_LOG or table.name.endswith(HISTORY):
                        continue
                    rows = connection.execute(sa.select(table)).mappings().all()
                    found[f"{name}.{table.name}"] = sorted(
                        str(
                            {
                                key: ids.get(value, value) if key in PLACES else value
                                for key, value in one.items()
                                if key not in ("since", "text")  # each ledger seals texts with its own keys
                            }
                        )
                        for one in rows
                        if not is_mark(one)
                    )
    return found


def is_mark(row: sa.RowMapping) -> bool:
    """Return whether a row only marks that a fact was withdrawn; readers leave it out."""
    empty = any(name in row and row[name] is None for name in ("last_fact", "score"))
    return empty or bool(row.get("withdrawn")) or row.get("state") == "never happened"


def without_places(document: object) -> object:
    """Return a report without its place in the log and its moment."""
    if isinstance(document, dict):
        places = ("position", "as_of", "recorded", "lag_seconds", "positions")
        return {name: without_places(value) for name, value in document.items() if name not in places}
    if isinstance(document, list):  # the list of actions shows those that never happened, with this state
        return [
            without_places(one) for one in document if not isinstance(one, dict) or one.get("state") != "never happened"
        ]
    return document


async def test_a_retracted_run_is_as_if_it_had_never_been(command: CommandLine, tmp_path: Path) -> None:
    """The oracle is a ledger that never saw the run."""
    kept = [row("kept", kind, 3, number) for kind in FIELDS for number in range(2)]
    more = [row("run", kind, day, number) for kind in FIELDS for day, number in ((2, 1), (4, 2))]
    folders = tmp_path / "data", tmp_path / "never"
    for folder in folders:
        json_of(command("import", *written(tmp_path, "kept.jsonl", kept), "--json", data_dir=folder))
    before = await view_rows(folders[1])
    run = json_of(command("import", *written(tmp_path, "run.jsonl", more), "--json"))["run"]
    assert await view_rows(folders[0]) != before
    assert json_of(command("import", "--retract", run, "--json"))["retracted"] == len(more)
    assert json_of(command("import", "--retract", run, "--json"))["duplicate"] == len(more)
    rows = await view_rows(folders[0])
    changed = {name: set(some) ^ set(before[name]) for name, some in rows.items()}
    assert {name: some for name, some in changed.items() if some} == {}
    for report in REPORTS:
        found, never = (without_places(json_of(command(*report, "--json", data_dir=folder))) for folder in folders)
        assert found == never, report
    assert command("import", "--retract", "0" * 12).returncode == 1
