"""The program behind `make picture`: it writes the first pages of four people, with the demo's data. Needs a Chromium."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
from playwright.async_api import Browser, ViewportSize, async_playwright, expect

from app.demo.run import run_demo
from app.runtime.roles import running
from app.runtime.session import Session
from config.settings import load_settings
from dashboard.auth.tokens import Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from hatch_build import build_page
from tests.support.browser import CHROMIUM, CHROMIUM_FLAGS
from tests.support.builders import event, gbp
from tests.support.environment import ROOT
from tests.support.http_api import read_current
from tests.support.upstreams import upstream_of

if TYPE_CHECKING:
    from config.settings import Settings
    from dashboard.auth.tokens import Role
    from tests.support.documents import Document
    from tests.support.upstreams import Upstream

FOLDER = ROOT / "docs" / "pictures"
MORNING = "2026-04-05T08:10:00Z"
"""The browser's clock: the morning after the last day of the demo, so that ages are those of a reader of that day."""


class Reader(NamedTuple):
    """A person of the demo, and the heading that stands on their first page once it is complete."""

    name: str
    role: Role
    person_id: str | None
    heading: str


READERS = (
    Reader("agent", "agent", "E-0018", "My actions"),
    Reader("lead", "manager", "E-0010", "Unused authority"),
    Reader("director", "manager", "H-1", "Unused authority"),
    Reader("auditor", "auditor", None, "Flags"),
)
ASKED = (
    ("E-0018", "quality", "refund", "42.00", "2026-04-05T07:05:00Z"),
    ("E-0014", "waited", "gift", "32.00", "2026-04-05T07:24:00Z"),
    ("E-0016", "billing", "refund", "140.00", "2026-04-05T07:51:00Z"),
    ("E-0018", "rude", "gift", "30.00", "2026-04-05T08:02:00Z"),
)
"""Requests beyond authority in the morning: agent, reason, kind, amount, time. The demo's own have been answered."""


async def ask(upstream: Upstream, client: httpx.AsyncClient) -> None:
    """File escalations, each about the newest interaction of its agent for that reason, and report an obstacle."""
    for agent, reason, kind, amount, time in ASKED:
        events: list[Document] = (await read_current(client, "trail", agent=agent, order="desc", limit=100))["items"]
        about = next(one for one in events if re.fullmatch(f"interaction opened: .*: {reason}", one["what"]))
        answer = await upstream.ask(
            "action",
            request_id=f"{agent}-{reason}",
            agent_id=agent,
            kind=kind,
            amount=gbp(amount),
            customer_id=about["whom"],
            interaction_id=about["interaction_id"],
            reason=reason,
            time=time,
            escalate=True,
        )
        assert answer["outcome"] == "escalate", answer
    text = "I cannot see on which day a parcel comes, so I give a credit each time."
    said = event("morning", "obstacle.reported", time=MORNING, obstacle_id="O-1", employee_id="E-0014", text=text)
    await upstream.record(said)


async def take(settings: Settings, folder: Path) -> list[Path]:
    """Serve the page of this ledger by event times, so that nothing expires, and take the pictures."""
    build_page(ROOT)
    async with (
        Session(settings) as session,
        upstream_of(session, "intake", "decisions", history=True) as upstream,
        running(session, ["projections", "seal", "dashboard"], where=ListenAddress(port=0)) as services,
        async_playwright() as player,
    ):
        (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
        headers = {"Authorization": f"Bearer {dashboard.token}"}
        async with httpx.AsyncClient(base_url=dashboard.address, headers=headers, timeout=60) as client:
            await ask(upstream, client)
            for name in ("escalations", "summary", "gap", "quality", "balances", "obstacles", "flags"):
                await read_current(client, name)
        browser = await player.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        tokens = Tokens(session.client)
        return [
            await picture(
                browser, dashboard.address, await tokens.make(one.name, one.role, one.person_id, None), one, folder
            )
            for one in READERS
        ]


async def picture(browser: Browser, address: str, token: str, reader: Reader, folder: Path) -> Path:
    """Sign in, and take a picture of the first page, once all of it is shown."""
    size: ViewportSize = {"width": 1200, "height": 900}
    page = await browser.new_page(viewport=size, locale="en-GB", timezone_id="Europe/London", color_scheme="light")
    await page.clock.set_fixed_time(MORNING)
    await page.goto(address)
    await page.fill("#token", token)
    await page.keyboard.press("Enter")
    await page.locator("#main h2", has_text=reader.heading).wait_for(timeout=60_000)
    await expect(page.locator("#main [aria-busy]")).to_have_count(0, timeout=60_000)
    path = folder / f"{reader.name}.webp"
    chromium = await page.context.new_cdp_session(page)
    taken = await chromium.send("Page.captureScreenshot", {"format": "webp", "quality": 100})  # without loss
    path.write_bytes(b64decode(taken["data"]))
    await page.close()
    return path


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("no chromium here: `apt-get install chromium`")
    with tempfile.TemporaryDirectory() as temporary:
        settings = load_settings({"data_dir": temporary}, {})
        asyncio.run(run_demo(settings, seed=8, days=90, quiet=False))
        for path in asyncio.run(take(settings, FOLDER)):
            sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB\n")
