"""CPU time that each view spends on an event: this checkout beside a commit, and facts in order beside facts reversed.

    python -m benchmarks.views [--base COMMIT] [--rounds 3] [--interactions 10000] [--json]

Each version records the same facts, in the order of their times and reversed, and builds each view anew by the command
that its users have. A rebuild of the view over an empty ledger is taken off. Targets: in order at most 1.15 times the
base; reversed at most 3 times in order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.comparison import PRESENT, progress, version_of
from benchmarks.cpu import end_all, until_at_rest
from benchmarks.parts import Side
from benchmarks.processes import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

# The facts change these views; balances and decisions come from decisions alone.
VIEWS = ("audit_trail", "authority", "casework", "flags", "journeys", "loyalty_effects", "people")
ORDERS = ("empty", "in order", "reversed")
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_BASE = (Path(__file__).parent / "baseline.txt").read_text().strip()


def facts(interactions: int) -> Iterator[bytes]:
    """Yield facts in the order of their times: purchases, interactions, escalations, reported actions, surveys."""
    for at in range(interactions):
        moment = _BEGAN + timedelta(minutes=11 * at)
        matter = {"interaction_id": f"I-{at:06d}"}
        customer, agent = {"customer_id": f"C-{at * 7 % 900:04d}"}, f"A-{at % 60:02d}"
        amount = {"amount": f"{5 + at % 40}.00", "currency": "GBP"}
        cause = {"kind": ("refund", "discount")[at % 2], "reason": ("late", "broken")[at // 2 % 2], "amount": amount}
        order = {"order_id": f"O-{at:06d}", **customer}
        opened = {"channel": "phone", "reason": "late", "agent_id": agent, "team_id": f"T-{at % 6}"}
        yield _fact(at, 0, moment, "purchase.completed", **order, total=amount, margin=amount)
        yield _fact(at, 1, moment, "interaction.opened", **matter, **customer, **opened)
        if at % 4 == 0:
            yield _fact(at, 2, moment, "interaction.transferred", **matter, to_agent_id="A-01", to_team_id="T-1")
        if at % 2 == 0:
            named = {"escalation_id": f"E-{at:06d}"}
            yield _fact(at, 3, moment, "escalation.reported", **named, **matter, **cause, requested_by=agent)
            verdict = {"verdict": ("approved", "denied")[at // 2 % 2], "decided_by": "M-1"}
            yield _fact(at, 4, moment, "escalation.outcome_reported", **named, **verdict)
        if at % 3 == 0:
            yield _fact(at, 5, moment, "action.reported", **matter, **customer, **cause, agent_id=agent)
        yield _fact(at, 6, moment, "interaction.resolved", **matter)
        if at % 5 == 0:
            scale = {"instrument": "csat", "score": 1 + at % 5, "worst": 1, "best": 5}
            yield _fact(at, 7, moment, "feedback.received", **matter, **customer, **scale)


def _fact(at: int, step: int, moment: datetime, name: str, /, **data: Any) -> bytes:
    time = (moment + timedelta(minutes=step)).isoformat()
    envelope = {"specversion": "1.0", "source": "bench", "type": f"resolution.{name}.v1"}
    return json.dumps({**envelope, "id": f"f-{at}-{step}", "time": time, "data": data}).encode()


def _fill(ledger: Ledger, told: list[bytes]) -> None:
    side = Side(ledger, 1)
    with ledger.up():
        asyncio.run(side.record(told))
        until_at_rest(ledger.data_dir)


def _rebuilt(ledger: Ledger, view: str) -> float:
    """Return the CPU seconds of a rebuild, without the server's."""
    with ledger.role("archive"):  # keeps the server running
        until_at_rest(ledger.data_dir)
        return ledger.timed("admin", "projections", "rebuild", view)


def measured(base: str, rounds: int, interactions: int) -> dict[str, Any]:
    """Return the microseconds of CPU an event: by view, version and order, one for each round."""
    told = list(facts(interactions))
    orders = {"empty": [], "in order": told, "reversed": told[::-1]}
    versions = {"base": version_of(base), "new": version_of(PRESENT)}
    with tempfile.TemporaryDirectory(prefix="resolution-ledger-bench-") as name, ExitStack() as stack:
        ledgers = dict[tuple[str, str], Ledger]()
        for side, version in versions.items():
            for order, some in orders.items():
                folder = Path(name).resolve() / side / order.replace(" ", "-")
                folder.mkdir(parents=True)
                ledger = ledgers[side, order] = Ledger(version, folder / "ledger")
                stack.callback(end_all, ledger.data_dir)
                progress(f"{side} ({version.name}): recording {len(some):,} facts {order}")
                _fill(ledger, some)
        views = dict[str, Any]()
        for view in VIEWS:
            runs: dict[str, dict[str, list[float]]] = {side: {order: [] for order in ORDERS} for side in versions}
            for turn in range(rounds):
                progress(f"{view}: round {turn + 1} of {rounds}")
                for order in ORDERS:
                    for side in versions:
                        runs[side][order].append(_rebuilt(ledgers[side, order], view) * 1e6 / len(told))
            views[view] = {"runs": runs, **_ratios(runs)}
    return {"base": base, "events": len(told), "cpu_us_per_event": views}


def _ratios(runs: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    net = {
        (side, order): median(by_order[order]) - median(by_order["empty"])
        for side, by_order in runs.items()
        for order in ORDERS[1:]
    }
    return {
        "base_us": net["base", "in order"],
        "new_us": net["new", "in order"],
        "new_by_base": net["new", "in order"] / net["base", "in order"],
        "reversed_by_in_order": net["new", "reversed"] / net["new", "in order"],
    }


def table_of(result: dict[str, Any]) -> Table:
    """Return one line a view."""
    table = Table(title=f"CPU an event, {result['events']:,} facts, less that of an empty ledger", title_justify="left")
    for heading in ("view", result["base"][:10], "present", "present / base", "reversed / in order"):
        table.add_column(heading, justify="left" if heading == "view" else "right")
    for view, one in result["cpu_us_per_event"].items():
        micros = [f"{one[name]:.1f} µs" for name in ("base_us", "new_us")]
        table.add_row(view, *micros, f"{one['new_by_base']:.2f}", f"{one['reversed_by_in_order']:.2f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=_BASE, metavar="COMMIT", help="default: that of benchmarks/baseline.txt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--interactions", type=int, default=10_000, help="each of about 5 facts")
    parser.add_argument("--json", action="store_true", help="the document on standard output, instead of a table")
    asked = parser.parse_args()
    result = measured(asked.base, asked.rounds, asked.interactions)
    if asked.json:
        json.dump(result, sys.stdout, indent=2)
    else:
        Console().print(table_of(result))


if __name__ == "__main__":
    main()
