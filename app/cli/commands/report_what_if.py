"""`report what-if`: another policy applied to the recorded history."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.commands.report_views import report
from app.cli.figures import quantile_text
from app.cli.main import command
from app.output import console, print_json, print_table, showing_progress
from app.policy_file import check_policy_file
from app.runtime.session import Session
from app.runtime.views import read_view
from domain.money import money_text
from ledger.store.cloudevents import parse_time
from projections.policy_history import policy_in_force, published_policies

if TYPE_CHECKING:
    from datetime import datetime

    from config.settings import Settings
    from domain.policy.model import Policy
    from projections.reports.policy_simulation import WhatIfReport

_IN_FORCE = "in-force"
_ROWS = 15


@click.option("--flags", is_flag=True, help="Run the guard on both histories, and compare the flags.")
@click.option("--shadow", is_flag=True, help="Instead: the records of the newest policy in shadow mode.")
@click.option("--since", help="Apply it from this time on. [default: the first decision under the policy in force]")
@click.argument("policy", required=False)
@command(report)
async def what_if(
    settings: Settings, policy: str | None, since: str | None, *, shadow: bool, flags: bool, as_json: bool
) -> None:
    """Compare recorded decisions with those that another POLICY (a file, or in-force) would have made.

    Reads the log and records nothing.
    """
    from ledger.store.subscription import Follower
    from projections.reports.policy_simulation import PolicySimulation, try_policy, try_quickly

    if shadow == (policy is not None):
        raise click.UsageError("name a POLICY (a file, or in-force), or use --shadow")
    begins = _time(since)
    async with Session(settings, reads_only=True) as session:
        tried = None if policy is None else _read(policy, await policy_in_force(session.log))
        try:
            trying = PolicySimulation(tried, await published_policies(session.log), begins, flags=flags)
        except LookupError:
            raise click.UsageError("--shadow: no policy was published with `mode: shadow`") from None
        end = await session.log.last_position()
        with showing_progress("judging", "events", quiet=as_json) as progressed:
            if flags or shadow:
                batches = Follower(await session.connection("what-if"), session.log, "what-if").batches(until=end)
                found = await try_policy(session.log, batches, trying, lambda position: progressed(position, end))
            else:
                read = partial(read_view, session)
                found = await try_quickly(read, trying, lambda position: progressed(position, end))
    if as_json:
        print_json(found)
        return
    _print(found, since)


def _time(since: str | None) -> datetime | None:
    try:
        return None if since is None else parse_time(since)
    except ValueError:
        raise click.UsageError(f"--since {since!r}: a time such as 2026-11-21T10:00:00Z") from None


def _read(name: str, in_force: Policy | None) -> Policy:
    if name == _IN_FORCE:
        if in_force is None:
            raise click.UsageError("no policy is in force: name a file")
        return in_force
    path = Path(name)
    if not path.is_file():
        raise click.UsageError(f"POLICY {name!r}: no such file")
    checked = check_policy_file(path)
    if checked.policy is None:
        first = next(one for one in checked.findings if one.serious)
        raise click.UsageError(f"{name}, line {first.line}, {first.field}: {first.message}")
    return checked.policy


def _print(found: WhatIfReport, since: str | None) -> None:
    if not found["decisions"]:
        console.print(f"No decision to judge (position {found['position']}).")
        return
    begins = f"since {since}" if since else f"since position {found['since_position']}"
    console.print(
        f"{found['decisions']:,} decisions {begins} (up to position {found['position']:,}): "
        f"{found['differences']:,} would have been different."
    )
    rows: list[tuple[object, ...]] = [
        (one["kind"], one["then"], one["would_be"], one["n"], money_text(one["amount"]))
        for one in found["changes"]
        if one["then"] != one["would_be"]
    ]
    if rows:
        print_table("Different decisions", ("kind", "was", "would be", "times", "amount"), rows, numbers=(3, 4))
    print_table(
        "Goodwill by period",
        ("period", "spent", "would be spent"),
        [
            (one["period"], money_text(one["spent"]), money_text(one["would_be_spent"]))
            for one in found["spend"][-_ROWS:]
        ],
        numbers=(1, 2),
    )
    saved = found["escalations_saved"]
    if saved["given_at_once"]:
        median = quantile_text(saved["median_hours"], saved["median_hours_interval"], saved["waited"])
        console.print(
            f"{saved['given_at_once']:,} would have been given at once; {saved['n']:,} of them were escalated, and "
            f"waited {saved['hours_not_waited']:,.1f} h together (median {median or 'unknown'})."
        )
        rows = [(ended["outcome"], ended["n"], money_text(ended["amount"])) for ended in saved["outcomes"]]
        print_table("Their actual outcomes", ("", "times", "amount"), rows, numbers=(1, 2))
    if found["limits_hit"]:
        rows = [(one["rule"], one["then"], one["would_be"]) for one in found["limits_hit"]]
        print_table("Limits that applied", ("rule", "was", "would be"), rows, numbers=(1, 2))
    if found["flags"] is not None:
        flags = found["flags"]
        rows = [(one["rule"], one["raised"], one["would_be_raised"]) for one in flags["by_rule"]]
        if rows:
            print_table("Flags", ("rule", "was", "would be"), rows, numbers=(1, 2))
        console.print(f"Flags: {flags['new']} would be new, {flags['gone']} would not have been raised.")
    if found["unknown_people"]:
        console.print(f"{found['unknown_people']:,} decisions are about people without an employee record.")
    console.print("Caveats: " + "; ".join(found["caveats"]) + ".")
