"""`audit`: the trail, why an action was allowed, and the events themselves."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from app.cli import cli, command
from app.moments import as_of_option, position_of
from app.output import fail, money_text, print_json, print_table
from app.session import Session
from app.views import opened, up_to_date
from ledger.follow import Anchor, Follower
from ledger.log import digest_of as digest
from projections import generations
from projections.explaining import explain as explain_action
from projections.trail import Trail, read_trail

if TYPE_CHECKING:
    from config.settings import Settings


@cli.group()
def audit() -> None:
    """Who did what, for whom, when, and why it was allowed."""


@click.option("--interaction", help="Events that name this interaction.")
@click.option("--action", help="Events that name this action.")
@click.option("--agent", help="Events that name this agent.")
@click.option("--customer", help="Events that name this customer.")
@click.option("--limit", type=int, help="At most so many.")
@click.option("--after", type=int, default=0, help="Only behind this position.")
@as_of_option
@command(audit)
async def trail(settings: Settings, limit: int | None, after: int, as_of: str | None, *, as_json: bool,
                **named: str | None) -> None:  # fmt: skip
    """Events in order, with positions; those that name all the ids given."""
    wanted = [(kind, name) for kind, name in named.items() if name is not None]
    async with Session(settings, reads_only=True) as session:
        await up_to_date(session, Trail.name)
        folder = generations.views_folder(session.data_dir)
        with opened(folder, Trail(), generations.live_generation(folder, Trail()) or 1) as connection:
            position = generations.read_progress(connection).anchor.position
            if as_of is not None:
                position = await position_of(session.log, as_of, position)
            items = read_trail(connection, wanted, after, limit, position)
    if as_json:
        print_json({"items": items, "position": position})
        return
    columns = ("position", "time", "who", "whom", "interaction", "what")
    rows = [
        (item["position"], item["time"][:19], item["who"], item["whom"], item["interaction_id"], item["what"])
        for item in items
    ]
    print_table(f"Trail at position {position}", columns, rows, numbers=(0,))


@click.argument("action")
@command(audit)
async def explain(settings: Settings, action: str, *, as_json: bool) -> None:
    """Why an ACTION was allowed: the request, the rules and the budget then, and what came after."""
    async with Session(settings, reads_only=True) as session:
        await up_to_date(session, Trail.name)
        folder = generations.views_folder(session.data_dir)
        with opened(folder, Trail(), generations.live_generation(folder, Trail()) or 1) as connection:
            found = await explain_action(session.log, connection, action)
            position = generations.read_progress(connection).anchor.position
    if found is None:
        fail(f"no action {action} is recorded", code="unknown_action", as_json=as_json)
        return
    if as_json:
        print_json(found | {"position_of_view": position})
    else:
        _tell(found)


def _tell(found: dict[str, Any]) -> None:
    done = found["action"]
    rows: list[tuple[str, object]] = [
        ("what", f"{done['kind']} of {money_text(done['amount'])} ({done.get('basis', 'goodwill')})"),
        ("why", done["reason"]),
        ("who", f"{done['agent_id']}" + (f", {done['role']}" if "role" in done else "")),
        ("whom", done.get("customer_id")),
        ("when", f"{found['time']}, recorded {found['recorded']} at position {found['position']}"),
    ]
    if "reported" in found:
        rows.append(("how", found["reported"]))
    if "policy" in found:
        rows.append(("asked by", f"{found['source']}, request {found['request_id']}"))
        rows.append(("policy", f"version {found['policy']['version']}"))
        for limit in done.get("limits", ()):
            most = money_text(limit["limit"]) if "limit" in limit else "unlimited"
            rows.append((f"limit {limit['name']}", f"{most}, used before {money_text(limit['used'])}"))
        for word in ("before", "after"):
            balance = found[f"budget_{word}"]
            rows.append(
                (f"budget {word}", f"{money_text(balance['remaining'])} left of {money_text(balance['granted'])}")
            )
    print_table(found["action_id"], ("", ""), rows)
    lines = found.get("interaction") or found["trail"]
    columns = ("position", "time", "who", "what")
    print_table(
        "Its interaction" if "interaction" in found else "Its events", columns,
        [(line["position"], line["time"][:19], line["who"], line["what"]) for line in lines], numbers=(0,),
    )  # fmt: skip


@click.option("--from", "start", help="From this position, or from this recorded time on.")
@click.option("--to", "end", help="Up to this position, or this recorded time.")
@command(audit)
async def replay(settings: Settings, start: str | None, end: str | None, *, as_json: bool) -> None:
    """The events, one JSON a line: the CloudEvent as recorded, plus its `position`."""
    del as_json  # a line is JSON in any case
    async with Session(settings, reads_only=True) as session:
        last = await session.log.last_position()
        first = 1 if start is None else await position_of(session.log, start, last, first=True)
        until = last if end is None else min(last, await position_of(session.log, end, last))
        if first > until:
            return
        reader = await session.connection("replay")
        before = await session.log.at(first - 1) if first > 1 else None
        anchor = Anchor(first - 1, digest(before.data)) if before else Anchor()
        follower = Follower(reader, session.log, "replay", anchor)
        write = sys.stdout.buffer.write
        async for batch in follower.batches(until=until):
            for recorded in batch:
                write(b'%s,"position":%d}\n' % (recorded.data[:-1], recorded.position))
        sys.stdout.buffer.flush()
