"""The page over a history in which each list is longer than a page of the API: totals, paging, sorting and figures."""

from __future__ import annotations

import csv
import re
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import expect

from app.runtime.session import Session
from config.settings import load_settings
from dashboard.auth.tokens import Tokens
from projections.date_ranges import read_range, zone_named
from tests.support.browser import CHROMIUM
from tests.support.documents import Document
from tests.support.http_api import read_current
from tests.support.long_history import MANY, LongHistory, append_history
from tests.support.loyalty_comparisons import value_differences
from tests.support.overview_oracle import (
    assert_overview_is_the_oracles,
    oracle_of,
    row_of,
    shown_interval,
    shown_money,
    shown_share,
)
from tests.support.range_comparisons import OPENED, outside
from tests.support.report_oracle import HistoryLedger
from tests.support.upstreams import Upstream
from tests.support.web_page import Opened, browsing, cells, column

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `apt-get install chromium`"),
]


class LongPage(NamedTuple):
    """The page of an operator, and the events of its ledger before the first sign-in."""

    one: Opened
    ledger: HistoryLedger

    def of(self, *names: str) -> list[Document]:
        """Return the events of these types, the newest first."""
        types = {f"resolution.{name}.v1" for name in names}
        return [event for event in reversed(self.ledger.events) if event["type"] in types]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def long(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LongPage]:
    """Open the page of one ledger for all tests of this module."""
    events = LongHistory().events()
    settings = load_settings({"data_dir": str(tmp_path_factory.mktemp("long") / "data")}, {})
    async with Session(settings) as session:
        await append_history(session, events)
        async with browsing(Upstream(session, session.client)) as one:
            yield LongPage(one, HistoryLedger(events))


async def links(one: Opened, caption: str, text: str) -> list[str]:
    """Return the part of the addresses behind the links of a table that follows ``text``."""
    table = one.page.locator("table", has=one.page.locator("caption", has_text=caption))
    found: list[str] = await table.locator("tbody a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    return [href.partition(text)[2] for href in found if text in href]


async def test_each_list_has_every_row_once_and_its_total(long: LongPage) -> None:
    """Lists of more rows than a page of the API: in the order of the log, none repeated and none lost."""
    one, page = long.one, long.one.page
    done = long.of("action.taken", "action.reported")
    assert len(done) > MANY
    await one.go("actions")
    await expect(page.locator("#main h2").first).to_have_text(f"{len(done):,} actions")
    await cells(page, "Actions", whole=True)
    ids = await links(one, "Actions", "trail?action=")
    assert [name for name in ids if name.startswith("long-")] == [f"long-{n}" for n in reversed(range(MANY))]
    assert len(set(ids)) == len(ids) == len(done)
    asked = [event["data"]["amount"] for event in long.of("escalation.requested")]
    await one.go("escalations")
    await expect(page.locator("#main h2").first).to_have_text(f"{len(asked):,} escalations")
    for of in (asked, asked[::-1]):  # by the time of the request: the oldest are on the second page of the API
        shown = column(await cells(page, "Escalations"), 4)
        assert shown == [shown_money(round(float(one["amount"]) * 100), one["currency"]) for one in of[:20]]
        for _ in range(2):
            await page.locator("thead button", has_text="Requested").click()
    opened = sorted((event["data"]["holder"], event["data"]["period"]) for event in long.of("budget.opened"))
    await one.go("budgets")
    await expect(page.locator("#main h2").first).to_have_text(f"{len(opened):,} budgets")
    assert sorted(column(await cells(page, "Budgets"), 0)) == [holder for holder, _ in opened[:20]]
    await page.locator("thead button", has_text="Holder").click()
    assert column(await cells(page, "Budgets"), 0) == [holder for holder, _ in opened[::-1][:20]]
    await one.go("trail")
    total = len(long.ledger.events)
    text = await page.locator("#main h2").first.text_content()
    assert int(re.sub(r"\D", "", text or "")) >= total  # and the sign-in
    await expect(page.locator("#main .note")).to_have_text("The table has 500 of them; a file has all.")


async def test_accesses_and_flags_are_counted_to_their_end(long: LongPage) -> None:
    one, page = long.one, long.one.page
    for event in long.of("access.recorded")[:1]:
        await one.go(f"accesses?to={event['time'][:10]}")  # without those of this test
    await expect(page.locator("#main h2").first).to_have_text(f"{MANY:,} accesses")
    recorded = [
        [event["data"]["who"], event["data"]["what"], "", "http", str(event["position"])]
        for event in long.of("access.recorded")
    ]
    for of in (recorded, recorded[::-1]):
        assert [row[1:6] for row in await cells(page, "Accesses")] == of[:20]
        for _ in range(2):
            await page.locator("thead button", has_text="Position").click()
    await one.go("cases")
    await expect(page.locator("#main h2", has_text="Flags")).to_have_text(f"Flags ({MANY:,})")
    for numbers in (range(MANY)[::-1], range(MANY)):
        explained = column(await cells(page, "Flags"), 3)
        assert explained == [f"pattern {number}" for number in numbers[:10]]
        for _ in range(2):
            await page.locator("table", has_text="Explanation").locator("thead button", has_text="Raised").click()


async def test_a_table_sorts_all_rows_and_not_those_of_a_page(long: LongPage) -> None:
    one, page = long.one, long.one.page
    await one.go("actions?from=&kind=refund&amount=1.00 to 60.00 GBP")
    refunds = [event["data"]["amount"] for event in long.of("action.taken") if event["data"]["kind"] == "refund"]
    some = [float(of["amount"]) for of in refunds if of["currency"] == "GBP" and 1 <= float(of["amount"]) <= 60]
    await expect(page.locator("#main h2").first).to_have_text(f"{len(some):,} actions")
    await one.go("escalations")
    await page.get_by_role("button", name="Asked", exact=True).click()
    amounts = sorted(float(event["data"]["amount"]["amount"]) for event in long.of("escalation.requested"))
    shown = [float(cell[1:]) for cell in column(await cells(page, "Escalations"), 4)]
    assert shown == amounts[::-1][: len(shown)]
    await page.get_by_role("button", name="Asked ↓", exact=True).click()
    shown = [float(cell[1:]) for cell in column(await cells(page, "Escalations"), 4)]
    assert shown == amounts[: len(shown)]


async def test_the_overview_of_two_currencies_is_that_of_the_replayed_events(long: LongPage) -> None:
    """By SQL over the log, with actions that other systems reported; pounds and euros are never added."""
    one = long.one
    await one.go("overview?from=2024-12-31&to=2025-12-30")
    await assert_overview_is_the_oracles(one.page, long.ledger)
    link = one.page.locator(".figures a").first
    counted = (await one.page.locator(".figures .more").first.text_content() or "").partition(" actions")[0]
    await link.click()
    await expect(one.page.locator("#main h2").first).to_have_text(f"{counted} actions")
    await one.go("overview?from=2025-06-01&to=2025-06-30")  # days in summer begin before midnight UTC
    row = one.page.get_by_role("region", name="By team").locator("tr", has_text="north")
    counted = await row.get_by_role("link").text_content() or ""
    await row.get_by_role("link").click()
    await expect(one.page.locator("#main h2").first).to_have_text(f"{counted} actions")


async def test_questions_of_the_morning_are_answered_in_three_clicks(long: LongPage) -> None:
    """Each begins at the first page; a choice in a list counts as a click."""
    one, page = long.one, long.one.page
    await one.go("overview")
    # What was given last week, and for what?
    await page.get_by_role("button", name="Last week").click()
    await expect(page.locator("#main [aria-busy]")).to_have_count(0)
    begin, end = [await page.get_by_label(label, exact=True).input_value() for label in ("From", "To")]
    assert (date.fromisoformat(begin).weekday(), date.fromisoformat(end).weekday()) == (0, 6)
    week = oracle_of(long.ledger, begin, end, "Europe/London")
    reasons = {row["label"] for row in week["actions"] + week["escalations"] if row["what"] == "reason"}
    shown = {row[0]: row[1:] for row in await cells(page, "By reason")}
    assert {name: shown[name] for name in reasons} == {name: row_of(week, "reason", name) for name in reasons}
    # Who waits longest?
    await one.go("overview?from=")
    await page.get_by_role("link", name="Escalations", exact=True).click()
    await page.get_by_role("combobox", name="Outcome").select_option("waiting")
    await page.locator("thead button", has_text="Waited").click()
    amounts = [event["data"]["amount"] for event in long.of("escalation.requested")[:20]]  # these wait
    expected = [shown_money(round(float(of["amount"]) * 100), of["currency"]) for of in amounts]
    await expect(page.locator("#main h2").first).to_have_text("20 escalations")
    assert column(await cells(page, "Escalations"), 4) == expected[::-1]
    # Why was this refund refused?
    await one.go("escalations?kind=refund")
    await page.get_by_role("combobox", name="Outcome").select_option("denied")
    await page.get_by_role("link", name="Story").first.click()
    await expect(page.locator("#main tbody")).to_contain_text("escalation denied by M: no receipt")
    # Which customers came back?
    await page.get_by_role("link", name="Customer value").click()
    report = await read_current(one.client, "loyalty", limit=10)
    table = page.locator("table", has_text="Purchases after an action")
    await expect(table).to_be_visible(timeout=15_000)
    rows = [(row[0], row[4]) for row in await cells(page, "Purchases after an action")]
    after = [each["windows"]["30"]["after"] for each in report["items"]]
    assert rows == [
        (each["customer_id"], f"{of['purchases']}, {pounds_of(of['revenue'])}" if of else "not over")
        for each, of in zip(report["items"], after, strict=True)
    ]


async def test_evidence_is_told_in_sentences(long: LongPage) -> None:
    await long.one.go("cases")
    await long.one.page.get_by_role("button", name="Evidence").first.click()
    first = long.ledger.events[0]
    assert first["type"] == "resolution.purchase.returned.v1"
    told = f"{first['data']['customer_id']}: returned {first['data']['total']['amount']} GBP"
    await expect(long.one.page.locator(".story li")).to_contain_text(told)


async def test_the_consistency_of_teams_is_that_of_the_replayed_events(long: LongPage) -> None:
    one, page = long.one, long.one.page
    await one.go("overview?from=2024-12-31&to=2025-12-30")
    days = read_range("2024-12-31", "2025-12-30", zone_named("Europe/London"))
    oracle = long.ledger.without(outside(days, OPENED)).figures("quality")["consistency"]
    for by in ("team", "channel"):
        title = f"Consistency by {by}"
        card = page.get_by_role("region", name=title)
        await expect(card.locator("svg")).to_be_visible(timeout=15_000)
        groups = [row for row in oracle if (row["what"], row["by"]) == ("any", by)]
        away = [
            row["part"]
            for row in groups
            if not row["limits"][0] <= row["given"]["k"] / row["given"]["n"] <= row["limits"][1]
        ]
        if by == "team":
            assert away == ["harbour"]
            assert await overlapping(one, title) == []
        legend = f"More than chance: {', '.join(away)}." if away else f"No {by} differs by more than chance."
        await expect(card.locator(".legend")).to_have_text(legend)
        await card.get_by_role("button", name="Numbers").click()
        expected = [consistency_row(row) for row in groups]
        shown = [[" ".join(cell.split()) for cell in row] for row in await cells(page, title, whole=True)]
        assert sorted(shown) == sorted(expected)


def consistency_row(row: Document) -> list[str]:
    """Return the cells of a group: interactions, share, medians, limits."""
    medians = []
    for of in row["medians"] or []:
        ends = of["median_interval"] and [shown_money(end, of["currency"]) for end in of["median_interval"]]
        medians.append(f"{shown_money(of['minor'], of['currency'])} ({shown_interval(ends, of['n'])})")
    low, high = row["limits"]
    given = f"{row['part_k'] / row['part_n']:.1%} ({shown_share(row['given'])})"
    return [row["part"], f"{row['part_n']:,}", given, " · ".join(medians), f"{low:.1%} to {high:.1%}"]


async def overlapping(one: Opened, title: str) -> list[list[str]]:
    """Return the pairs of labels of a chart's groups that lie on one another."""
    found: list[list[str]] = await one.page.get_by_role("region", name=title).evaluate("""card => {
        const labels = [...card.querySelectorAll("svg text")].filter(one => /^[a-z]+$/.test(one.textContent));
        const boxes = labels.map(one => [one.textContent, one.getBoundingClientRect()]);
        return boxes.flatMap(([name, a], at) => boxes.slice(at + 1).filter(([, b]) =>
            a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom).map(([other]) => [name, other]));
    }""")
    return found


async def test_the_forest_and_its_tables_are_those_of_the_report(long: LongPage) -> None:
    """The report's estimates agree with scipy's; each cell of the page is the report's."""
    one, page = long.one, long.one.page
    report = await read_current(one.client, "loyalty")
    assert value_differences(long.ledger, report | {"position": len(long.ledger.events)}) == []
    pounds = next(each for each in report["currencies"] if each["currency"] == "GBP")
    await one.go("value")
    card = page.get_by_role("region", name="Difference in spending, GBP")
    await expect(card.locator("svg")).to_be_visible(timeout=15_000)
    known = [line for ladder in pounds["ladder"] for line in ladder["spending"] if line["value"]]
    assert await card.locator("svg circle").count() == len(known) > 0
    await card.get_by_role("button", name="Numbers").click()
    rows = [(ladder["days"], line) for ladder in pounds["ladder"] for line in ladder["spending"]]
    assert await cells(page, "Difference in spending", whole=True) == [
        [str(days), str(line["rung"]), line["method"], f"{line['n']:,}", pounds_of(line["value"]), ends_of(line)]
        for days, line in rows
    ]
    await page.get_by_label("Columns and export: Difference in spending").click()
    async with page.expect_download() as waiting:
        await card.get_by_role("button", name="Export CSV").first.click()
    exported = list(csv.DictReader((await (await waiting.value).path()).read_text().splitlines()))
    assert [one["Difference, GBP"] and float(one["Difference, GBP"]) for one in exported] == [
        float(line["value"]["amount"]) if line["value"] else ""  # what is not known is no zero
        for _, line in rows
    ]
    means = [
        [str(each["days"]), *(mean_of(each, name) for name in ("mean_before", "mean_after", "mean_cost"))]
        for each in pounds["summary"]
    ]
    shown = await cells(page, "Mean purchases of a customer with an action", whole=True)
    assert [[" ".join(cell.split()) for cell in row] for row in shown] == means


def pounds_of(money: Document | None) -> str:
    """Return an amount in pounds as the page writes it."""
    if money is None:
        return "–"
    amount = float(money["amount"])
    return f"{'-' if amount < 0 else ''}£{abs(amount):,.2f}"


def ends_of(line: Document) -> str:
    """Return the interval of an estimate."""
    return " to ".join(pounds_of(end) for end in line["interval"]) if line["interval"] else "–"


def mean_of(window: Document, name: str) -> str:
    """Return a mean with its interval and n."""
    if window[name] is None:
        return "–"
    ends = window[f"{name}_interval"] and [pounds_of(end) for end in window[f"{name}_interval"]]
    return f"{pounds_of(window[name])} ({shown_interval(ends, window['n'])})"


async def test_a_list_that_stays_open_reads_its_changes_alone(long: LongPage) -> None:
    """It keeps all its rows meanwhile, and reads one more without reading the others again."""
    one, page = long.one, long.one.page
    await one.go("accesses")
    await expect(page.locator("#main h2").first).to_contain_text(" accesses")
    before = await cells(page, "Accesses", whole=True)
    assert len(before) > MANY
    begun = len(one.answers)
    token = await Tokens(one.session.client).make(f"visitor-{len(before)}", "auditor", None, None)
    async with httpx.AsyncClient(base_url=one.address, timeout=20) as other:
        assert (await other.post("/api/v1/session", json={"token": token})).status_code == 204
    await expect(page.locator("#main h2").first).to_have_text(f"{len(before) + 1:,} accesses", timeout=15_000)
    after = await cells(page, "Accesses")
    assert (after[0][1:3], after[1:]) == ([f"visitor-{len(before)}", "sign-in"], before)
    answers = [answer for answer in one.answers[begun:] if "/accesses" in answer.url]
    assert len(answers) == 1, [answer.url for answer in answers]
    assert (await answers[0].request.sizes())["responseBodySize"] < 2_000


async def test_an_escalation_of_the_past_waited_until_then(long: LongPage) -> None:
    events = [event for event in long.ledger.events if ".escalation." in event["type"]]
    moment = events[-5]["recordedtime"]
    asked: dict[str, Document] = {}
    for event in events:
        if event["recordedtime"] > moment:
            break
        if event["type"] == "resolution.escalation.requested.v1":
            asked[event["data"]["escalation_id"]] = event
        else:
            del asked[event["data"]["escalation_id"]]
    waiting = list(asked.values())[::-1][:20]
    then = datetime.fromisoformat(moment)
    days = [(then - datetime.fromisoformat(event["time"])) / timedelta(days=1) for event in waiting]
    assert max(days) > 2
    await long.one.go(f"escalations?status=waiting&as_of={moment}")
    shown = column(await cells(long.one.page, "Escalations"), 8)
    assert [text for text in shown if text.endswith("days")] == [f"{one:.0f} days" for one in days if one >= 2]
    await long.one.go(f"escalations?status=waiting&as_of={waiting[0]['position']}")  # a position has no time
    assert set(column(await cells(long.one.page, "Escalations"), 8)) == {"–"}
