"""The weekly report as one HTML page without scripts or anything from elsewhere, for a screen or a printer."""

from __future__ import annotations

import html
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple

from domain.money import wire_of
from domain.periods import days_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from domain.analytics.empowerment_gap import Share
    from domain.analytics.satisfaction import Satisfaction
    from projections.reports.summary import BudgetFigures, Figures, WaitFigures
    from projections.reports.weekly_report import Waiting, WeeklyReport

_NONE = "-"
_LONGEST = 120
_REASONS = 10
_INSTRUMENTS = {"csat": "CSAT", "nps": "NPS", "ces": "CES", "review": "Reviews"}
_WIDTH, _HEIGHT, _TOP, _BOTTOM = 640, 150, 20, 20
_STYLE = """
:root { color-scheme: light dark; --ink: #171b22; --muted: #566071; --line: #d9dde4; --paper: #ffffff; --bar: #3a4fc4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebf0; --muted: #9ca6b5; --line: #333a46; --paper: #16191f; --bar: #a3b3ff; }
}
@page { margin: 15mm; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
body { background: var(--paper); color: var(--ink); }
h1 { margin-bottom: 0; } h2 { margin: 1.5em 0 .3em; font-size: 1.2em; }
.muted, th, small, caption { color: var(--muted); }
.scroll { overflow-x: auto; }
caption { text-align: left; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid var(--line); }
th { font-weight: 500; } td:first-child { min-width: 6rem; overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.alert { border: 1px solid; padding: .3rem .6rem; }
figure { margin: 0; overflow-x: auto; } svg { display: block; width: 100%; min-width: 30rem; max-width: 45rem; }
svg text { font-size: 12px; fill: var(--ink); text-anchor: middle; }
svg rect { fill: var(--bar); print-color-adjust: exact; } svg line { stroke: var(--line); }
@media print {
  :root { color-scheme: light; --ink: #000; --muted: #444; --line: #bbb; --paper: #fff; --bar: #3a4fc4; }
  body { font-size: 10pt; margin: 0; max-width: none; }
  section, tr { break-inside: avoid; } .scroll { overflow: visible; } table { font-size: 8.5pt; }
  th, td { padding: .15rem .3rem; } td:first-child { min-width: 4rem; } th.number { white-space: normal; }
}
"""


class _Value(NamedTuple):
    """A figure with its interval and the number of cases behind it."""

    text: str = _NONE
    interval: str = ""
    n: str = ""


class _Line(NamedTuple):
    """A figure of the week, that of the week before, and the difference."""

    label: str
    now: _Value
    before: _Value
    change: str = ""

    def cells(self) -> Sequence[str]:
        return (self.label, *self.now, *self.before, self.change)


def weekly_page(report: WeeklyReport) -> str:
    """Return the HTML page of a weekly report."""
    week, zone, position = report["week"], _text(report["time_zone"]), report["position"]
    before, total = report["total"]["before"], report["total"]
    assert before is not None
    title = f"Week {int(week[-2:])} of {week[:4]}"
    unfinished = "" if report["is_over"] else '<p class="alert">This week is not over: its figures are not final.</p>'
    lines = [
        _of_share("Solved on the spot", report["on_the_spot"], report["on_the_spot_before"]),
        *_handled(total, before),
        *_satisfied(total["satisfaction"] or (), before["satisfaction"] or ()),
        *_escalated(total, before),
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{_text(title)}: goodwill and service</title><style>{_STYLE}</style></head><body>
<h1>{_text(title)}</h1>
<p class="muted">{_days(week)} ({zone}) beside the week before. At position {position:,}.</p>{unfinished}
<section><h2>Goodwill and budgets</h2>
{_table(_MONEY, _spent(total, before), "Amounts of different currencies are never added.")}
<p><small>A budget whose period has a day in the week counts as a whole, also that of a month.</small></p></section>
{_charts(report)}
<section><h2>Service</h2>{_table(_FIGURES, [one.cells() for one in lines], _evidence(report))}
<p><small>On the spot: actions given without approval, of these and of all escalations.</small></p></section>
{_reasons(report)}
{_waits(report["waiting"])}
<section><h2>How to read this</h2><ul>{"".join(f"<li>{_text(one)}</li>" for one in report["caveats"])}</ul>
<p>Intervals have 95 %; n is the number of cases behind a figure. The same figures:
<code>resolution-ledger report summary --from {week} --to {week} --tz {zone} --json</code></p></section>
</body></html>
"""


_MONEY = (
    "Currency",
    "Goodwill given",
    "Week before",
    "Change",
    "Budget granted",
    "Spent",
    "Week before",
    "Share spent",
)
_FIGURES = ("", "Week", "Interval", "n", "Week before", "Interval", "n", "Change")
_BY_REASON = ("Reason", "Actions", "Week before", "Goodwill", "Week before", "Escalations", "Week before")
_OLDEST = ("Asked", "Due", "Waits for", "Kind", "Amount")


def _text(value: object) -> str:
    """Return a text for HTML: escaped, cut short, without characters that control its direction or the page."""
    text = "".join(one if one.isprintable() else " " for one in str(value))
    return html.escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", *, words: int = 1) -> str:
    """Return a table; the columns behind the first ``words`` ones hold numbers."""
    kinds = ["" if at < words else ' class="number"' for at in range(len(columns))]
    head = "".join(f'<th scope="col"{kind}>{_text(one)}</th>' for kind, one in zip(kinds, columns, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}><bdi>{_text(one)}</bdi></td>" for kind, one in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    said = f"<caption>{_text(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _days(week: str) -> str:
    first, after = days_of(week)
    return f"{_day(first)} to {_day(after - timedelta(days=1))}"


def _day(day: date) -> str:
    return f"{day.day} {day:%B} {day.year:04d}"


def _number(amount: Mapping[str, str] | None) -> str:
    return _NONE if amount is None else f"{Decimal(amount['amount']):,f}"


def _money(amount: Mapping[str, str] | None) -> str:
    return _NONE if amount is None else f"{_number(amount)} {amount['currency']}"


def _evidence(report: WeeklyReport) -> str:
    return f"Evidence level {report['rung']}: descriptions. A difference to the week before does not show a cause."


# ---------------------------------------------------------------------- money


def _goodwill(figures: Figures) -> dict[str, Mapping[str, str]]:
    """Return by currency the goodwill that was given, if any."""
    amounts = (one["goodwill"] for one in figures["actions"]["by_currency"])
    return {one["currency"]: one for one in amounts if Decimal(one["amount"])}


_HELD: tuple[Literal["granted", "spent"], ...] = ("granted", "spent")


def _budgets(figures: Figures) -> dict[str, BudgetFigures]:
    """Return by currency the budgets that hold an amount, or did."""
    known = figures["budgets"] or ()
    return {one["currency"]: one for one in known if any(Decimal(one[name]["amount"]) for name in _HELD)}


def _spent(now: Figures, before: Figures) -> Iterable[Sequence[str]]:
    """Yield by currency the goodwill, and the budgets that it draws on."""
    given, earlier, budgets, former = _goodwill(now), _goodwill(before), _budgets(now), _budgets(before)
    for currency in sorted({*given, *earlier, *budgets, *former}):
        zero = wire_of(0, currency)
        this, last = given.get(currency, zero), earlier.get(currency, zero)
        budget, old = budgets.get(currency), former.get(currency)
        share = None if budget is None else budget["spent_share"]
        yield (
            currency,
            _number(this),
            _number(last),
            _relative(Decimal(this["amount"]), Decimal(last["amount"])),
            _number(budget and budget["granted"]),
            _number(budget and budget["spent"]),
            _number(old and old["spent"]),
            _NONE if share is None else f"{share:.1%}",
        )


def _relative(now: Decimal | int, before: Decimal | int) -> str:
    return f"{(now - before) / before:+.0%}" if before else ""


def _charts(report: WeeklyReport) -> str:
    """Return a chart of the goodwill by day in each currency in which some was given."""
    found = [
        f"<section><h2>Goodwill by day, {_text(currency)}</h2><figure>{_bars(report, currency)}</figure></section>"
        for currency in _goodwill(report["total"])
    ]
    return "\n".join(found) or "<p>No goodwill was given in this week.</p>"


def _bars(report: WeeklyReport, currency: str) -> str:
    first, _ = days_of(report["week"])
    amounts = {one["group"]: _goodwill(one).get(currency) for one in report["days"]}
    days = [first + timedelta(days=number) for number in range(7)]
    shown = [amounts.get(day.isoformat()) or wire_of(0, currency) for day in days]
    most = max(Decimal(one["amount"]) for one in shown)
    step, low = _WIDTH / len(days), _HEIGHT - _BOTTOM
    parts = []
    for at, (day, amount) in enumerate(zip(days, shown, strict=True)):
        value = Decimal(amount["amount"])
        high = float(value / most) * (low - _TOP)
        middle = step * (at + 0.5)
        parts.append(
            f'<rect x="{middle - step * 0.3:.1f}" y="{low - high:.1f}" width="{step * 0.6:.1f}" height="{high:.1f}"/>'
            f'<text x="{middle:.1f}" y="{low - high - 5:.1f}">{value:,f}</text>'
            f'<text x="{middle:.1f}" y="{_HEIGHT - 5}">{day:%a} {day.day}</text>'
        )
    told = ", ".join(f"{day:%A} {one['amount']}" for day, one in zip(days, shown, strict=True))
    label = html.escape(f"Goodwill in {currency} by day: {told}")
    base = f'<line x1="0" y1="{low}" x2="{_WIDTH}" y2="{low}"/>'
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}{base}</svg>'


# ---------------------------------------------------------------------- service


def _share_value(one: Share | None) -> _Value:
    if one is None or one["share"] is None or one["interval"] is None:
        return _Value(n="" if one is None else f"{one['n']:,}")
    low, high = one["interval"]
    return _Value(f"{one['share']:.1%}", f"{low:.1%} to {high:.1%}", f"{one['n']:,}")


def _of_share(label: str, now: Share | None, before: Share | None) -> _Line:
    values = [one["share"] for one in (now, before) if one is not None and one["share"] is not None]
    change = f"{100 * (values[0] - values[1]):+.1f} points" if len(values) == 2 else ""  # noqa: PLR2004 - both weeks
    return _Line(label, _share_value(now), _share_value(before), change)


def _handled(now: Figures, before: Figures) -> Iterable[_Line]:
    these, those = now["interactions"], before["interactions"]
    assert these is not None
    assert those is not None
    yield _of_number("Interactions opened", these["opened"], those["opened"])
    yield _of_share("First contact resolution", these["first_contact"], those["first_contact"])
    yield _of_share("Transferred", these["transferred"], those["transferred"])


def _of_number(label: str, now: int, before: int) -> _Line:
    return _Line(label, _Value(f"{now:,}"), _Value(f"{before:,}"), _relative(now, before))


def _satisfied(now: Sequence[Satisfaction], before: Sequence[Satisfaction]) -> Iterable[_Line]:
    """Yield each instrument by its own definition: a share, points, or a mean on its scale."""
    these, those = ({(one["instrument"], one["worst"], one["best"]): one for one in some} for some in (now, before))
    for key in sorted({*these, *those}):
        this, last = these.get(key), those.get(key)
        one = this or those[key]
        name = f"{_INSTRUMENTS.get(key[0], key[0])}, {key[1]:g} to {key[2]:g}"
        if one["satisfied"] is not None:
            label = f"{name}: {one['threshold']:g} or better"
            yield _of_share(label, this and this["satisfied"], last and last["satisfied"])
        elif one["points"] is not None:
            yield _Line(f"{name}: points", _points(this), _points(last))
        else:
            yield _Line(f"{name}: mean", _mean(this), _mean(last))
    answered, earlier = ({one["instrument"]: one["response"] for one in some} for some in (now, before))
    for instrument in sorted({*answered, *earlier}):
        label = f"{_INSTRUMENTS.get(instrument, instrument)}: interactions with an answer"
        yield _of_share(label, answered.get(instrument), earlier.get(instrument))


def _points(one: Satisfaction | None) -> _Value:
    if one is None:
        return _Value()
    low, high = one["points_interval"] or (one["points"], one["points"])
    return _Value(f"{one['points']:+.0f}", f"{low:+.0f} to {high:+.0f}", f"{one['n']:,}")


def _mean(one: Satisfaction | None) -> _Value:
    if one is None:
        return _Value()
    interval = "" if one["interval"] is None else f"{one['interval'][0]:.2f} to {one['interval'][1]:.2f}"
    return _Value(f"{one['mean']:.2f}", interval, f"{one['n']:,}")


def _escalated(now: Figures, before: Figures) -> Iterable[_Line]:
    these, those = now["escalations"], before["escalations"]
    yield _of_number("Escalations", these["requested"], those["requested"])
    yield _of_share("Escalations approved, of those decided", these["approved"], those["approved"])
    for name in ("median", "mean"):
        yield _Line(
            f"Hours until a decision, {name}", _hours(these["hours_waited"], name), _hours(those["hours_waited"], name)
        )
    number, former = (one["outcomes"].get("open", 0) for one in (these, those))
    yield _Line("Of these escalations still waiting", _Value(f"{number:,}"), _Value(f"{former:,}"))


def _hours(waited: WaitFigures, name: str) -> _Value:
    is_median = name == "median"
    hours = waited["median"] if is_median else waited["mean"]
    ends = waited["median_interval"] if is_median else waited["mean_interval"]
    interval = "" if ends is None else f"{ends[0]:,.1f} to {ends[1]:,.1f}"
    return _Value(_NONE if hours is None else f"{hours:,.1f}", interval, f"{waited['n']:,}")


# ---------------------------------------------------------------------- reasons, and what waits


def _reasons(report: WeeklyReport) -> str:
    groups = report["reasons"]
    rows = []
    for one in groups[:_REASONS]:
        was = one["before"]
        assert was is not None
        rows.append(
            (
                one["group"],
                f"{one['actions']['given']:,}",
                f"{was['actions']['given']:,}",
                " · ".join(map(_money, _goodwill(one).values())) or _NONE,
                " · ".join(map(_money, _goodwill(was).values())) or _NONE,
                f"{one['escalations']['requested']:,}",
                f"{was['escalations']['requested']:,}",
            )
        )
    more = len(groups) - len(rows)
    rest = f"<p><small>{more:,} more reasons.</small></p>" if more > 0 else ""
    shown = _table(_BY_REASON, rows) if rows else "<p>No action and no escalation names a reason.</p>"
    return f"<section><h2>Top reasons</h2>{shown}{rest}</section>"


def _waits(waiting: Waiting) -> str:
    """Return the section on the matters that wait at the report's position."""
    counts = (
        f"escalations {waiting['escalations']:,}, obstacles {waiting['obstacles']:,}, ideas {waiting['ideas']:,}, "
        f"open cases of possible misuse {waiting['cases']:,}"
    )
    rows = [
        (
            str(one["requested"])[:16].replace("T", " "),
            (one["due"] or "")[:16].replace("T", " "),
            one["reported_by"] or ", ".join(one["asked_of"]),
            (one["kind"] or "").replace("_", " "),
            _money(one["asked"]),
        )
        for one in waiting["oldest"]
    ]
    oldest = _table(_OLDEST, rows, "The oldest escalations (times in UTC)", words=4) if rows else ""
    return f"<section><h2>Waiting now</h2><p>Without an answer at the position above: {counts}.</p>{oldest}</section>"
