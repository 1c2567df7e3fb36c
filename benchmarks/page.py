"""The page in a Chromium over a long history: seconds until the pages of five readers show all their data.

    python -m benchmarks.page [--events 20000] [--rounds 5] [--folder FOLDER] [--people agent,lead]

The ledger is that of the reports: two years of an organisation; a fifth of the events are decisions. A director leads
24 team leads, who lead 500 agents; twenty escalations wait for the first lead. Each round opens a new browser with a
session, then each page by its link. Before it an event is recorded, so that totals are computed again; the slow
reports may be a minute old, as for every reader (docs/understand/views-and-reports.md).
Figures are medians; beside them is the slowest request. With ``--folder`` the ledger stays in that folder, and later
runs use it again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import httpx
from playwright.async_api import async_playwright, expect
from rich.console import Console
from rich.table import Table

from app.runtime.roles import running
from app.runtime.session import Session
from benchmarks.reports import AGENTS, BEGAN, DAYS, TEAMS, fill
from config import topology
from config.settings import load_settings
from consumers.decisions.budget_repository import subject_of
from consumers.decisions.unit_of_work import stored_form
from dashboard.auth.tokens import Role, Tokens
from dashboard.listen_address import ListenAddress
from dashboard.service import DashboardService
from domain.events.decisions import EscalationRequested
from domain.money import Money
from domain.serialization import encode
from hatch_build import build_page
from ledger.store.cloudevents import encode_event
from ledger.store.log import Draft
from projections.engine.projection import HasDayBlocks
from projections.engine.storage import driver, reading
from projections.registry import MODELS
from tests.support.browser import CHROMIUM, CHROMIUM_FLAGS
from tests.support.environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from playwright.async_api import Browser, Page, Request, StorageState

FIGURES, FIRST = "first figures", "first view"
WAITING = 20
"""The escalations that wait for the first lead."""
_MOST = 600_000
"""The most milliseconds that a page may take."""
_LAST = BEGAN + timedelta(days=DAYS)
_QUIET_SECONDS = 5.0


class Reader(NamedTuple):
    """A person, the pages that they open by their links, and the place of the first figures on their first page."""

    name: str
    role: Role
    person_id: str | None
    pages: tuple[str, ...]
    figures: str = "#main .figures"


_RECORDS = ("Actions", "Escalations", "Budgets")
_INSIGHT = ("Overview", "Authority gap", "Customer value", "Recognition")
READERS = (
    Reader("agent", "agent", "A-0000", ("My authority", *_RECORDS, "Audit trail", "Health")),
    Reader("lead", "manager", "L-00", ("Today", *_INSIGHT, *_RECORDS, "Policy", "Cases")),
    Reader("director", "manager", "D-1", ("Today", *_INSIGHT, *_RECORDS, "Policy", "Cases")),
    Reader(
        "auditor", "auditor", None, ("Cases", *_INSIGHT, *_RECORDS, "Audit trail", "Accesses", "Health"), "#main h2"
    ),
    Reader("operator", "operator", None, ("Overview",)),
)


class Times:
    """The seconds until each page showed all its data, and the seconds and the address of its slowest request."""

    def __init__(self) -> None:
        self.pages = defaultdict[str, list[float]](list)
        self.requests = defaultdict[str, list[int]](list)
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
        self.requests[name].append(0)
        return time.perf_counter()

    def note(self, request: Request) -> None:
        """Note the time of a request that has ended."""
        took, path = request.timing["responseEnd"] / 1000, request.url.partition("/api/v1/")[2]
        if path and path != "stream":
            self.requests[self._page][-1] += 1
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


class Ledger(NamedTuple):
    """A session, the dashboard that serves its page, and a client with the operator's token."""

    session: Session
    dashboard: DashboardService
    client: httpx.AsyncClient

    async def until_read(self) -> None:
        """Wait until each view has read the log."""
        end = await self.session.log.last_position()
        while True:
            views = (await self.client.get("/api/v1/projections")).json().get("items", ())
            if len(views) == len(MODELS) and all(one["position"] >= end for one in views):
                return
            await asyncio.sleep(0.05)

    async def until_settled(self) -> None:
        """Wait until no more day blocks are made."""
        before = -1
        while (now := self._blocks()) != before:
            before = now
            await asyncio.sleep(_QUIET_SECONDS)

    def _blocks(self) -> int:
        """Return the number of day blocks of all views."""
        found = 0
        for model in (make() for make in MODELS.values()):
            generation = self.session.views.live_generation(model)
            if isinstance(model, HasDayBlocks) and generation is not None:
                tables = [
                    name for name in model.metadata.tables if name.endswith("_days") and not name.startswith("words")
                ]
                with reading(self.session.views, model, generation) as connection:
                    for name in tables:
                        row = driver(connection).execute(f"SELECT count(*) FROM {name}").fetchone()
                        found += row[0] if row else 0
        return found

    async def news(self, number: int) -> None:
        """Record one more event, and wait until each view has read it."""
        name = f"news-{time.time_ns()}-{number}"
        opened = {"interaction_id": name, "channel": "phone", "reason": "late", "agent_id": "A-0000", "team_id": "T-00"}
        await self.session.log.append([_fact(name, "interaction.opened", _LAST, **opened)])
        await self.until_read()


async def measure(ledger: Ledger, rounds: int, readers: list[Reader]) -> dict[str, Times]:
    """Return the times of each reader; a round before the first warms the server, as in a dashboard in use."""
    found: dict[str, Times] = {}
    tokens = Tokens(ledger.session.client)
    async with async_playwright() as player:
        browser = await player.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        for reader in readers:
            name = f"{reader.name}-{time.time_ns()}"
            token = await tokens.make(name, reader.role, reader.person_id, None)
            state = await signed_in(browser, ledger.dashboard.address, token)
            for number in range(rounds + 1):
                await ledger.news(number)
                times = Times() if number < 2 else found[reader.name]
                found[reader.name] = times
                await visit(browser, state, ledger.dashboard.address, reader, times)
            await tokens.revoke(name)
        await browser.close()
    return found


async def visit(browser: Browser, state: StorageState, address: str, reader: Reader, times: Times) -> None:
    """Open a new browser, then each page by its link and the first one again; note the times."""
    context = await browser.new_context(storage_state=state)
    page = await context.new_page()
    page.on("requestfinished", times.note)
    begun = times.begin(FIRST)
    await page.goto(address)
    await page.locator(reader.figures).first.wait_for(timeout=_MOST)
    times.pages[FIGURES].append(time.perf_counter() - begun)
    await times.take(page, FIRST, reader.pages[0], begun)
    for title in (*reader.pages[1:], reader.pages[0]):
        begun = times.begin(title)
        await page.locator("nav a", has_text=title).first.click()
        await times.take(page, title, title, begun)
    await context.close()


def people() -> Iterator[Draft]:
    """Yield facts that make a director, the leads of all teams and their agents known, and escalations that wait."""
    yield _fact("d-1", "employee.joined", BEGAN, employee_id="D-1", role="director", team_ids=())
    for team in range(TEAMS):
        lead = {"employee_id": f"L-{team:02d}", "role": "lead", "team_ids": (f"T-{team:02d}",), "manager_id": "D-1"}
        yield _fact(f"l-{team}", "employee.joined", BEGAN, **lead)
    for at in range(AGENTS):
        agent = {"employee_id": f"A-{at:04d}", "role": "agent", "team_ids": (f"T-{at % TEAMS:02d}",)}
        yield _fact(f"m-{at}", "employee.changed", BEGAN, **agent, manager_id=f"L-{at % TEAMS:02d}")
    for number in range(WAITING):
        agent_id = f"A-{number % (AGENTS // TEAMS) * TEAMS:04d}"
        moment = _LAST - timedelta(hours=number)
        asked = EscalationRequested(
            source="bench",
            request_id=f"w-{number}",
            request_sha256="00" * 32,
            seen_position=0,
            escalation_id=f"waits-{number}",
            action_id=f"act-waits-{number}",
            agent_id=agent_id,
            role="agent",
            kind="refund",
            basis="goodwill",
            amount=Money(4_000 + number, "GBP"),
            reason="late",
            reasons=(),
            payer="team",
            to=("L-00",),
            due=moment + timedelta(hours=24),
            policy_version=1,
            budget=f"agent:{agent_id}",
            period="2025-12",
            currency="GBP",
            team_id="T-00",
            customer_id=f"C-{number:06d}",
            manager_id="L-00",
        )
        yield Draft(subject_of(f"agent:{agent_id}", "GBP", "2025-12"), stored_form(asked, moment))


def _fact(name: str, fact: str, moment: datetime, **data: Any) -> Draft:
    stored = encode_event("page", name, f"resolution.{fact}.v1", moment.astimezone(UTC), encode(data))
    return Draft(f"{topology.FACT_SUBJECT}.page", stored)


async def fill_once(session: Session, folder: Path, events: int) -> None:
    """Fill a ledger unless its folder says that it was filled."""
    mark = folder / "filled"
    if not mark.exists():
        await fill(session, events)
        await session.log.append([*people()])
        mark.write_text(f"{events}\n")
    elif int(mark.read_text()) != events:
        sys.exit(f"{folder} was filled with --events {mark.read_text().strip()}")


async def run(events: int, rounds: int, kept: Path | None, readers: list[Reader]) -> dict[str, Times]:
    """Fill a ledger, serve its page once the views have read it, and measure."""
    build_page(ROOT)
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept or Path(temporary)
        async with Session(load_settings({"data_dir": str(folder)}, {})) as session:
            begun = time.perf_counter()
            await fill_once(session, folder, events)
            filled = time.perf_counter()
            async with running(session, ["projections", "dashboard"], where=ListenAddress(port=0)) as services:
                (dashboard,) = [one for one in services if isinstance(one, DashboardService)]
                headers = {"Authorization": f"Bearer {dashboard.token}"}
                async with httpx.AsyncClient(base_url=dashboard.address, headers=headers, timeout=60) as client:
                    ledger = Ledger(session, dashboard, client)
                    await ledger.until_read()
                    read, end = time.perf_counter(), await session.log.last_position()
                    sys.stdout.write(
                        f"{end:,} events recorded in {filled - begun:.0f} s, read in {read - filled:.0f} s\n"
                    )
                    await ledger.until_settled()
                    return await measure(ledger, rounds, readers)


def shown(name: str, times: Times) -> Table:
    """Return the times of a reader as a table."""
    table = Table("page", "median s", "fastest s", "slowest s", "requests", "request s", "slowest request", title=name)
    for page, took in times.pages.items():
        longest, path = times.slowest.get(page, (0.0, ""))
        requests = times.requests.get(page)
        cells = [f"{one:.2f}" for one in (median(took), min(took), max(took))]
        table.add_row(page, *cells, f"{median(requests):.0f}" if requests else "", f"{longest:.2f}", path[:60])
    return table


def main() -> None:
    """Print the times of each page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the ledger here, and use it again")
    parser.add_argument("--people", default=",".join(one.name for one in READERS), help="the readers to measure")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no chromium here: `apt-get install chromium`")
    names = options.people.split(",")
    readers = [one for one in READERS if one.name in names]
    for name, times in asyncio.run(run(options.events, options.rounds, options.folder, readers)).items():
        Console().print(shown(name, times))


if __name__ == "__main__":
    main()
