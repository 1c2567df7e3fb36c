"""`audit flags` and `audit cases`: possible misuse, its rates by group, and backtests of rules."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from app.cli.as_of import as_of_option, position_of
from app.cli.commands.audit_trail import audit
from app.cli.main import command
from app.output import console, print_json, print_list, print_table, showing_progress
from app.runtime.session import Session
from app.runtime.views import read_view
from domain.abuse.fairness import Rate, ReviewedAction, shift_of, tenure_of
from domain.abuse.fairness import rates as all_rates
from domain.periods import zone_of
from ledger.encryption.keyring import Keyring
from ledger.store.cloudevents import parse_time
from projections.access import cases_without_names, without_names
from projections.csv_text import FIELDS
from projections.engine.pages import PageRequest
from projections.policy_history import policy_in_force, was_filled_in_history_mode
from projections.views.cases import read_cases
from projections.views.casework import read_where_done
from projections.views.flags import read_flags, read_proofs
from projections.views.people import read_people

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from app.output import OutputFormat
    from config.settings import Settings
    from domain.abuse.findings import Parameters
    from domain.serialization import JsonObject
    from projections.engine.storage import Row


@click.option("--rule", help="R1 to R18.")
@click.option("--about", metavar="KIND:ID", help="agent:<id> or customer:<id>")
@click.option("--status", type=click.Choice(["open", "confirmed", "coached", "dismissed"]))
@click.option("--all", "everything", is_flag=True, help="Also those dismissed more than a year ago.")
@click.option("--backtest", metavar="RULE", help="Replay history with other parameters, and show the difference.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="With --backtest: a parameter; repeatable.")
@click.option("--happened", is_flag=True, help="With --backtest: by event time, as in a ledger filled in history mode.")
@click.option("--rates", is_flag=True, help="Rates of flags by team, channel, shift and tenure.")
@as_of_option
@command(audit, lists=True)
async def flags(
    settings: Settings,
    rule: str | None,
    about: str | None,
    status: str | None,
    backtest: str | None,
    changes: tuple[str, ...],
    as_of: str | None,
    *,
    everything: bool,
    happened: bool,
    rates: bool,
    output: OutputFormat,
) -> None:
    """Flags of possible misuse, each with an explanation and the positions that prove it. A flag is no verdict."""
    if backtest is not None:
        if output == "csv":
            raise click.UsageError("--backtest prints no CSV: use --json")
        await _backtest(settings, backtest, _parameters(changes), happened=happened, as_json=output == "json")
        return
    if rates:
        await _rates(settings, output=output)
        return
    async with Session(settings, reads_only=True) as session:
        at = await position_of(session.log, as_of, await session.log.last_position()) if as_of else None
        now = datetime.now(UTC)
        answer = await read_view(
            session,
            "flags",
            lambda c: read_flags(c, now, rule=rule, status=status, page=PageRequest(at=at), everything=everything),
        )
        found = await without_names(session.log, await Keyring.open(session.client), answer.result)
    found = [one for one in found if about is None or about in one["about"]]  # after masking: a filter reveals no name
    position = answer.progress.anchor.position if at is None else at
    rows = [
        (one["flag_id"], one["rule"], one["raised"][:16], one["status"], ", ".join(one["about"]), one["explanation"])
        for one in found
    ]
    columns = ("flag", "rule", "raised", "status", "about", "why")
    print_list(output, found, f"Flags at position {position}", columns, rows, FIELDS["flags"], position=position)


def _parameters(changes: tuple[str, ...]) -> Any:
    found = {}
    for change in changes:
        name, sign, value = change.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            sign = ""
        if not sign:
            raise click.UsageError(f"--set {change!r}: write NAME=VALUE, such as fraction=0.95")
    return found


async def _backtest(settings: Settings, rule: str, changed: Parameters, *, happened: bool, as_json: bool) -> None:
    from consumers.guard.flag_writer import FlagWriter
    from ledger.store.subscription import Follower

    found: tuple[dict[str, JsonObject], ...] = ({}, {})
    async with Session(settings, reads_only=True) as session:
        happened = happened or await was_filled_in_history_mode(session.log)
        try:
            sides = FlagWriter(event_times=happened), FlagWriter({rule: changed}, event_times=happened)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        end = await session.log.last_position()
        follower = Follower(await session.connection("backtest"), session.log, "backtest")
        with showing_progress("replaying", "events", quiet=as_json) as progressed:
            async for batch in follower.batches(until=end):
                for side, flagged in zip(sides, found, strict=True):
                    for raised in side.take(batch):
                        if raised.finding.rule == rule:
                            flagged[raised.flag_id] = {
                                "flag_id": raised.flag_id,
                                "about": raised.finding.about,
                                "explanation": raised.finding.explanation,
                                "evidence": raised.finding.evidence,
                            }
                progressed(batch[-1].position, end)
        keys = await Keyring.open(session.client)
        before, after = [
            {one["flag_id"]: one for one in await without_names(session.log, keys, list(some.values()))}
            for some in found
        ]
    both = [one for name, one in after.items() if name in before]
    new = [one for name, one in after.items() if name not in before]
    gone = [one for name, one in before.items() if name not in after]
    if as_json:
        print_json({"rule": rule, "parameters": changed, "same": both, "new": new, "gone": gone, "position": end})
        return
    times = "event times" if happened else "recorded times"
    counts = f"{len(both)} flags as before, {len(new)} new, {len(gone)} gone"
    console.print(f"{rule} over {end:,} events, by {times}: {counts}.")
    rows = [
        (word, ", ".join(one["about"]), one["explanation"])
        for word, some in (("new", new), ("gone", gone))
        for one in some
    ]
    if rows:
        print_table("Differences", ("", "about", "why"), rows)


async def _rates(settings: Settings, *, output: OutputFormat) -> None:
    async with Session(settings, reads_only=True) as session:
        proofs = await read_view(session, "flags", read_proofs)
        work = await read_view(session, "casework", read_where_done)
        people = (await read_view(session, "people", read_people)).result
        policy = await policy_in_force(session.log)
    zone = zone_of("UTC" if policy is None else policy.time_zone)
    acts = [_reviewed_action(row, proofs.result.get(row["position"], frozenset()), people, zone) for row in work.result]
    found, position = all_rates(acts), work.progress.anchor.position
    rows = [
        (
            rate.rule,
            rate.dimension,
            rate.group,
            f"{rate.proving} of {rate.actions}",
            f"{rate.rate:.2%}",
            f"{rate.base_rate:.2%}",
            f"{rate.concerned} of {rate.people}",
            "FAR ABOVE" if rate.far_above else "",
        )
        for rate in found
    ]
    columns = ("rule", "by", "group", "actions that prove a flag", "rate", "all others", "people", "")
    title = f"Rates of flags at position {position}"
    print_list(
        output,
        [rate._asdict() for rate in found],
        title,
        columns,
        rows,
        " ".join(Rate._fields),
        numbers=(3, 4, 5, 6),
        position=position,
    )
    if output != "table":
        return
    for rate in found:
        if rate.far_above:
            console.print(
                f"{rate.rule} flags {rate.dimension} {rate.group} far more often than others: check if a custom, a "
                "rota or the rule's parameters explain it before any person is judged."
            )


def _reviewed_action(row: Row, rules: frozenset[str], people: dict[str, Row], zone: ZoneInfo) -> ReviewedAction:
    person, at = people.get(row["agent_id"], {}), parse_time(row["time"])
    joined = person.get("joined")
    team = row["team_id"] or next(iter(json.loads(person.get("team_ids") or "[]")), None)
    groups = {
        "team": team or "",
        "channel": row["channel"] or "",
        "shift": shift_of(at.astimezone(zone).hour),
        "tenure": tenure_of((at - parse_time(joined)).total_seconds() if joined else None),
    }
    return ReviewedAction(row["agent_id"], groups, rules)


@click.option("--below", is_flag=True, help="Those that wait below the line of the week's capacity.")
@click.option("--closed", is_flag=True, help="Those with all flags reviewed.")
@click.option("--subject", metavar="KIND:ID", help="agent:<id> or customer:<id>")
@as_of_option
@command(audit, lists=True)
async def cases(
    settings: Settings, subject: str | None, as_of: str | None, *, below: bool, closed: bool, output: OutputFormat
) -> None:
    """Cases of possible misuse: flags about one subject, best first, with the flag to look at first."""
    if below and closed:
        raise click.UsageError("--below and --closed name two kinds of cases: use one of them")
    status = "below" if below else "closed" if closed else "open"
    async with Session(settings, reads_only=True) as session:
        at = await position_of(session.log, as_of, await session.log.last_position()) if as_of else None
        answer = await read_view(session, "flags", lambda c: read_cases(c, status=status, page=PageRequest(at=at)))
        found = await cases_without_names(session.log, await Keyring.open(session.client), answer.result)
    # The filter comes after masking, so that it reveals no name.
    found.sort(key=lambda one: (-(one["score"] or 0.0), one["rank"]))
    found = [one | {"rank": place} for place, one in enumerate(found, 1) if subject in (None, one["subject"])]
    position = answer.progress.anchor.position if at is None else at
    rows = [
        (
            one["case_id"],
            one["rank"],
            one["subject"],
            ", ".join(one["rules"]),
            "" if one["expected_loss"] is None else " ".join(one["expected_loss"].values()),
            (one["opened"] or one["found"])[:16],
            one["explanation"],
        )
        for one in found
    ]
    columns = ("case", "rank", "subject", "rules", "expected loss", "since", "look at")
    title = {"open": "Open cases", "below": "Cases below the line", "closed": "Closed cases"}[status]
    print_list(output, found, f"{title} at position {position}", columns, rows, FIELDS["cases"], position=position)
