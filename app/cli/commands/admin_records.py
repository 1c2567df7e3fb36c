"""`admin rejected`, `projections`, `policy`, `init`, and the descriptions of events and views."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from app.cli.commands.admin import admin
from app.cli.commands.decide import send, valid_policy
from app.cli.main import CommandFinding, command
from app.output import console, fail, print_json, print_list, print_result, print_table, showing_progress
from app.runtime.child_processes import lower_priority, while_parent_lives
from app.runtime.plugins import load_views
from app.runtime.projection_states import ProjectionState, projection_states
from app.runtime.session import Session
from app.runtime.stream_setup import PreparedStream, raise_copies
from app.runtime.view_builds import ViewBuilds, build_here
from config import topology
from consumers.rejections import RejectedEntry
from domain.events.administration import ProjectionSkipped
from domain.events.decisions import TYPE_OF
from domain.serialization import encode
from ledger.encryption.keyring import Keyring
from ledger.store.cloudevents import encode_event
from ledger.store.content_modes import RECEIVED_HEADER
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api
from projections.engine.projector import SKIPS_SUBJECT
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.output import OutputFormat
    from config.settings import Settings
    from domain.serialization import Json, JsonObject

_SOURCE = "cli"


@admin.group()
def rejected() -> None:
    """Rejected events: list, show, retry."""


@admin.group("projections")
def projections_group() -> None:
    """The views: their state, and rebuilding them."""


async def _entries(session: Session) -> dict[int, RejectedEntry]:
    """Return the rejected events by their numbers, oldest first."""
    keys, found = await Keyring.open(session.client), dict[int, RejectedEntry]()
    async for batch in session.rejected.subject_batches(f"{topology.REJECTED_SUBJECT}.>"):
        for recorded in batch:
            data = await keys.decrypt_fields(recorded.data)
            entry = found[recorded.position] = msgspec.json.decode(data, type=RejectedEntry)
            entry.from_operator = f".{topology.IMPORT}." in recorded.subject
    return found


_SHOWN = ("number", "source", "code", "field", "message", "rejected")


def _shown(number: int, entry: RejectedEntry) -> JsonObject:
    source = entry.subject.rpartition(".")[2]
    values = (number, source, entry.code, entry.field, entry.message, entry.recordedtime)
    return dict(zip(_SHOWN, values, strict=True))


@command(rejected, "list", lists=True)
async def list_rejected(settings: Settings, *, output: OutputFormat) -> None:
    """List rejected events, oldest first, each with its number."""
    async with Session(settings, reads_only=True) as session:
        items = [_shown(number, entry) for number, entry in (await _entries(session)).items()]
        position = await session.log.last_position()
    rows = [tuple(item.values()) for item in items]
    print_list(output, items, "Rejected", _SHOWN, rows, " ".join(_SHOWN), numbers=(0,), position=position)


@click.argument("number", type=int)
@command(rejected)
async def show(settings: Settings, number: int, *, as_json: bool) -> None:
    """Show one rejected event: its original bytes, and the reason."""
    async with Session(settings, reads_only=True) as session:
        entry = (await _entries(session)).get(number)
    if entry is None:
        fail(f"no rejected event {number}", code="unknown_number", as_json=as_json)
    shown, data = _shown(number, entry), base64.b64decode(entry.data).decode(errors="replace")
    if as_json:
        headers = {name: value.encode(errors="replace").decode() for name, value in entry.original_headers}
        print_json({**shown, "headers": headers, "data": data})
    else:
        print_table(f"Rejected {number}", ("", ""), list(shown.items()))
        console.print(data, markup=False, soft_wrap=True)


def _draft(entry: RejectedEntry) -> Draft:
    """Return a rejected message as received, with its first arrival time, for the inbox that it came from.

    Headers for the server (batches, expectations, message ids) are left out, since they were for the first delivery.
    """
    headers = [
        (name, value)
        for name, value in entry.original_headers
        if name.lower() != RECEIVED_HEADER and not name.lower().startswith("nats-")
    ]
    if entry.received:
        headers.append((RECEIVED_HEADER, entry.received))
    subject = entry.subject
    if entry.from_operator:
        subject = f"{topology.IMPORT_SUBJECT}.{subject.rpartition('.')[2]}"
    return Draft(subject, base64.b64decode(entry.data), headers=headers)


@click.argument("numbers", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All rejected events.")
@command(rejected)
async def retry(settings: Settings, numbers: tuple[int, ...], *, everything: bool, as_json: bool) -> None:
    """Put rejected events back into their inbox, e.g. after an upgrade."""
    if not numbers and not everything:
        raise click.UsageError("name the numbers to retry, or --all")
    async with Session(settings, reads_only=True) as session:
        entries = await _entries(session)
        chosen = [number for number in entries if everything or number in numbers]
        inbox_log = await Log.unstamped(session.client, topology.INBOX)
        for number in chosen:
            await inbox_log.append([_draft(entries[number])])
            body = {"seq": number, "no_erase": True}
            await js_api(session.client, f"STREAM.MSG.DELETE.{topology.REJECTED}", body)
    text = f"{len(chosen)} put back into their inbox; see `admin rejected list` for repeated rejections"
    print_result({"retried": len(chosen)}, text, as_json=as_json)


@command(projections_group, lists=True)
async def status(settings: Settings, *, output: OutputFormat) -> None:
    """Show the position and lag of each view, and the event at which one has stopped."""
    async with Session(settings, reads_only=True) as session:
        states = await projection_states(session)
        position = await session.log.last_position()
    rows = [(one.projection, one.generation, one.position, one.lag_events, _stop_text(one.stopped)) for one in states]
    columns = ("projection", "generation", "position", "lag", "stopped")
    items, fields = [one._asdict() for one in states], " ".join(ProjectionState._fields)
    print_list(output, items, f"The log ends at {position}", columns, rows, fields, position=position)
    if any(one.stopped for one in states):
        raise CommandFinding("" if output == "json" else "a projection has stopped")


def _stop_text(stop: Mapping[str, Json] | None) -> str:
    return f"at {stop['position']} ({stop['type']}): {stop['reason']}" if stop else ""


class _ViewName(click.Choice[str]):
    """The name of a view; help shows the built-in ones, and those of other packages are loaded when one is given."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        load_views()
        return value if value in MODELS else super().convert(value, param, ctx)


@click.argument("names", nargs=-1, type=_ViewName(sorted(MODELS)))
@command(projections_group, "rebuild")
async def rebuild_views(settings: Settings, names: tuple[str, ...], *, as_json: bool) -> None:
    """Rebuild views (all, or NAMES) from the whole log beside the live ones, then switch.

    Old events are read from the archive of the data directory, where there is one. Each view is built in a process of
    its own, as many at a time as there are processors.
    """
    load_views()
    wanted = tuple(dict.fromkeys(names or sorted(MODELS)))
    reached = dict.fromkeys(wanted, 0)
    async with Session(settings, reads_only=True) as session:
        end, builds = await session.log.last_position(), ViewBuilds(settings)
        with showing_progress("rebuilding", "events", quiet=as_json) as show:

            async def build(name: str) -> None:
                async def progressed(position: int) -> None:
                    reached[name] = position
                    show(sum(reached.values()), end * len(wanted))

                await builds.build(name, progressed, anew=True)
                if not as_json:
                    console.print(f"{name} rebuilt up to position {reached[name]}")

            ends = await asyncio.gather(*map(build, wanted), return_exceptions=True)
    if faults := [one for one in ends if one is not None]:
        for fault in faults[1:]:
            click.echo(f"resolution-ledger: {fault}", err=True)
        raise faults[0]
    if as_json:
        items = [{"projection": name, "position": position} for name, position in reached.items()]
        print_json({"items": items, "position": max(reached.values())})


@click.option("--with-parent", is_flag=True, required=True, help="End when standard input ends.")
@click.option("--anew", is_flag=True, help="Build a new generation, and switch to it.")
@click.argument("name", type=_ViewName(sorted(MODELS)))
@command(projections_group, json=False, hidden=True)
async def build(settings: Settings, name: str, *, anew: bool, with_parent: bool) -> None:
    """Bring the view NAME to the end of the log in this process, and write its positions, for another process."""
    assert with_parent  # click requires it
    lower_priority()
    load_views()
    async with Session(settings, reads_only=True, creates=False, below_up=True) as session:
        await while_parent_lives(build_here(session, name, anew=anew))


@click.option("--reason", required=True)
@click.option("--by", required=True, help="The person responsible.")
@click.argument("position", type=int)
@click.argument("name", type=_ViewName(sorted(MODELS)))
@command(projections_group)
async def skip(settings: Settings, name: str, position: int, reason: str, by: str, *, as_json: bool) -> None:
    """Let a stopped projection skip one event; the skip is recorded as an event."""
    async with Session(settings, reads_only=True) as session:
        end = await session.log.last_position()
        if not 1 <= position <= end:
            raise click.UsageError(f"there is no event at position {position}: the log goes from 1 to {end}")
        last = await session.log.last(SKIPS_SUBJECT)
        record = ProjectionSkipped(projection=name, position=position, reason=reason, by=by)
        identifier = f"projection.skipped {name} {position} {last.position if last else 0}"
        event = encode_event(
            "resolution-ledger", identifier, TYPE_OF[ProjectionSkipped], datetime.now(UTC), encode(record)
        )
        at = await session.log.append([Draft(SKIPS_SUBJECT, event, last.position if last else 0)])
    print_result({"position": at}, f"recorded at position {at}: {name} skips {position}", as_json=as_json)


@click.option("--json", "as_json", is_flag=True, hidden=True)
@admin.command()
def asyncapi(*, as_json: bool) -> None:
    """Print the AsyncAPI document of the events and requests of sources."""
    from consumers.asyncapi import asyncapi_text

    del as_json
    click.echo(asyncapi_text(), nl=False)


@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for machines.")
@admin.command()
def schema(*, as_json: bool) -> None:
    """Print the views' tables for SQL dashboards: names, types, units, meaning (docs/reference/sql.md)."""
    from projections.schema_docs import columns, schema_text

    load_views()
    if as_json:
        print_json({"items": [column._asdict() for column in columns()]})
    else:
        click.echo(schema_text(), nl=False)


@command(admin, lists=True)
async def init(settings: Settings, *, output: OutputFormat) -> None:
    """Create the missing streams of a ledger on the NATS server; no other command creates them on your server.

    With --replicas 3 or 5, existing streams, keys and consumers get as many copies, in the cluster of --nats-url. Its
    user must be the operator. Copies are never removed. The command may be repeated.
    """
    async with Session(settings, creates=True) as session:
        operator = await session.connection("init", user="operator")
        states = await raise_copies(operator, settings.replicas, session.created)
    items = [state._asdict() for state in states]
    print_list(
        output,
        items,
        "Streams",
        ("stream", "copies", ""),
        [tuple(state) for state in states],
        " ".join(PreparedStream._fields),
        numbers=(1,),
    )
    if output == "table" and any(state.done == "raised" for state in states):
        console.print("The servers are making the new copies; `admin doctor` shows when all are complete.")


@admin.group("policy")
def policy_group() -> None:
    """Publish a policy past its governance."""


@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--break-glass", is_flag=True, required=True, help="Confirm it; the guard flags it.")
@click.option("--reason", required=True, help="Why governance cannot wait.")
@click.option("--published-by", "--by", "by", default="operator", show_default=True, help="The operator.")
@command(policy_group)
async def publish(settings: Settings, file: Path, break_glass: bool, reason: str, by: str, *, as_json: bool) -> None:
    """Publish the policy in FILE without a proposal; it is recorded, and flagged by the guard (R12)."""
    document = valid_policy(file, as_json=as_json).document
    fields = {"policy": document, "published_by": by, "break_glass": break_glass, "reason": reason}
    await send(settings, "policy", _SOURCE, fields, as_json=as_json, access=f"break-glass: {reason}")
