"""The overview of the page against SQL over the replayed events, in any number of currencies."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from tests.support.documents import Document
from tests.support.web_page import cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.async_api import Page

    from tests.support.report_oracle import HistoryLedger

type Oracle = dict[str, list[Document]]
SIGNS = {"GBP": "£", "EUR": "€", "USD": "US$"}


def shown_money(minor: int, currency: str) -> str:
    """Return an amount as the page writes it in British English."""
    return f"{SIGNS[currency]}{minor / 100:,.2f}"


def ordered(given: Sequence[Document]) -> list[Document]:
    """Return the goodwill by currency: that of most actions first, those without goodwill left out."""
    found = sorted(given, key=lambda row: -row["actions"])
    return [row for row in found if row["goodwill"]] or found[:1]


def shown_goodwill(given: Sequence[Document]) -> str:
    """Return goodwill as the page writes it."""
    return " · ".join(shown_money(row["goodwill"], row["currency"]) for row in ordered(given)) or "–"


def shown_share(of: Document) -> str:
    """Return the interval of a share and its n."""
    low, high = of["interval"]
    return f"{low:.1%} to {high:.1%}, n = {of['n']:,}"


def shown_interval(ends: Sequence[str] | None, n: int) -> str:
    """Return the interval of an average and its n; few values have none."""
    return f"{ends[0]} to {ends[1]}, n = {n:,}" if ends else f"n = {n:,}"


def fine(value: float) -> str:
    """Return a number with up to two digits."""
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def duration(hours: float) -> str:
    """Return a duration in the largest unit that suits it."""
    seconds = hours * 3600
    if seconds < 90:
        return f"{round(seconds)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{hours:,.1f}".removesuffix(".0") + " h" if hours < 48 else f"{round(hours / 24)} days"


def shown_day(at: date) -> str:
    """Return a day of the year in British English."""
    return f"{at.day} {at:%b}".replace("Sep", "Sept")


def row_of(oracle: Oracle, what: str, label: str) -> list[str]:
    """Return a row of a table by team or kind: actions, goodwill, escalations and the share on the spot."""
    acts, asked, given = (
        [row for row in oracle[part] if (row["what"], row["label"]) == (what, label)]
        for part in ("actions", "escalations", "given")
    )
    done, requested = acts[0]["given"] if acts else 0, asked[0]["requested"] if asked else 0
    own = done - (asked[0]["outcomes"].get("approved", 0) if asked else 0)
    spot = f"{own / (own + requested):.1%}" if own + requested else "–"
    return [f"{done:,}", shown_goodwill(given), f"{requested:,}", spot]


def overview_of(oracle: Oracle) -> dict[str, tuple[str, str]]:
    """Return the overview's figures and the texts below them, from the oracle's totals."""
    parts = ("escalations", "interactions", "satisfaction", "given", "budgets")
    total = {part: [row for row in oracle[part] if row["what"] == "total"] for part in parts}
    (asked,), (calls,), (csat,) = (total[part] for part in parts[:3])
    done, goodwill, requested, spot = row_of(oracle, "total", "")
    medians = []
    for row in ordered(total["given"]):
        ends = row["median_goodwill_interval"] and [
            shown_money(end, row["currency"]) for end in row["median_goodwill_interval"]
        ]
        middle = shown_money(row["median_goodwill"], row["currency"])
        medians.append(f"median {middle} ({shown_interval(ends, row['goodwill_actions'])})")
    budgets = [row for row in total["budgets"] if row["granted"] or row["spent"]]
    spent = [f"{row['spent'] / row['granted']:.1%}" if row["granted"] > 0 else "–" for row in budgets]
    of = [" of ".join(shown_money(row[name], row["currency"]) for name in ("spent", "granted")) for row in budgets]
    ends = calls["mean_transfers_interval"] and [fine(end) for end in calls["mean_transfers_interval"]]
    moved = f"; mean {fine(calls['mean_transfers'])} ({shown_interval(ends, calls['opened'])})"
    waits = asked["median_interval"] and [duration(end) for end in asked["median_interval"]]
    return {
        "Goodwill": (goodwill, "; ".join([f"{done} actions", *medians])),
        "Budgets spent": (" · ".join(spent), " · ".join(of)),
        "On the spot": (spot, "without approval"),
        "Escalations": (requested, f"{asked['approved']['share']:.1%} approved"),
        "First contact": (f"{calls['first_contact']['share']:.1%}", shown_share(calls["first_contact"])),
        "Transferred": (f"{calls['transferred']['share']:.1%}", shown_share(calls["transferred"]) + moved),
        "Satisfied (CSAT)": (f"{csat['satisfied']['share']:.1%}", shown_share(csat["satisfied"])),
        "Waiting for a decision": (duration(asked["median"]), f"median, {shown_interval(waits, asked['n'])}"),
    }


def oracle_of(ledger: HistoryLedger, begin: str, end: str, zone: str) -> Oracle:
    """Return the oracle's totals of days in a time zone."""
    limits = (
        f"SELECT timezone('UTC', timezone('{zone}', TIMESTAMP '{begin}')) AS begin, "
        f"timezone('UTC', timezone('{zone}', TIMESTAMP '{end}' + INTERVAL 1 DAY)) AS \"end\", '{zone}' AS zone"
    )
    return ledger.figures("summary", f"CREATE OR REPLACE TABLE limits AS {limits}")


async def assert_overview_is_the_oracles(page: Page, ledger: HistoryLedger) -> None:
    """Compare each figure, the tables by team and kind, and the goodwill by day in each currency.

    The days before the chosen ones have no events.
    """
    begin, end = [await page.get_by_label(label, exact=True).input_value() for label in ("From", "To")]
    oracle = oracle_of(ledger, begin, end, ledger.published[-1].policy["time_zone"])
    figures = page.locator("#main .figures > div")
    texts = [
        [" ".join(text.split()) for text in await figures.locator(part).all_text_contents()]
        for part in ("dt", ".value", ".more")
    ]
    assert {label: (value, more) for label, value, more in zip(*texts, strict=True)} == overview_of(oracle)
    for what in ("team", "kind"):
        labels = {row["label"] for row in oracle["actions"] + oracle["escalations"] if row["what"] == what}
        rows = {row[0]: row[1:] for row in await cells(page, f"By {what}", whole=True)}
        words = {label.replace("_", " ").capitalize() if what == "kind" else label: label for label in labels}
        assert {name: rows[name] for name in words} == {name: row_of(oracle, what, at) for name, at in words.items()}
        assert all(row[0] == "0" for name, row in rows.items() if name not in words)
    for total in ordered([row for row in oracle["given"] if row["what"] == "total"]):
        await assert_days_are_the_oracles(page, oracle, total["currency"], (begin, end))


async def assert_days_are_the_oracles(page: Page, oracle: Oracle, currency: str, days: tuple[str, str]) -> None:
    """Compare the first days of the table by day in one currency."""
    title = f"Goodwill by day, {currency}"
    await page.get_by_role("region", name=title).get_by_role("button", name="Numbers").click()
    rows = await cells(page, title)
    assert rows
    first, last = (date.fromisoformat(day) for day in days)
    dates = {shown_day(at): at.isoformat() for at in (first + timedelta(n) for n in range((last - first).days + 1))}
    for day, *row in rows:
        at = dates[day]
        done, _, requested, _ = row_of(oracle, "day", at)
        given = [each for each in oracle["given"] if (each["what"], each["label"]) == ("day", at)]
        minor = sum(each["goodwill"] for each in given if each["currency"] == currency)
        assert row == [done, shown_money(minor, currency), requested], day
