"""Comparisons of each report with its oracle: the product's document is flattened to the oracle's rows."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from scipy import stats

from domain.money import money_from_wire
from domain.policy.parsing import read_policy
from projections.reading import AccessScope
from projections.reports.empowerment_gap import gap_report
from projections.reports.recognition import recognition_report
from projections.reports.service_quality import interaction_story, quality_report
from tests.support.documents import Document
from tests.support.oracle_intervals import interval_of_mean
from tests.support.report_oracle import HistoryLedger, differences

if TYPE_CHECKING:
    from collections.abc import Iterator


def minor(money: Any) -> int | None:
    """Return the minor units of an amount, or ``None``."""
    return None if money is None else money_from_wire(money).minor


def _head(ledger: HistoryLedger, found: Document) -> list[str]:
    """Return the differences of the evidence level, the kind of date by which events count, and the position."""
    expected = [1, "recorded", len(ledger.events)]
    return differences([found["rung"], found["by_time"], found["position"]], expected, "head")


def _foreign_money(value: Any, currency: str) -> list[str]:
    """Return a line for each amount in another currency."""
    if isinstance(value, dict) and "amount" in value:
        return differences(value["currency"], currency, "currency")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [line for one in inner for line in _foreign_money(one, currency)]


def gap_differences(ledger: HistoryLedger, found: Document | None = None) -> list[str]:
    """Return the figures of `report gap` that differ from the oracle's."""
    ledger.figures("budget_uses")
    found, oracle = found or ledger.report(gap_report, ledger.published), ledger.figures("gap")
    groups: dict[tuple[str, str], Document] = {(one.pop("what"), one.pop("label")): one for one in oracle["groups"]}
    shown: dict[tuple[str, str], Document] = {("overall", ""): found["overall"]} if found["overall"]["asked"] else {}
    for what in ("kind", "band", "role", "agent_kind", "team", "reason"):
        shown |= {(what, line[what]): line for line in found[f"by_{what}"]}
    flat = {
        key: {name: value for name, value in line.items() if name not in ("waiting", key[0])} | line["waiting"]
        for key, line in shown.items()
    }
    lines = differences(flat, groups, "groups")
    lines += differences(
        [key for key in flat if key[0] != "band"],
        [
            key
            for order in ("overall", "kind", "role", "agent_kind", "team", "reason")
            for key in groups
            if key[0] == order
        ],
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
    lines += _head(ledger, found) + differences(found["incomplete"], oracle["incomplete"][0]["n"], "incomplete")
    names = ("role", "kind", "currency", "requests", "rules_known")
    met = [{name: one[name] for name in names} for one in found["recommended_limits"]]
    lines += differences(met, oracle["met_this_limit"], "met_this_limit")
    priced = ledger.published[-1].policy["currency"] if ledger.published else None
    for one in found["recommended_limits"]:
        lines += _foreign_money(one, one["currency"])
        if one["currency"] != priced:
            lines += differences(one["cost_of_asking"], None, "cost_of_asking")
    for one in found["procedure"]:
        lines += _foreign_money(one, one["given"]["currency"])
    lines += _foreign_money(found["customers_waited"], "GBP")
    told = [
        one
        | {name: one[name] and datetime.fromisoformat(one[name]).replace(tzinfo=None) for name in ("said", "answered")}
        for one in found["obstacles"]
    ]
    lines += differences(told, oracle["obstacles"], "obstacles")
    policy = ledger.published[-1].policy if ledger.published else {}
    given = policy.get("asking", {})
    minutes = {"agent": given.get("agent_minutes", 14), "approver": given.get("approver_minutes", 8)}
    lines += differences(found["asking_minutes"], minutes, "asking_minutes")
    return lines + _limits(found, oracle)


def _unused(found: Document, oracle: Document) -> list[str]:
    scale = 0, oracle.pop("most")
    interval = interval_of_mean(oracle["mean_use"], oracle.pop("standard_error"), oracle["budgets"], scale)
    return differences(found, oracle | {"interval": interval}, "unused")


def _limits(found: Document, oracle: dict[str, list[Document]]) -> list[str]:
    points = [
        {"role": limit["role"], "kind": limit["kind"], "currency": limit["currency"], "up_to": minor(point["up_to"])}
        | {name: point[name] for name in ("n", "approved", "smoothed", "lower")}
        for limit in found["recommended_limits"]
        for point in limit["curve"]
    ]
    risks = [
        (one["role"], one["kind"], minor(point["risk"]), point["asking_costs_more"])
        for one in found["recommended_limits"]
        if one["cost_of_asking"]
        for point in one["curve"]
    ]
    priced = {(one["role"], one["kind"], one["currency"]): one["cost"] for one in oracle["limits"]}
    expected_risks = []
    for point in oracle["curve_points"]:
        cost = priced.get((point["role"], point["kind"], point["currency"]))
        if cost is not None:
            risk = (1 - point["lower"]) * point["up_to"]
            expected_risks.append((point["role"], point["kind"], round(risk), cost > risk))
    lines = differences(points, oracle["curve_points"], "curve")
    shown = [_limit(one) for one in found["recommended_limits"] if one["curve"] and one["cost_of_asking"]]
    expected = [one for one in oracle["limits"] if one["cost"] is not None]
    for one, other in zip(shown, expected, strict=False):
        if one["withdrawn"]:
            other["highest"] = None
        del one["withdrawn"]
    for one in found["recommended_limits"]:
        lines += differences(one["why"], _why(one), "why")
        if not one["curve"] or not one["cost_of_asking"]:
            nothing: Document = {
                "limit": None,
                "without_step": None,
                "cases": [],
                "simulated": None,
                "approved": _NO_SHARE,
            }
            lines += differences({name: one[name] for name in nothing}, nothing, "no advice")
    waited = {"hours": found["customers_waited"]["hours"], "worth": minor(found["customers_waited"]["worth"])}
    lines += differences(risks, expected_risks, "risks")
    factors = [(one["cost_factor"], one["drift"]) for limit in found["recommended_limits"] for one in limit["cases"]]
    lines += differences(factors, [(0.5, 0.0), (2.0, 0.0), (1.0, 0.1), (1.0, 0.25)] * (len(factors) // 4), "cases")
    return lines + differences(shown, expected, "limits") + differences(waited, oracle["waited"][0], "waited")


_NO_SHARE: Document = {"k": 0, "n": 0, "share": None, "interval": None}


def _why(limit: Document) -> str:
    """Return the reason of a recommendation, from its figures."""
    if not limit["curve"]:
        return "fewer than 30 requests that met this limit alone were decided"
    if limit["cost_of_asking"] is None:
        return "the policy in force names no agent_hour and manager_hour in this currency (`costs`)"
    if limit["without_step"] is None:
        return "at no amount observed does asking cost more than the loss it may prevent"
    if limit["limit"] is None:
        return "in a replay of history with this limit, no decision changes"
    return "the largest amount observed at which asking costs more than the loss it may prevent"


def _limit(one: Document) -> Document:
    simulated = one["simulated"]
    return {
        **{name: one[name] for name in ("role", "kind", "currency", "approved")},
        "cost": minor(one["cost_of_asking"]),
        "today": minor(one["today"]),
        "without_step": minor(one["without_step"]),
        "highest": minor(one["limit"]),
        "cases": [minor(case["limit"]) for case in one["cases"]],
        "withdrawn": simulated is not None and not simulated["given_at_once"],
    }


def quality_differences(ledger: HistoryLedger, found: Document | None = None) -> list[str]:
    """Return the figures of `report quality` that differ from the oracle's."""
    found, oracle = found or ledger.report(quality_report), ledger.figures("quality")
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
        one["interval"] = interval_of_mean(one["mean"], one.pop("standard_error"), one["n"], one.pop("ends"))
    lines += differences(found["satisfaction"], oracle["satisfaction"], "satisfaction")
    lines += _head(ledger, found) + differences(found["incomplete"], oracle["incomplete"][0]["n"], "incomplete")
    lines += differences(found["window_days"], 7, "window_days")
    lines += consistency_differences(found["consistency"], oracle["consistency"])
    return lines + differences(found["evenness"], list(_evenness(groups)), "evenness")


def story_differences(ledger: HistoryLedger) -> list[str]:
    """Return the differences of the stories of some interactions from the events that name them."""
    lines: list[str] = []
    for one in ledger.figures("quality")["paths"][:25]:
        told = [each for each in ledger.events if each["data"].get("interaction_id") == one["name"]]
        times = sorted(datetime.fromisoformat(each["time"]) for each in told)
        found = ledger.report(interaction_story, one["name"])
        steps = [datetime.fromisoformat(step["time"]) for step in found["steps"]]
        waits = [(later - before).total_seconds() for before, later in zip([times[0], *times], times, strict=False)]
        lines += differences([step.isoformat() for step in steps], [time.isoformat() for time in times], "story.times")
        lines += differences([step["later_seconds"] for step in found["steps"]], waits, "story.waits")
        positions = [step["position"] for step in found["steps"]]
        lines += differences(positions, [each["position"] for each in sorted(told, key=_step_order)], "story.positions")
        lines += differences(found["position"], len(ledger.events), "story.position")
        parts = [f"{len(told)} steps in {(times[-1] - times[0]).total_seconds() / 3600:,.1f} h"]
        parts.append(f"passed on {one['transfers']} times")
        parts += [f"told their story again {one['repeated']} times"] if one["repeated"] else []
        parts += ["came back to a team they had left"] if one["came_back"] else []
        parts += [f"reopened {one['reopened']} times"] if one["reopened"] else []
        parts.append("resolved" if one["resolved"] else "not resolved yet")
        lines += differences(found["in_short"], "; ".join(parts) + ".", "story.in_short")
    return lines


def _step_order(event: Document) -> tuple[str, int, int, str]:
    """Return the order of steps: of one time the interaction's own, other facts, and decisions as they were made."""
    if event["source"] == "resolution-ledger":
        return event["time"], 2, event["position"], ""
    if event["type"].startswith("resolution.interaction."):
        return event["time"], 0, _LIFE.index(event["type"].split(".")[2]), event["id"]
    return event["time"], 1, 0, event["id"]


_LIFE = ("opened", "transferred", "resolved", "reopened")
EARLIER = 0.6
"""The share of a history's events up to the past position of `as_of_differences`."""


def as_of_differences(name: str, ledger: HistoryLedger) -> list[str]:
    """Return the differences of a report as of a past position from the oracle over the events up to there."""
    earlier = ledger.earlier(EARLIER)
    at = len(earlier.events)
    if name == "gap":
        found = ledger.report(gap_report, earlier.published, None, at)
        simulated = [one["simulated"] for one in found["recommended_limits"]]
        return gap_differences(earlier, found) + differences(simulated, [None] * len(simulated), "simulated")
    if name == "quality":
        return quality_differences(earlier, ledger.report(quality_report, at))
    policy = read_policy(earlier.published[-1].policy) if earlier.published else None
    return recognition_differences(earlier, ledger.report(recognition_report, policy, at))


def scope_differences(name: str, ledger: HistoryLedger) -> list[str]:
    """Return the differences of a report for a reader of some people and one team from the oracle over their events."""
    people = sorted({str(one["data"]["employee_id"]) for one in ledger.events if _name(one) == "employee.joined"})
    scope = AccessScope(frozenset(people[: len(people) // 2 + 1]), frozenset(("phone",)))
    if name == "quality":
        return _scoped_quality(ledger, scope)
    reported = [one for one in ledger.events if _name(one) == "escalation.reported"]
    of_others = {one["data"]["escalation_id"] for one in reported if not _shows(scope, one)}

    def hidden(one: Document) -> bool:
        """Return whether an event is hidden; actions in interactions that were praised are not."""
        if _name(one) == "escalation.outcome_reported":
            return one["data"]["escalation_id"] in of_others
        return not _shows(scope, one) and not (name == "recognition" and _name(one).startswith("action."))

    seen = ledger.without(hidden)
    if name == "gap":
        found = ledger.report(gap_report, ledger.published, None, None, scope)
        simulated = [one["simulated"] for one in found["recommended_limits"]]
        return gap_differences(seen, found) + differences(simulated, [None] * len(simulated), "simulated")
    policy = read_policy(ledger.published[-1].policy)
    return recognition_differences(seen, ledger.report(recognition_report, policy, None, scope))


def _name(event: Document) -> str:
    return str(event["type"]).removeprefix("resolution.").removesuffix(".v1")


def _shows(scope: AccessScope, event: Document) -> bool:
    """Return whether an event is about people, teams and budgets that a reader may see."""
    name, data = _name(event), event["data"]
    if name.startswith("budget."):
        return scope.sees_holder(data["holder"])
    if name == "escalation.reported":
        return scope.shows(data.get("requested_by"))
    if name.startswith(("action.", "escalation.requested")):
        return scope.shows(data.get("agent_id"), data.get("team_id"))
    if name == "morale.surveyed":
        return scope.shows(None, data["team_id"])
    person = {"authority.fell_short": "agent_id", "recognition.given": "receiver_id"}.get(name, "employee_id")
    about = name.startswith(("authority.", "recognition.", "employee.", "training.", "idea.sub", "obstacle.rep"))
    return not about or scope.shows(data.get(person))


def _scoped_quality(ledger: HistoryLedger, scope: AccessScope) -> list[str]:
    """Return the differences in which interactions and answers a reader of one team sees."""
    found = ledger.report(quality_report, None, scope)
    mine = {one["name"] for one in ledger.figures("quality")["paths"] if one["team"] in scope.teams}
    said = sum(_name(one) == "feedback.received" and one["data"].get("interaction_id") in mine for one in ledger.events)
    shown = [found["overall"]["interactions"], sum(one["n"] for one in found["satisfaction"])]
    return differences(shown, [len(mine), said], "scope") + differences(
        [one["team"] for one in found["by_team"]], sorted(scope.teams) if mine else [], "scope.by_team"
    )


def consistency_differences(found: list[Document], oracle: list[Document]) -> list[str]:
    """Return the comparisons of groups that differ from the rows of the oracle."""
    shown = [
        {
            **{name: one[name] for name in ("what", "label", "by", "dispersion")},
            **{name: one["given"][name] for name in ("k", "n")},
            **{name: group[name] for name in ("score", "given", "limits", "wide_limits")},
            **{f"part_{name}": group["given"][name] for name in ("k", "n")},
            "part": group["group"],
            "medians": [_amount(one) for one in group["medians"]] or None,
            "median_intervals": [
                one | {"interval": one["interval"] and [_amount(end) for end in one["interval"]]}
                for one in group["median_intervals"]
            ],
        }
        for one in found
        for group in one["groups"]
    ]
    for one in oracle:
        medians: list[Document] = one["medians"] or []
        one["median_intervals"] = [
            _median_interval(each.pop("n"), each.pop("median_interval"), each["currency"]) for each in medians
        ]
    lines = differences(shown, oracle, "consistency")
    for one in found:
        edges = list(_wilson(one["given"]["k"], one["given"]["n"]))
        whole = {"share": one["given"]["k"] / one["given"]["n"], "interval": edges}
        lines += differences({name: one["given"][name] for name in whole} | {"rung": one["rung"]}, whole | {"rung": 1})
    return lines


@cache
def _wilson(k: int, n: int) -> tuple[float, float]:
    low, high = stats.binomtest(k, n).proportion_ci(method="wilson")
    return float(low), float(high)


def _amount(money: Document) -> Document:
    return {"minor": minor(money), "currency": money["currency"]}


def _median_interval(n: int, median_interval: list[int] | None, currency: str) -> Document:
    ends = None if median_interval is None else [{"minor": end, "currency": currency} for end in median_interval]
    return {"currency": currency, "n": n, "interval": ends}


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


def recognition_differences(ledger: HistoryLedger, found: Document | None = None) -> list[str]:
    """Return the figures of `report recognition` that differ from the oracle's."""
    policy = read_policy(ledger.published[-1].policy) if ledger.published else None
    found, oracle = found or ledger.report(recognition_report, policy), ledger.figures("recognition")
    thanks: Document = oracle["given"][0]
    for name, label in (("by_giver", "giver"), ("by_team", "team"), ("praised", "kind")):
        thanks["actions_praised" if name == "praised" else name] = {one[label]: one["n"] for one in oracle[name]}
    shown = dict(found["thanks"])
    reasons = shown.pop("reasons")
    lines = differences(shown, thanks, "thanks") + differences(
        sorted(reasons, key=lambda one: (-one["times"], one["reason"])), oracle["reasons"][:10], "reasons"
    )
    times = [one["times"] for one in reasons]
    lines += differences(times, sorted(times, reverse=True), "reasons.order")
    for one in oracle["voices"]:
        one["fates"] = dict(Counter(one.pop("decisions") or ()))
    for one in oracle["morale"]:
        worst, best = one.pop("worst"), one.pop("best")
        one["rung"], one["score"], one["interval"] = (
            1,
            None if one["suppressed"] else (one["score"] - worst) / (best - worst),
            None,
        )
        if not one["suppressed"]:
            silent = one["invited"] - one["respondents"]
            lowest = one["score"] * one["respondents"] / one["invited"]
            one["interval"] = [lowest, lowest + silent / one["invited"]]
    courses: list[Document] = found["training"]
    oracle["training"] = [one | {"opens": one["opens"] or []} for one in oracle["training"]]
    for role in oracle["staying"]:
        role["curve"] = [_point(**point) for point in role["curve"]]
    for ours, theirs in (("voices", "voices"), ("morale", "morale"), ("careers", "careers"), ("staying", "staying")):
        lines += differences(found[ours], oracle[theirs], ours)
    return lines + _head(ledger, found) + differences(courses, oracle["training"], "training")


def _point(months: int, staying: float, variance: float | None) -> Document:
    """Return a point of a survival curve, with the log-log interval of Greenwood's variance."""
    interval = None
    if 0 < staying < 1 and variance:
        reach = float(stats.norm.ppf(0.975)) * math.sqrt(variance) / -math.log(staying)
        interval = [staying ** math.exp(reach), staying ** math.exp(-reach)]
    return {"months": months, "staying": staying, "interval": interval}
