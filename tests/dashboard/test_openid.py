"""Sign-in by OpenID Connect, with a provider that runs in the test: the person, and the rights that log and groups give."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import parse_qs, urlsplit

import httpx
import oidc_provider_mock
import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from oidc_provider_mock import User
from playwright.async_api import async_playwright, expect

from app.runtime.roles import running
from app.runtime.session import Session
from config.settings import SettingsError, load_settings
from dashboard.auth.authorization import COOKIE
from dashboard.auth.openid import OpenIdProvider
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from hatch_build import build_page
from tests.support.browser import CHROMIUM, CHROMIUM_FLAGS
from tests.support.builders import event
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.http_api import accesses
from tests.support.upstreams import Upstream, set_up_organisation, upstream_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

PEOPLE = {
    "A-1": {},
    "M-1": {},
    "Z-9": {"groups": ["ledger-audit", "staff"]},
    "X-1": {"groups": "ledger-operate"},
    "nobody": {"groups": ["staff"]},
    "kim@example.com": {"groups": ["ledger-operate"]},
}


@pytest.fixture
def issuer() -> Iterator[str]:
    users = [User(sub=name, claims=claims) for name, claims in PEOPLE.items()]
    with oidc_provider_mock.run_server_in_thread(require_nonce=True, user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@asynccontextmanager
async def serving(session: Session, issuer: str, **more: str) -> AsyncIterator[tuple[str, Upstream]]:
    """Serve the API of an organisation whose people sign in at this provider; yield its address and an upstream."""
    given = {"oidc_issuer": issuer, "oidc_client_id": "ledger", "oidc_client_secret": "a secret"}
    given |= {"oidc_auditors": "ledger-audit", "oidc_operators": "ledger-operate", "data_dir": str(session.data_dir)}
    session.settings = load_settings(given | more, {})
    async with upstream_of(session) as upstream:
        await set_up_organisation(upstream)
        async with running(session, ["projections", "dashboard"], where=ListenAddress(port=0)) as services:
            (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
            async with httpx.AsyncClient(base_url=dashboard.address, timeout=20) as client:
                await eventually(partial(client.get, "/readyz"), lambda answer: answer.status_code == 200)
            yield dashboard.address.replace("127.0.0.1", "localhost"), upstream


async def at_provider(browser: httpx.AsyncClient, person: str) -> tuple[Document, str]:
    """Sign in at the provider; return the query of the request to it, and the address that it leads back to."""
    begun = await browser.get("/openid/sign-in")
    assert begun.status_code == 303, begun.text
    asked = {name: value[0] for name, value in parse_qs(urlsplit(begun.headers["Location"]).query).items()}
    done = await browser.post(begun.headers["Location"], data={"sub": person})
    assert done.status_code in {302, 303}, done.text
    return asked, done.headers["Location"]


async def sign_in(browser: httpx.AsyncClient, person: str) -> httpx.Response:
    return await browser.get((await at_provider(browser, person))[1])


async def me(browser: httpx.AsyncClient) -> tuple[str, str, str | None]:
    found = (await browser.get("/api/v1/me")).json()
    return found["name"], found["role"], found["person_id"]


async def test_the_log_gives_role_and_people_groups_only_auditor_and_operator(session: Session, issuer: str) -> None:
    async with serving(session, issuer) as (address, upstream):
        roles = {}
        async with httpx.AsyncClient(base_url=address, timeout=20) as browser:
            for person in PEOPLE:
                browser.cookies.clear()
                answer = await sign_in(browser, person)
                if answer.status_code == 303:
                    assert answer.headers["Location"] == "/"
                    roles[person] = await me(browser)
                else:
                    assert (answer.status_code, COOKIE in browser.cookies) == (403, False)
                    assert "ask" in re.sub("<[^>]*>", "", answer.text)
        assert roles == {
            "A-1": ("A-1", "agent", "A-1"),
            "M-1": ("M-1", "manager", "M-1"),
            "Z-9": ("Z-9", "auditor", None),
            "X-1": ("X-1", "operator", None),
        }
        assert ("M-1", "sign-in") in await accesses(session)
        async with httpx.AsyncClient(base_url=address, timeout=20) as browser:
            await sign_in(browser, "X-1")
            people = {one["name"] for one in (await browser.get("/api/v1/sessions")).json()["items"]}
            assert people == set(roles)
            for name in ("A-1", "X-1"):
                gone = event(f"left-{name}", "employee.left", time="2026-02-01T00:00:00Z", employee_id=name)
                await upstream.record(gone)
            await eventually(partial(browser.get, "/api/v1/me"), lambda answer: answer.status_code == 401)
            assert (await sign_in(browser, "X-1")).status_code == 403
            assert (await sign_in(browser, "A-1")).status_code == 403


async def test_a_sign_in_that_another_browser_began_is_refused(session: Session, issuer: str) -> None:
    async with (
        serving(session, issuer) as (address, _),
        httpx.AsyncClient(base_url=address, timeout=20) as browser,
        httpx.AsyncClient(base_url=address, timeout=20) as victim,
    ):
        asked, back = await at_provider(browser, "A-1")
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert {"openid"} <= set(asked["scope"].split())
        assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
        await at_provider(victim, "A-1")
        for refused in (back, back.replace("code=", "error=access_denied&x="), "/openid/callback"):
            answer = await victim.get(refused)
            assert (answer.status_code, "begin again" in answer.text) == (403, True)
            assert COOKIE not in victim.cookies
        flow = browser.cookies["resolution-ledger-openid"]
        state, _, verifier = flow.split(".")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        assert asked["code_challenge"] == challenge
        other_flow = {"Cookie": f"resolution-ledger-openid={state}.{'n' * 43}.{verifier}"}
        async with httpx.AsyncClient(base_url=address, headers=other_flow, timeout=20) as third:
            wrong_nonce = await third.get(back)
        assert (wrong_nonce.status_code, "proves no person" in wrong_nonce.text) == (403, True)


async def test_a_claim_names_an_employee_by_a_file_and_a_sign_out_ends_the_session(
    session: Session, issuer: str
) -> None:
    people = session.data_dir / "people.toml"
    people.write_text('"kim@example.com" = "M-2"\n')
    async with (
        serving(session, issuer, oidc_employees=str(people), oidc_operators="none") as (address, _),
        httpx.AsyncClient(base_url=address, timeout=20) as browser,
    ):
        assert (await browser.get("/api/v1/session")).json() == {
            "known": False,
            "openid": True,
            "caller": None,
        }
        assert (await sign_in(browser, "A-1")).status_code == 403  # not in the file
        assert (await sign_in(browser, "kim@example.com")).status_code == 303
        assert await me(browser) == ("M-2", "agent", "M-2")
        kept = browser.cookies[COOKIE]
        assert (await browser.get("/openid/sign-out")).status_code == 303
        assert COOKIE not in browser.cookies
        assert (await browser.get("/api/v1/me", headers={"Cookie": f"{COOKIE}={kept}"})).status_code == 401


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `apt-get install chromium`")
async def test_a_person_signs_in_and_out_on_the_page(session: Session, issuer: str) -> None:
    """In a browser, which follows the redirects between the two sites, and sends cookies as it sees fit."""
    build_page(ROOT)
    async with serving(session, issuer) as (address, _), async_playwright() as player:
        browser = await player.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = await browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for person, title in (("M-1", "Today"), ("Z-9", "Cases")):
            await page.goto(address)
            await page.get_by_role("link", name="Sign in with your company account").click()
            assert page.url.startswith(issuer)
            await page.get_by_label("Subject").fill(person)
            await page.get_by_role("button", name="Authorize", exact=True).click()
            await expect(page.locator("#main h1")).to_have_text(title, timeout=15_000)
            assert page.url.startswith(address)
            await expect(page.locator("#side .foot")).to_contain_text(person)
            cookies = {one["name"]: one for one in await page.context.cookies(address)}
            assert (cookies[COOKIE]["httpOnly"], cookies[COOKIE]["sameSite"]) == (True, "Strict")
            await page.get_by_role("button", name="Sign out").click()
            await page.wait_for_url(f"{issuer}/**")  # it ends the session there, too
            await page.goto(address)
            await expect(page.locator("#sign-in")).to_be_visible()
        await page.get_by_role("link", name="Sign in with your company account").click()
        await page.get_by_role("button", name="Deny access").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        await page.get_by_role("link", name="Back to the sign-in").click()
        await expect(page.locator("#sign-in")).to_be_visible()
        assert complaints == []
        await browser.close()


KEY, OTHER_KEY = RSAKey.generate_key(2048), RSAKey.generate_key(2048)
CLAIMS = {"iss": "https://login.example.com", "aud": "ledger", "sub": "A-1", "nonce": "n", "iat": 0, "exp": 2**33}


def id_token(key: RSAKey = KEY, **claims: object) -> dict[str, str]:
    """Return an answer with an ID token; a claim that is None is left out."""
    fields = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return {"id_token": jwt.encode({"alg": "RS256"}, fields, key)}


def forged(algorithm: str, secret: bytes) -> dict[str, str]:
    """Return an ID token without a signature, or with the public key as the secret of one."""

    def encoded(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    text = b".".join(encoded(json.dumps(one).encode()) for one in ({"alg": algorithm}, CLAIMS))
    signature = hmac.digest(secret, text, "sha256") if secret else b""
    return {"id_token": (text + b"." + encoded(signature)).decode()}


def test_an_id_token_is_believed_only_with_all_its_proofs() -> None:
    provider = OpenIdProvider(load_settings({"oidc_issuer": CLAIMS["iss"], "oidc_client_id": "ledger"}, {}))
    keys = KeySet([KEY]).as_dict(private=False)
    assert provider.verified_claims(id_token(), keys, "n")["sub"] == "A-1"
    for wrong in (
        id_token(OTHER_KEY),
        forged("HS256", KEY.as_pem(private=False)),
        forged("none", b""),
        id_token(iss="https://evil.example.com"),
        id_token(aud="another"),
        id_token(aud=["ledger", "another"]),
        id_token(nonce="m"),
        id_token(nonce=None),
        id_token(exp=1),
        id_token(exp=None),
    ):
        with pytest.raises((JoseError, ValueError)):
            provider.verified_claims(wrong, keys, "n")


def test_settings_of_a_provider_come_together() -> None:
    with pytest.raises(SettingsError, match="oidc_client_id"):
        load_settings({"oidc_issuer": "https://login.example.com"}, {})
    with pytest.raises(SettingsError, match="oidc_issuer has the form"):
        load_settings({"oidc_issuer": "http://login.example.com", "oidc_client_id": "x"}, {})
