"""Comparisons of each report with its oracle: the product's document is flattened to the oracle's rows."""

from __future__ import annotations

from typing import Any

from domain.money import money_from_wire
from domain.statistics import student_quantile
from projections.reports.empowerment_gap import gap_report
from tests.support.documents import Document
from tests.support.report_oracle import HistoryLedger, differences


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
    error, mean, n = oracle.pop("standard_error"), oracle["mean_use"], oracle["budgets"]
    half = student_quantile(0.95, n - 1) * error if n > 1 else None
    return differences(found, oracle | {"interval": None if half is None else [mean - half, mean + half]}, "unused")


def _limits(found: Document, oracle: dict[str, list[Document]]) -> list[str]:
    points = [
        {"role": limit["role"], "kind": limit["kind"], "currency": limit["currency"], "up_to": minor(point["up_to"])}
        | {name: point[name] for name in ("n", "approved", "smoothed", "lower")}
        for limit in found["recommended_limits"]
        for point in limit["curve"]
    ]
    return differences(points, oracle["curve"], "curve")
