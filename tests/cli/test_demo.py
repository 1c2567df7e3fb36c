"""The demo: the same seed gives the same events, on a machine of any speed; its documentation page runs beside."""

import json
from collections import Counter
from pathlib import Path

from app.demo.moments import PLANTED, make_world, moments_of
from domain.events.facts import FACTS
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.forked_cli import CommandLine, json_of

OF_ONE_RUN = {
    "decider_id",
    "evidence",
    "explanation",
    "flag_id",
    "flag_ids",
    "note_hash",
    "recordedtime",
    "relates_to",
    "position",
    "request_sha256",
    "seen",
    "seen_position",
}
"""Fields that hold positions or follow from the ledger's own keys."""


def events_of(command: CommandLine, folder: Path) -> Counter[str]:
    """Return the events of four days, without the fields that differ from run to run."""

    def same(value: object) -> object:
        if isinstance(value, dict):
            return {name: same(one) for name, one in value.items() if name not in OF_ONE_RUN}
        return [same(one) for one in value] if isinstance(value, list) else value

    json_of(command("demo", "--no-serve", "--days", "4", "--json", data_dir=folder))
    lines = command("audit", "replay", data_dir=folder).stdout.splitlines()
    return Counter(json.dumps(same(json.loads(line)), sort_keys=True) for line in lines)


def test_the_same_seed_gives_the_same_events(command: CommandLine, tmp_path: Path) -> None:
    one, other = (events_of(command, tmp_path / name) for name in ("one", "other"))
    assert one == other
    assert one.total() > 2_000


def test_the_demo_teaches_every_kind_of_fact_and_request() -> None:
    facts, requests = moments_of(make_world(8))
    missing = FACTS.keys() - {fact.type for fact in facts}
    assert missing == {f"resolution.{name}.v1" for name in ("fact.corrected", "refund.settled")}
    assert {request.operation for request in requests} == {"action", "escalation", "reversal", "budget"}
    joined: list[Document] = [fact.data for fact in facts if fact.type == "resolution.employee.joined.v1"]
    head = {one["employee_id"] for one in joined if "manager_id" not in one}
    assert len(head) == 1
    assert all(one["name"] for one in joined)
    managers = {one["employee_id"] for one in joined if one.get("manager_id") in head}
    assert {one["manager_id"] for one in joined if one["employee_id"] not in managers | head} == managers


def test_the_page_of_the_demo_names_the_planted_cases() -> None:
    page = (ROOT / "docs" / "start" / "demo.md").read_text()
    world = make_world(8)
    assert tuple(misuse.rule for misuse in world.truth) == PLANTED
    for misuse in world.truth:
        row = next(line for line in page.splitlines() if line.startswith(f"| {misuse.rule} "))
        assert all(name.partition(":")[2] in row for name in misuse.subjects), row
