"""Sign-ins and case files leave an event, and are refused where none can be written; a sign-out is never refused."""

from functools import partial

import httpx
import pytest

from app.runtime.session import Session
from dashboard.routes import case_files, web_page
from domain.commands import action_id_of
from ledger.errors import UnavailableError
from tests.support.http_api import accesses, client_with_token, served_with_tokens
from tests.support.waiting import eventually


async def _no_record(*_arguments: object) -> None:
    raise UnavailableError("the log does not answer")


async def test_sign_ins_and_refused_sign_ins_are_recorded(session: Session) -> None:
    async with (
        served_with_tokens(session) as (address, tokens),
        httpx.AsyncClient(base_url=address, timeout=20) as browser,
    ):
        for guess in ("one", "two"):  # of several refusals in a minute, one is recorded
            assert (await browser.post("/api/v1/session", json={"token": guess})).status_code == 401
        assert (await browser.post("/api/v1/session", json={"token": tokens["auditor"]})).status_code == 204
        assert await accesses(session) == [("unknown", "sign-in refused"), ("auditor", "sign-in")]


async def test_a_sign_in_that_cannot_be_recorded_is_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        served_with_tokens(session) as (address, tokens),
        httpx.AsyncClient(base_url=address, timeout=20) as browser,
    ):
        with monkeypatch.context() as broken:
            broken.setattr(web_page, "record_access", _no_record)
            refused = await browser.post("/api/v1/session", json={"token": tokens["auditor"]})
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert "Set-Cookie" not in refused.headers
            assert (await browser.post("/api/v1/session", json={"token": "guess"})).status_code == 401
        assert (await browser.get("/api/v1/me")).status_code == 401
        assert (await browser.post("/api/v1/session", json={"token": tokens["auditor"]})).status_code == 204


async def test_a_sign_out_is_recorded_once_and_ends_the_session(session: Session) -> None:
    async with (
        served_with_tokens(session) as (address, tokens),
        httpx.AsyncClient(base_url=address, timeout=20) as browser,
    ):
        assert (await browser.delete("/api/v1/session")).status_code == 204  # of nobody: nothing to record
        assert (await browser.post("/api/v1/session", json={"token": tokens["manager"]})).status_code == 204
        kept = browser.cookies["resolution-ledger"]
        assert (await browser.delete("/api/v1/session")).status_code == 204
        assert "resolution-ledger" not in browser.cookies
        browser.cookies.set("resolution-ledger", kept)  # a copy of the cookie is worth nothing
        assert (await browser.get("/api/v1/me")).status_code == 401
        assert (await browser.delete("/api/v1/session")).status_code == 204
        assert await accesses(session) == [("M-1", "sign-in"), ("M-1", "sign-out")]


async def test_a_sign_out_that_cannot_be_recorded_still_ends_the_session(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        served_with_tokens(session) as (address, tokens),
        httpx.AsyncClient(base_url=address, timeout=20) as browser,
    ):
        assert (await browser.post("/api/v1/session", json={"token": tokens["auditor"]})).status_code == 204
        kept = browser.cookies["resolution-ledger"]
        monkeypatch.setattr(web_page, "record_access", _no_record)
        assert (await browser.delete("/api/v1/session")).status_code == 204
        browser.cookies.set("resolution-ledger", kept)
        assert (await browser.get("/api/v1/me")).status_code == 401


async def test_a_second_sign_in_ends_the_session_that_the_browser_had(session: Session) -> None:
    async with (
        served_with_tokens(session) as (address, tokens),
        httpx.AsyncClient(base_url=address, timeout=20) as browser,
    ):
        assert (await browser.post("/api/v1/session", json={"token": tokens["auditor"]})).status_code == 204
        earlier = browser.cookies["resolution-ledger"]
        assert (await browser.post("/api/v1/session", json={"token": "guess"})).status_code == 401
        assert (await browser.get("/api/v1/me")).json()["role"] == "auditor"  # a wrong token ends nothing
        assert (await browser.post("/api/v1/session", json={"token": tokens["manager"]})).status_code == 204
        assert (await browser.get("/api/v1/me")).json()["role"] == "manager"
        browser.cookies.clear()
        browser.cookies.set("resolution-ledger", earlier)
        assert (await browser.get("/api/v1/me")).status_code == 401


async def test_a_case_file_is_recorded_and_refused_where_that_fails(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    action_id = action_id_of("crm", "r-A-1")
    async with (
        served_with_tokens(session) as (address, tokens),
        client_with_token(address, tokens["auditor"]) as client,
    ):
        get = partial(client.get, f"/api/v1/case/{action_id}")
        assert (await eventually(get, lambda answer: answer.status_code != 503)).status_code == 200
        assert await accesses(session) == [("auditor", f"export: case file of {action_id}")]
        monkeypatch.setattr(case_files, "record_access", _no_record)
        assert (await get()).status_code == 503
