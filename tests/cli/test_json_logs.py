"""Log lines as JSON: each line is one object, and none holds personal data or passwords."""

import asyncio
import json
import logging
import signal
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from app.json_logs import JsonFormatter
from app.runtime.session import Session
from ledger.nats import incidents
from tests.support.environment import ROOT, clean_environment

FIELDS = {"time", "level", "logger", "role", "message"}


def line_of(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """Return the newest record as its JSON line."""
    text = JsonFormatter("guard").format(caplog.records[-1])
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    assert FIELDS <= found.keys() <= {*FIELDS, "error", "stack"}
    return found


def test_an_error_is_named_by_its_type_and_place_and_not_by_its_text(caplog: pytest.LogCaptureFixture) -> None:
    before = datetime.now(UTC)
    try:
        int("Ada Lovelace, 12 St James's Square")
    except ValueError:
        logging.getLogger("consumers.guard.service").exception("the guard\nwaits for %s", "nats://user:secret@host")
    line = line_of(caplog)
    assert (line["level"], line["logger"], line["role"]) == ("ERROR", "consumers.guard.service", "guard")
    assert line["message"] == "the guard\nwaits for nats://***@host"
    assert line["error"] == "ValueError"
    assert [place.rpartition(" ")[2] for place in line["stack"]] == [
        "test_an_error_is_named_by_its_type_and_place_and_not_by_its_text"
    ]
    assert "Lovelace" not in json.dumps(line)
    assert line["time"].endswith("Z")  # RFC 3339, in UTC
    assert abs(datetime.fromisoformat(line["time"]) - before).total_seconds() < 5


def test_an_incident_and_a_line_of_another_package_are_without_details(caplog: pytest.LogCaptureFixture) -> None:
    incidents.report("a test of logs failed", "Ada Lovelace", ValueError("Ada Lovelace"))
    assert line_of(caplog)["message"] == "a test of logs failed (1 so far)"
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %s", "Ada Lovelace")
    assert line_of(caplog)["message"] == "Task exception was never retrieved"


@pytest.mark.integration
async def test_every_line_of_a_role_is_json(session: Session) -> None:
    """A request whose reply subject must not be answered makes a warning, and its text is input from outside."""
    role = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "-v", "run", "decisions", "--log-format", "json"),
        *("--data-dir", str(session.data_dir)),
        cwd=ROOT,
        env=clean_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    lines: list[bytes] = []
    assert role.stdout
    assert role.stderr
    try:
        assert await role.stdout.readline() == b"decisions runs\n"
        await session.client.publish("resolution.decide.crm.action", b"{}", reply="resolution.ada.lovelace")
        await session.client.flush()
        async with asyncio.timeout(10):
            while b"is never answered" not in b"".join(lines):
                lines.append(await role.stderr.readline())
    finally:
        role.send_signal(signal.SIGTERM)
        lines += (await role.communicate())[1].splitlines()
    assert role.returncode == 0
    for line in lines:
        found = json.loads(line)
        assert found.keys() >= FIELDS
        assert found["role"] == "decisions"
    assert b"lovelace" not in b"".join(lines)
