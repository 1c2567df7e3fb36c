"""The page in a browser: signing in, opening pages, and reading tables and figures."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
from playwright.async_api import ViewportSize, async_playwright, expect

from app.runtime.roles import running
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from hatch_build import build_page
from tests.support.browser import CHROMIUM, CHROMIUM_FLAGS
from tests.support.environment import ROOT
from tests.support.http_api import read_current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page, Response

    from app.runtime.session import Session
    from tests.support.upstreams import Upstream

PAGES = {
    "overview": "Overview",
    "gap": "Authority gap",
    "value": "Customer value",
    "recognition": "Recognition",
    "actions": "Actions",
    "escalations": "Escalations",
    "budgets": "Budgets",
    "trail": "Audit trail",
    "policy": "Policy",
    "accesses": "Accesses",
    "seal": "Seal",
    "cases": "Cases",
    "integrations": "Integrations",
    "health": "Health",
    "glossary": "Glossary",
    "check": "Check an action",
    "sessions": "Sessions",
    "components": "Components",
}
"""The titles of an operator's pages by name; those of other roles are the first pages."""
FIRST_PAGES = {"manager": "today", "agent": "me"}
TITLES = PAGES | {"today": "Today", "me": "My authority"}
WIDE: ViewportSize = {"width": 1200, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}


class Opened:
    """A page that is logged in, and everything it asked for and complained of."""

    def __init__(
        self, upstream: Upstream, client: httpx.AsyncClient, page: Page, address: str, folder: Session
    ) -> None:
        self.upstream, self.client, self.page, self.address, self.session = upstream, client, page, address, folder
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.answers: list[Response] = []
        page.on("response", self.keep)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def keep(self, answer: Response) -> None:
        self.answers.append(answer)

    async def go(self, place: str, title: str | None = None) -> None:
        """Open a page by its address, and wait until its data is there."""
        await self.page.evaluate("(place) => { location.hash = `#/${place}`; }", place)
        await expect(self.page.locator("#main h1")).to_have_text(
            title or TITLES[place.partition("?")[0]], timeout=15_000
        )
        await expect(self.page.locator("#main [aria-busy]")).to_have_count(0, timeout=15_000)

    async def sign_in_as(self, name: str, role: str, person: str | None = None) -> None:
        """Sign in as another person."""
        token = await Tokens(self.session.client).make(name, role, person, None)  # type: ignore[arg-type] # one of the roles
        await self.page.click("#sign-out")
        await self.page.fill("#token", token)
        self.complaints.clear()  # requests that the end of the session refused
        await self.page.keyboard.press("Enter")
        await expect(self.page.locator("#main h1")).to_be_visible(timeout=15_000)


@asynccontextmanager
async def browsing(upstream: Upstream, locale: str = "en-GB") -> AsyncIterator[Opened]:
    """Serve the page of an upstream's ledger, and open it as an operator, once its views have read the log."""
    build_page(ROOT)
    session = upstream.session
    async with (
        running(session, ["projections", "seal", "dashboard"], where=ListenAddress(port=0)) as services,
        async_playwright() as player,
    ):
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        browser = await player.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = await browser.new_page(viewport=WIDE, locale=locale)
        headers = {"Authorization": f"Bearer {dashboard.token}"}
        async with httpx.AsyncClient(base_url=dashboard.address, headers=headers, timeout=20) as client:
            for name in ("actions", "gap", "quality", "recognition", "loyalty", "trail", "flags"):
                await read_current(client, name)
            found = Opened(upstream, client, page, dashboard.address, session)
            await page.goto(dashboard.address)
            await page.fill("#token", dashboard.token)
            await page.keyboard.press("Enter")
            await expect(page.locator("#main h1")).to_have_text("Overview", timeout=15_000)
            yield found
            await browser.close()


_SHOW_ALL = """async table => {
    const more = () => table.closest(".scroll").parentElement.querySelector(":scope > button.plain");
    while (more()) { more().click(); await new Promise(done => setTimeout(done)); }
}"""


async def cells(page: Page, caption: str, *, whole: bool = False) -> list[list[str]]:
    """Return the shown cells of the table with this caption; with ``whole``, show all of its rows first."""
    table = page.locator("table", has=page.locator("caption", has_text=caption))
    if whole:
        await table.evaluate(_SHOW_ALL)
    rows: list[list[str]] = await table.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )
    return rows


def column(rows: list[list[str]], at: int) -> list[str]:
    """Return the cells of one column."""
    return [row[at] for row in rows]


async def figure(page: Page, label: str) -> str:
    """Return the value of a figure."""
    shown = page.locator(".figures > div", has=page.locator("dt", has_text=re.compile(f"^{label}"))).locator(".value")
    return (await shown.first.text_content() or "").strip()
