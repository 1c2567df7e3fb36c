"""The weekly report: its figures are those of the summary, and its page is one file without scripts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from html.parser import HTMLParser
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from projections.date_ranges import RangeError, read_range
from projections.reports.summary import summary
from projections.reports.weekly_page import weekly_page
from projections.reports.weekly_report import last_week, on_the_spot, weekly_report
from tests.support.documents import Document
from tests.support.report_histories import RandomHistory
from tests.support.report_oracle import HistoryLedger

LONDON = ZoneInfo("Europe/London")
WEEK, LATER = "2026-W07", datetime(2026, 6, 1, tzinfo=UTC)
HOSTILE = "</td><script>alert(1)</script>\u202e<img src=http://x>"


class _Page(HTMLParser):
    """The names of the elements of a page, their attributes, its text, and the cells of its tables by heading."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._heading, self._inside = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in {"h2", "td", "style"} else "td" if tag == "bdi" else ""
        if tag == "h2":
            self._heading = ""
        if tag == "tr" and self._heading:
            self.tables.setdefault(self._heading, []).append([])
        if tag == "td":
            self.tables[self._heading][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside != "style":
            self.text += data
        if self._inside == "h2":
            self._heading += data
        if self._inside == "td":
            self.tables[self._heading][-1][-1] += data


@cache
def _ledger() -> HistoryLedger:
    return HistoryLedger(RandomHistory(3, 3.0).events())


def _weekly(week: str = WEEK, now: datetime = LATER) -> Any:
    return _ledger().report(weekly_report, week, LONDON, now)


def _number(amount: Document) -> str:
    return f"{Decimal(amount['amount']):,f}"


def _share(share: Document) -> list[str]:
    """Return the cells of a share: the figure, its interval and n."""
    if share["share"] is None:
        return ["-", "", str(share["n"])]
    low, high = share["interval"]
    return [f"{share['share']:.1%}", f"{low:.1%} to {high:.1%}", str(share["n"])]


def _hours(waited: Document, name: str) -> list[str]:
    """Return the cells of a figure of hours: the figure, its interval and n."""
    if waited[name] is None:
        return ["-", "", str(waited["n"])]
    ends = waited[f"{name}_interval"]
    interval = "" if ends is None else f"{ends[0]:,.1f} to {ends[1]:,.1f}"
    return [f"{waited[name]:,.1f}", interval, f"{waited['n']:,}"]


def test_every_number_is_that_of_the_summary() -> None:
    """The document, and the cells of the page, against the document of `report summary` for the same dates."""
    found = _weekly()
    times = read_range(WEEK, WEEK, LONDON)
    days, reasons = (_ledger().report(summary, times, by) for by in ("day", "reason"))
    head = ("from", "to", "time_zone", "before", "total", "caveats", "rung", "position")
    assert {name: found[name] for name in head} == {name: days[name] for name in head}
    assert (found["days"], found["reasons"]) == (days["groups"], reasons["groups"])
    now, before = days["total"], days["total"]["before"]
    assert now["actions"]["given"] > 0
    page = _Page(weekly_page(found))
    money = {row[0]: row[1:] for row in page.tables["Goodwill and budgets"] if row}
    for one in now["actions"]["by_currency"]:
        assert money[one["currency"]][0] == _number(one["goodwill"])
    for one in before["actions"]["by_currency"]:
        assert money[one["currency"]][1] == _number(one["goodwill"])
    for one in now["budgets"]:
        assert money[one["currency"]][3:5] == [_number(one["granted"]), _number(one["spent"])]
        assert money[one["currency"]][6] == ("-" if one["spent_share"] is None else f"{one['spent_share']:.1%}")
    service = {row[0]: row[1:] for row in page.tables["Service"] if row}
    for label, part, name in (
        ("First contact resolution", "interactions", "first_contact"),
        ("Transferred", "interactions", "transferred"),
        ("Escalations approved, of those decided", "escalations", "approved"),
    ):
        assert service[label][:6] == [*_share(now[part][name]), *_share(before[part][name])]
    assert [service["Escalations"][at] for at in (0, 3)] == [
        str(one["escalations"]["requested"]) for one in (now, before)
    ]
    waited = now["escalations"]["hours_waited"]
    for name in ("median", "mean"):
        assert service[f"Hours until a decision, {name}"][:3] == _hours(waited, name)
    still_open = now["escalations"]["outcomes"].get("open", 0)
    assert service["Of these escalations still waiting"][0] == f"{still_open:,}"
    answers = {(one["instrument"], one["worst"], one["best"]): one for one in now["satisfaction"]}
    assert answers.keys() >= {("csat", 1.0, 5.0)}
    csat = answers["csat", 1.0, 5.0]
    assert service[f"CSAT, 1 to 5: {csat['threshold']:g} or better"][:3] == _share(csat["satisfied"])
    former = {(one["instrument"], one["worst"], one["best"]): one for one in before["satisfaction"]}
    assert len([label for label in service if " to " in label and ":" in label]) == len(answers | former)
    listed = [row[:2] for row in page.tables["Top reasons"] if row]
    assert listed == [[one["group"], str(one["actions"]["given"])] for one in reasons["groups"][:10]]
    bars = [attributes for tag, attributes in page.elements if tag == "rect"]
    assert len(bars) == 7 * sum(Decimal(one["goodwill"]["amount"]) > 0 for one in now["actions"]["by_currency"])


def test_on_the_spot_counts_actions_without_an_approval() -> None:
    """Of 9 actions 3 were approved escalations, of 5 filed: 6 of 11 matters were solved on the spot."""
    figures: Any = {"actions": {"given": 9}, "escalations": {"requested": 5, "outcomes": {"approved": 3, "denied": 2}}}
    found = on_the_spot(figures)
    assert (found["k"], found["n"], found["share"]) == (6, 11, 6 / 11)


def test_the_page_is_one_file_and_hostile_text_is_text() -> None:
    found = _weekly()
    found["reasons"][0]["group"] = HOSTILE
    found["time_zone"] = HOSTILE
    waits = {"escalation_id": "E", "requested": HOSTILE, "due": HOSTILE, "kind": HOSTILE, "reported_by": HOSTILE}
    found["waiting"]["oldest"] = [waits | {"asked": None, "asked_of": []}]
    page = weekly_page(found)
    parsed = _Page(page)
    assert {tag for tag, _ in parsed.elements} & {"script", "img", "link", "iframe", "a", "object"} == set()
    assert {name for _, given in parsed.elements for name in given} & {"src", "href", "onload", "style"} == set()
    assert "url(" not in page
    assert "\u202e" not in page
    assert parsed.text.count(HOSTILE.replace("\u202e", " ")) == 5
    for rule in ("color-scheme: light dark", "prefers-color-scheme: dark", "@media print"):
        assert rule in page


def test_a_week_without_events_and_one_that_is_not_over() -> None:
    empty = _weekly("2020-W53")
    assert (empty["from"], empty["to"]) == ("2020-12-28T00:00:00.000000Z", "2021-01-04T00:00:00.000000Z")
    page = weekly_page(empty)
    assert "28 December 2020 to 3 January 2021" in page
    assert "No goodwill was given in this week." in page
    assert "not over" not in page
    assert "This week is not over" in weekly_page(_weekly(now=datetime(2026, 2, 15, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("now", "zone", "week"),
    [
        ("2026-02-16T00:00:00+00:00", "Europe/London", "2026-W07"),  # Monday has begun
        ("2026-02-15T23:59:59+00:00", "Europe/London", "2026-W06"),
        ("2026-02-15T23:59:59+00:00", "Asia/Tokyo", "2026-W07"),  # where it is Monday
        ("2026-03-29T23:30:00+00:00", "Europe/London", "2026-W13"),  # Monday 00:30, an hour was left out on Sunday
        ("2027-01-04T12:00:00+00:00", "UTC", "2026-W53"),
    ],
)
def test_the_last_whole_week(now: str, zone: str, week: str) -> None:
    assert last_week(datetime.fromisoformat(now), ZoneInfo(zone)) == week


@pytest.mark.parametrize("text", ["2026-02", "2026-W60", "2026-7", "", "2026-02-09"])
def test_a_text_that_is_no_week_is_refused(text: str) -> None:
    with pytest.raises(RangeError, match="2026-W07") as error:
        _weekly(text)
    assert error.value.field == "week"
