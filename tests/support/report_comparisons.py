"""Comparisons of each report with its oracle: the product's document is flattened to the oracle's rows."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from scipy import stats

from domain.money import money_from_wire
from projections.reports.empowerment_gap import gap_report
from projections.reports.service_quality import quality_report
from tests.support.documents import Document
from tests.support.report_oracle import HistoryLedger, differences

if TYPE_CHECKING:
    from collections.abc import Iterator


def minor(money: Any) -> int | None:
    """Return the minor units of an amount, or ``None``."""
    return None if money is None else money_from_wire(money).minor


def gap_differences(ledger: HistoryLedger) -> list[str]:
    """Return the figures of `report gap` that differ from the oracle's."""
    found, oracle = ledger.report(gap_report, ledger.published), ledger.figures("gap")
    groups: dict[tuple[str, str], Document] = {(one.pop("what"), one.pop("label")): one for one in oracle["groups"]}
    shown: dict[tuple[str, str], Document] = {("overall", ""): found["overall"]} if found["overall"]["asked"] else {}
    for what in ("kind", "band", "role", "team", "reason"):
        shown |= {(what, line[what]): line for line in found[f"by_{what}"]}
    flat = {
        key: {name: value for name, value in line.items() if name not in ("waiting", key[0])} | line["waiting"]
        for key, line in shown.items()
    }
    lines = differences(flat, groups, "groups")
    lines += differences(
        [key for key in flat if key[0] != "band"],
        [key for order in ("overall", "kind", "role", "team", "reason") for key in groups if key[0] == order],
        "order",
    )
    total, *kinds = oracle["silent_gap"]
    silent = {"fell_short": total["told"], "pending": total["pending"], "never_asked": total["never_asked"]}
    silent["by_kind"] = [
        {"kind": one["kind"], "never_asked": one["never_asked"]} for one in kinds if one["told"] > one["pending"]
    ]
    lines += differences(found["silent_gap"], silent, "silent_gap")
    remedies = [{name: value for name, value in one.items() if name != "text"} for one in found["cannot_do"]]
    lines += differences(remedies, oracle["cannot_do"], "cannot_do")
    lines += differences(found["rubber_stamps"], oracle["rubber_stamps"], "rubber_stamps")
    lines += _unused(found["unused"], oracle["unused"][0])
    money = ("given", "long_way_each", "long_way")
    done = [
        {**one, "currency": one["given"]["currency"], **{name: minor(one[name]) for name in money}}
        for one in found["procedure"]
    ]
    lines += differences(done, oracle["procedure"], "procedure")
    return lines + _limits(found, oracle)


def _unused(found: Document, oracle: Document) -> list[str]:
    interval = _interval(oracle["mean_use"], oracle.pop("standard_error"), oracle["budgets"])
    return differences(found, oracle | {"interval": interval}, "unused")


def _limits(found: Document, oracle: dict[str, list[Document]]) -> list[str]:
    points = [
        {"role": limit["role"], "kind": limit["kind"], "currency": limit["currency"], "up_to": minor(point["up_to"])}
        | {name: point[name] for name in ("n", "approved", "smoothed", "lower")}
        for limit in found["recommended_limits"]
        for point in limit["curve"]
    ]
    return differences(points, oracle["curve"], "curve")


def quality_differences(ledger: HistoryLedger) -> list[str]:
    """Return the figures of `report quality` that differ from the oracle's."""
    found, oracle = ledger.report(quality_report), ledger.figures("quality")
    groups: dict[tuple[str, str], Document] = {(one.pop("what"), one.pop("label")): one for one in oracle["groups"]}
    shown: dict[tuple[str, str], Document] = {("overall", ""): found["overall"]} if groups else {}
    for what in ("channel", "team", "line", "reason"):
        shown |= {(what, line[what]): line for line in found[f"by_{what}"]}
    flat = {
        key: {name: value for name, value in line.items() if key[0] == "overall" or name != key[0]}
        for key, line in shown.items()
    }
    lines = differences(flat, groups, "groups")
    lines += differences(
        list(flat),
        [key for order in ("overall", "channel", "team", "line", "reason") for key in groups if key[0] == order],
        "order",
    )
    for one in oracle["satisfaction"]:
        one["interval"] = _interval(one["mean"], one.pop("standard_error"), one["n"])
    lines += differences(found["satisfaction"], oracle["satisfaction"], "satisfaction")
    return lines + differences(found["evenness"], list(_evenness(groups)), "evenness")


def _interval(mean: float | None, error: float | None, n: int) -> list[float] | None:
    """Return Student's 95 % interval, computed by scipy."""
    if mean is None or error is None or n < 2:
        return None
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    return [mean - reach, mean + reach]


def _evenness(groups: dict[tuple[str, str], Document]) -> Iterator[Document]:
    """Yield the evenness of groups with at least thirty, with scipy's chi-squared test."""
    for by, what in itertools.product(("channel", "team"), ("first_contact", "reopened")):
        told = [
            (label, one[what])
            for (of, label), one in groups.items()
            if of == by and label != "not said" and one[what]["n"] >= 30
        ]
        hits, misses = sum(one["k"] for _, one in told), sum(one["n"] - one["k"] for _, one in told)
        if len(told) < 2 or not hits or not misses:
            continue
        p = stats.chi2_contingency([(one["k"], one["n"] - one["k"]) for _, one in told]).pvalue
        ordered = sorted(told, key=lambda one: one[1]["share"])
        yield {"what": what, "by": by, "groups": len(told), "lowest": ordered[0], "highest": ordered[-1], "p": float(p)}
