"""The page in a Chromium over a long history: seconds until the first page, and each other page, shows all its data.

    python -m benchmarks.page [--events 20000] [--rounds 5] [--folder FOLDER]

The ledger is that of the reports: two years of an organisation; a fifth of the events are decisions. Each round
opens a new browser with a session, then each page by its link. Figures are medians; beside them is the slowest request.
With ``--folder`` the ledger stays in that folder, and later runs use it again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import httpx
from playwright.async_api import async_playwright, expect
from rich.console import Console
from rich.table import Table

from app.runtime.roles import running
from app.runtime.session import Session
from benchmarks.reports import fill
from config.settings import load_settings
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from hatch_build import build_page
from projections.registry import MODELS
from tests.support.browser import CHROMIUM, CHROMIUM_FLAGS
from tests.support.environment import ROOT

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Request, StorageState

FIGURES, FIRST = "first figures", "first view"
PAGES = ("Overview", "Authority gap", "Customer value", "Actions", "Escalations", "Budgets", "Audit trail", "Health")
_MOST = 600_000
"""The most milliseconds that a page may take."""


class Times:
    """The seconds until each page showed all its data, and the seconds and the address of its slowest request."""

    def __init__(self) -> None:
        self.pages = defaultdict[str, list[float]](list)
        self.slowest: dict[str, tuple[float, str]] = {}
        self._page = FIRST

    async def take(self, page: Page, name: str, title: str, begun: float) -> None:
        """Wait until a page shows all its data, and note the seconds since it was asked for."""
        await expect(page.locator("#main h1")).to_have_text(title, timeout=_MOST)
        await expect(page.locator("#main [aria-busy]")).to_have_count(0, timeout=_MOST)
        self.pages[name].append(time.perf_counter() - begun)

    def begin(self, name: str) -> float:
        """Return the time at which a page is asked for."""
        self._page = name
        return time.perf_counter()

    def note(self, request: Request) -> None:
        """Note the time of a request that has ended."""
        took, path = request.timing["responseEnd"] / 1000, request.url.partition("/api/v1/")[2]
        if path and path != "stream":
            self.slowest[self._page] = max(self.slowest.get(self._page, (0.0, "")), (took, path))


async def signed_in(browser: Browser, address: str, token: str) -> StorageState:
    """Return the state of a browser with a session."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(address)
    await page.fill("#token", token)
    await page.keyboard.press("Enter")
    await expect(page.locator("#main h1")).to_be_visible(timeout=_MOST)
    state = await context.storage_state()
    await context.close()
    return state


async def measure(dashboard: DashboardService, rounds: int) -> Times:
    """Return the times of some rounds; one before them warms the server, as in a dashboard in use."""
    times = Times()
    async with async_playwright() as player:
        browser = await player.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        state = await signed_in(browser, dashboard.address, dashboard.token)
        for number in range(rounds + 1):
            context = await browser.new_context(storage_state=state)
            page = await context.new_page()
            page.on("requestfinished", times.note)
            begun = times.begin(FIRST)
            await page.goto(dashboard.address)
            await page.locator("#main .figures").wait_for(timeout=_MOST)
            times.pages[FIGURES].append(time.perf_counter() - begun)
            await times.take(page, FIRST, "Overview", begun)
            for title in PAGES[1:]:
                begun = times.begin(title)
                await page.get_by_role("link", name=title, exact=True).click()
                await times.take(page, title, title, begun)
            begun = times.begin("Overview")
            await page.get_by_role("link", name="Overview", exact=True).click()
            await times.take(page, "Overview", "Overview", begun)
            await context.close()
            if number == 0:
                times = Times()
        await browser.close()
    return times


async def until_read(dashboard: DashboardService, end: int) -> None:
    """Wait until each view has read the log."""
    headers = {"Authorization": f"Bearer {dashboard.token}"}
    async with httpx.AsyncClient(base_url=dashboard.address, headers=headers, timeout=60) as client:
        while True:
            views = (await client.get("/api/v1/projections")).json().get("items", ())
            if len(views) == len(MODELS) and all(one["position"] >= end for one in views):
                return
            await asyncio.sleep(0.5)


async def run(events: int, rounds: int, kept: Path | None) -> Times:
    """Fill a ledger unless it is kept, serve its page once the views have read it, and measure."""
    build_page(ROOT)
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        async with Session(load_settings({"data_dir": str(folder)}, {})) as session:
            begun = time.perf_counter()
            filled_for = folder / "filled"
            if not filled_for.exists():
                await fill(session, events)
                filled_for.write_text(f"{events}\n")
            elif int(filled_for.read_text()) != events:
                sys.exit(f"{folder} was filled with --events {filled_for.read_text().strip()}")
            filled = time.perf_counter()
            async with running(session, ["projections", "dashboard"], where=ListenAddress(port=0)) as services:
                (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
                end = await session.log.last_position()
                await until_read(dashboard, end)
                read = time.perf_counter()
                sys.stdout.write(f"{end:,} events recorded in {filled - begun:.0f} s, read in {read - filled:.0f} s\n")
                return await measure(dashboard, rounds)


def main() -> None:
    """Print the times of each page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the ledger here, and use it again")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no chromium here: `apt-get install chromium`")
    times = asyncio.run(run(options.events, options.rounds, options.folder))
    shown = Table("page", "median s", "fastest s", "slowest s", "request s", "slowest request")
    for name, took in times.pages.items():
        longest, path = times.slowest.get(name, (0.0, ""))
        cells = [f"{one:.2f}" for one in (median(took), min(took), max(took), longest)]
        shown.add_row(name, *cells, path[:60])
    Console().print(shown)


if __name__ == "__main__":
    main()
