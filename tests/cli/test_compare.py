"""`report ... --as-of X --compare Y`: the figures that events recorded between two positions changed."""

import json
from pathlib import Path

from tests.support.builders import event
from tests.support.forked_cli import CommandLine, json_of


def publish(command: CommandLine, file: Path, *facts: tuple[str, str, str]) -> None:
    """Publish facts about interactions, each with its type, interaction and time."""
    lines = [
        event(f"{name}-{at}", f"interaction.{kind}", "crm", f"2026-01-{at}T10:00:00Z", interaction_id=name, **more)
        for kind, name, at in facts
        for more in [{"channel": "phone"} if kind == "opened" else {"to_team_id": "B"}]
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert command("publish", str(file)).returncode == 0


def test_a_late_fact_changes_figures(command: CommandLine, tmp_path: Path) -> None:
    publish(command, tmp_path / "first.jsonl", ("opened", "I-1", "05"), ("opened", "I-2", "06"))
    first = json_of(command("report", "quality", "--json"))["position"]
    publish(command, tmp_path / "late.jsonl", ("transferred", "I-1", "07"))
    last = json_of(command("report", "quality", "--json"))["position"]
    positions = ("--as-of", f"{first}", "--compare", f"{last}")
    found = json_of(command("report", "quality", *positions, "--json"))
    assert (found["as_of"], found["compare"], found["events_between"], found["late"]) == (first, last, 1, 1)
    changes = {one["figure"]: (one["as_of"], one["compare"]) for one in found["changes"]}
    assert changes["overall.transferred.k"] == (0, 1)
    assert changes["by_channel.phone.transferred.share"] == (0.0, 0.5)
    assert not any("resolved" in name for name in changes)
    assert "1 of them are late" in " ".join(command("report", "quality", *positions).stdout.split())
    same = json_of(command("report", "quality", "--as-of", f"{last}", "--compare", f"{last}", "--json"))
    assert (same["changes"], same["events_between"]) == ([], 0)
    alone = command("report", "gap", "--compare", "1")
    assert (alone.returncode, "--as-of" in alone.stderr) == (2, True)
