"""The findings of `admin doctor`: each is documented, and each has a test that makes it true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.environment import ROOT
from tests.support.source_code import syntax_tree

MADE_TRUE_BY = {
    "roles": "test_role_checks.py::test_each_role_that_hangs_or_is_killed_is_named_alone",
    "role NAME": "test_role_checks.py::test_each_role_that_hangs_or_is_killed_is_named_alone",
    "view NAME": "test_role_checks.py::test_a_view_that_hangs_is_named_alone",
    "inbox NAME": "test_role_checks.py::test_an_intake_that_hangs_is_named_and_so_is_a_message_it_cannot_take",
    "history mode": "test_role_checks.py::test_history_mode_beside_a_live_source_is_named_and_beside_an_import_is_not",
    "server": "test_full_disk.py::test_a_full_disk_loses_nothing_and_heals",
    "certificate": "test_server_credentials.py::test_a_certificate_that_ends_soon_is_a_finding",
    "durability": "test_distributed.py::test_a_server_with_lazy_fsync_is_refused_unless_allowed",
    "stream NAME": "test_stream_checks.py::test_an_edited_stream_is_named_with_the_field",
    "server NAME": "test_stream_checks.py::test_a_copy_on_a_server_that_is_away_is_named_with_the_server",
    "consumer NAME": "test_stream_checks.py::test_a_changed_consumer_is_named",
    "store": "test_stream_checks.py::test_a_store_that_is_nearly_full_is_named",
    "clock": "test_host_clock.py::test_facts_wait_and_decisions_are_unavailable_while_the_hosts_clock_is_ahead",
    "recorded times": "test_host_clock.py::test_a_period_opened_ahead_of_time_does_not_block_the_present_one",
    "data directory": "test_copies.py::test_a_copy_of_a_running_ledger_is_refused_by_every_command",
    "keys": "test_doctor.py::test_a_lost_bucket_of_keys_is_a_finding_and_not_forgetting",
    "managers": "test_doctor.py::test_managers_in_a_ring_are_a_finding_and_stop_nothing",
    "message ids": "test_own_server.py::test_a_longer_window_is_a_finding",
    "sources": "test_idle_inboxes.py::test_active_sources_keep_their_inboxes",
    "disk": "test_role_checks.py::test_little_room_on_the_disk_is_named",
    "index NAME": "test_role_checks.py::test_an_index_of_another_log_is_named",
    "archive": "test_damage.py::test_a_damaged_archive_is_not_taken_for_a_damaged_seal",
    "log": "test_damage.py::test_a_lost_event_that_was_not_sealed_yet_is_a_finding",
    "webhook NAME": "test_webhooks.py::test_a_dead_letter_is_listed_and_sent_again",
    "alarm": "test_role_checks.py::test_the_alarm_is_named_and_not_the_roles_that_it_ends",
    "seal": "test_damage.py::test_each_damage_is_found_by_verify_and_by_the_doctor",
}


def named(node: ast.expr) -> str | None:
    """Return a check's name as the source has it, e.g. ``view NAME``; None where it is computed elsewhere."""
    match node:
        case ast.Constant(value=str(name)):
            return name
        case ast.JoinedStr(values=[ast.Constant(value=str(kind)), ast.FormattedValue()]):
            return f"{kind}NAME"
    return None


def in_the_source() -> Iterator[str]:
    """Return the names of all checks that can be a finding."""
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(syntax_tree(path)):
            match node:
                case ast.Call(func=ast.Name(id="Check"), args=[name, _, *said], keywords=keywords) if said or keywords:
                    if found := named(name):
                        yield found
                case ast.Assign(value=ast.IfExp(body=one, orelse=other), targets=[ast.Name(id="check")]):
                    yield from filter(None, map(named, (one, other)))


def documented() -> set[str]:
    """Return the names in the first column of the table in docs/operate/monitor.md."""
    page = (ROOT / "docs" / "operate" / "monitor.md").read_text()
    table = page.partition("### Findings of the doctor")[2].partition("\n## ")[0]
    names = [name for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in re.findall("`(.*?)`", row)]
    assert len(names) == len(set(names))
    return set(names)


def test_each_finding_is_documented_and_tested() -> None:
    assert set(in_the_source()) == documented() == set(MADE_TRUE_BY)


@pytest.mark.parametrize("test", sorted(set(MADE_TRUE_BY.values())))
def test_the_test_of_each_finding_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^(async )?def {name}\(", next((ROOT / "tests").rglob(file)).read_text(), re.MULTILINE)
