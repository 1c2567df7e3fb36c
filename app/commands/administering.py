"""`admin`: rejected events, projections, the state of everything."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from app.cli import Finding, cli, command
from app.output import console, fail, print_json, print_table
from app.session import Session
from app.views import opened
from config import topology
from consumers.intake import RejectedEntry
from domain.records import TYPE_OF
from domain.upkeep import ProjectionSkipped
from domain.wire import encode
from ledger import alarm as alarms
from ledger.cloudevents import encode_event
from ledger.errors import LedgerError
from ledger.follow import verify_anchor
from ledger.index import NameIndex
from ledger.keys import Keys
from ledger.log import Draft, Log
from ledger.notes import NoteError
from ledger.seal import SealError, check_positions
from ledger.streams import js_api, server_trouble
from ledger.tiles import MissingTileError
from projections import generations
from projections.catalogue import MODELS
from projections.engine import SKIPS_SUBJECT, rebuild

if TYPE_CHECKING:
    from config.settings import Settings

_LOW_DISK_BYTES = 1 << 30


@cli.group()
def admin() -> None:
    """Look after a ledger."""


@admin.group()
def rejected() -> None:
    """What could not be understood: look, fix, retry."""


@admin.group("projections")
def projections_group() -> None:
    """The views: how far they are, and building them anew."""


async def _entries(session: Session) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    keys = await Keys.open(session.client)
    async for batch in session.rejected.subject_batches(f"{topology.REJECTED_SUBJECT}.>"):
        for recorded in batch:
            entry = msgspec.json.decode(await keys.reveal(recorded.data), type=RejectedEntry)
            found.append(
                {
                    "number": recorded.position,
                    "source": entry.subject.rpartition(".")[2],
                    "code": entry.code,
                    "field": entry.field,
                    "message": entry.message,
                    "rejected": entry.recordedtime,
                    "headers": entry.headers,
                    "data": base64.b64decode(entry.data).decode(errors="replace"),
                    "raw": entry.data,
                    "subject": entry.subject,
                }
            )
    return found


_SHOWN = ("number", "source", "code", "field", "message", "rejected")


@command(rejected, "list")
async def list_rejected(settings: Settings, *, as_json: bool) -> None:
    """Rejected events, oldest first, each with its number."""
    async with Session(settings, reads_only=True) as session:
        items = [{name: entry[name] for name in _SHOWN} for entry in await _entries(session)]
        position = await session.log.last_position()
    if as_json:
        print_json({"items": items, "position": position})
    else:
        print_table("Rejected", _SHOWN, [tuple(item.values()) for item in items], numbers=(0,))


@click.argument("number", type=int)
@command(rejected)
async def show(settings: Settings, number: int, *, as_json: bool) -> None:
    """One rejected event: its original bytes, and why."""
    async with Session(settings, reads_only=True) as session:
        entry = next((entry for entry in await _entries(session) if entry["number"] == number), None)
    if entry is None:
        fail(f"no rejected event {number}", code="unknown_number", as_json=as_json)
    elif as_json:
        print_json({name: entry[name] for name in (*_SHOWN, "headers", "data")})
    else:
        print_table(f"Rejected {number}", ("", ""), [(name, entry[name]) for name in _SHOWN])
        console.print(entry["data"], markup=False, soft_wrap=True)


@click.argument("numbers", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@command(rejected)
async def retry(settings: Settings, numbers: tuple[int, ...], *, everything: bool, as_json: bool) -> None:
    """Put rejected events back into their inbox, for instance after an upgrade."""
    if not numbers and not everything:
        message = "name the numbers to retry, or --all"
        raise click.UsageError(message)
    async with Session(settings, reads_only=True) as session:
        chosen = [entry for entry in await _entries(session) if everything or entry["number"] in numbers]
        door = await Log.door(session.client, topology.INBOX)
        for entry in chosen:
            headers = entry["headers"] or None
            await door.append([Draft(entry["subject"], base64.b64decode(entry["raw"]), headers=headers)])
            body = {"seq": entry["number"], "no_erase": True}
            await js_api(session.client, f"STREAM.MSG.DELETE.{topology.REJECTED}", body)
    if as_json:
        print_json({"retried": len(chosen)})
    else:
        console.print(f"{len(chosen)} put back into their inbox; see `admin rejected list` for what comes again")


async def _states(session: Session) -> list[dict[str, Any]]:
    folder = generations.views_folder(session.data_dir)
    end = await session.log.last_position()
    states: list[dict[str, Any]] = []
    for name, cls in MODELS.items():
        generation = generations.live_generation(folder, cls())
        state: dict[str, Any] = {"projection": name, "generation": generation, "position": 0, "lag_events": end}
        state |= {"recorded": None, "stopped": None}
        if generation is not None:
            with opened(folder, cls(), generation) as connection:
                progress = generations.read_progress(connection)
            state |= {"position": progress.anchor.position, "lag_events": end - progress.anchor.position}
            state |= {"recorded": progress.recorded or None}
            state["stopped"] = progress.stopped._asdict() if progress.stopped else None
        states.append(state)
    return states


@command(projections_group)
async def status(settings: Settings, *, as_json: bool) -> None:
    """How far each view is, and where one stopped and why."""
    async with Session(settings, reads_only=True) as session:
        states = await _states(session)
        position = await session.log.last_position()
    if as_json:
        print_json({"items": states, "position": position})
    else:
        rows = [
            (s["projection"], s["generation"], s["position"], s["lag_events"], _stopped_text(s["stopped"]))
            for s in states
        ]
        print_table(f"The log ends at {position}", ("projection", "generation", "position", "lag", "stopped"), rows)
    if any(state["stopped"] for state in states):
        raise Finding("" if as_json else "a projection has stopped")


def _stopped_text(stop: dict[str, Any] | None) -> str:
    return f"at {stop['position']} ({stop['type']}): {stop['reason']}" if stop else ""


@click.argument("names", nargs=-1, type=click.Choice(sorted(MODELS)))
@command(projections_group, "rebuild")
async def rebuild_views(settings: Settings, names: tuple[str, ...], *, as_json: bool) -> None:
    """Build views anew from the whole log, beside the live ones, and then switch (all, or NAMES)."""
    built: list[dict[str, Any]] = []
    async with Session(settings, reads_only=True) as session:
        folder = generations.views_folder(session.data_dir)
        reader = await session.connection("rebuild")
        for name in names or sorted(MODELS):
            progress = await rebuild(MODELS[name](), folder, reader, session.log)
            built.append({"projection": name, "position": progress.anchor.position})
            if not as_json:
                console.print(f"{name} rebuilt up to position {progress.anchor.position}")
    if as_json:
        print_json({"items": built, "position": max(item["position"] for item in built)})


@click.option("--reason", required=True)
@click.option("--by", required=True, help="Who decides this.")
@click.argument("position", type=int)
@click.argument("name", type=click.Choice(sorted(MODELS)))
@command(projections_group)
async def skip(settings: Settings, name: str, position: int, reason: str, by: str, *, as_json: bool) -> None:
    """Let a stopped projection pass over one event; that is recorded as an event itself."""
    async with Session(settings, reads_only=True) as session:
        last = await session.log.last(SKIPS_SUBJECT)
        record = ProjectionSkipped(projection=name, position=position, reason=reason, by=by)
        identifier = f"projection.skipped {name} {position} {last.position if last else 0}"
        event = encode_event(
            "resolution-ledger", identifier, TYPE_OF[ProjectionSkipped], datetime.now(UTC), encode(record)
        )
        at = await session.log.append([Draft(SKIPS_SUBJECT, event, last.position if last else 0)])
    if as_json:
        print_json({"position": at})
    else:
        console.print(f"recorded at position {at}: {name} passes over {position}")


@command(admin)
async def doctor(settings: Settings, *, as_json: bool) -> None:
    """Check everything: server, streams, disk, views, seal, archive, inbox. Exit status 1 where something is wrong."""
    checks: list[dict[str, Any]] = []

    def note(what: str, says: str, *, ok: bool = True) -> None:
        checks.append({"check": what, "ok": ok, "says": says})

    async with Session(settings, reads_only=True) as session:
        server = session.client.connected_server_version
        trouble = await server_trouble(session.client)
        says = trouble or f"nats-server {server.major}.{server.minor}.{server.patch}, as declared"
        note("server and streams", says, ok=not trouble)
        free = shutil.disk_usage(session.data_dir).free if session.data_dir.exists() else 0
        enough = free > _LOW_DISK_BYTES or not session.embedded
        note("disk", f"{free >> 20} MiB free at {session.data_dir}", ok=enough)
        for name in ("intake", "decisions"):
            path = session.data_dir / "index" / f"{name}.sqlite"
            if path.exists():
                wrong = await _index_trouble(session, name, NameIndex(path))
                note(f"index {name}", wrong or "the log shows what it read", ok=not wrong)
        for state in await _states(session):
            stopped = state["stopped"]
            says = f"position {state['position']}, {state['lag_events']} behind" if not stopped else str(stopped)
            note(f"view {state['projection']}", says, ok=not stopped)
        for what, says, ok in await _keeping_checks(session):
            note(what, says, ok=ok)
        info = await js_api(session.client, f"CONSUMER.INFO.{topology.INBOX}.{topology.INTAKE_CONSUMER}")
        waiting = info.get("num_pending", 0) + info.get("num_ack_pending", 0)
        note("inbox", f"{waiting} waiting")
        count = len(await _entries(session))
        note("rejected", f"{count} kept; see `admin rejected list`")
    if as_json:
        print_json({"items": checks, "ok": all(check["ok"] for check in checks)})
    else:
        rows = [(check["check"], "ok" if check["ok"] else "WRONG", check["says"]) for check in checks]
        print_table("Doctor", ("check", "", "says"), rows)
    if not all(check["ok"] for check in checks):
        raise Finding


async def _keeping_checks(session: Session) -> list[tuple[str, str, bool]]:
    """The alarm, the seal and the archive: (what, what there is to say, whether it is well)."""
    from consumers.archive_service import archive_of
    from ledger.seal import seal_folder

    found = await alarms.look(session.client)
    checks = [("alarm", "off" if found is None else f"on since {found.at}: {found.reason}", found is None)]
    seal, end = seal_folder(session.data_dir), await session.log.last_position()
    try:
        newest = seal.checkpoint()
        size = newest.size if newest else 0
        await check_positions(session.log, seal.tiles(size), [size] if size else [])
    except (SealError, NoteError, MissingTileError) as error:
        return [*checks, ("seal", str(error), False)]
    archived = archive_of(session.data_dir).last_position
    return [*checks, ("seal", f"{size} of {end} positions", True), ("archive", f"{archived} of {end} positions", True)]


async def _index_trouble(session: Session, name: str, index: NameIndex) -> str:
    try:
        for anchor in index.heads().values():
            await verify_anchor(session.log, anchor, name)
    except LedgerError as error:
        return str(error)
    finally:
        index.close()
    return ""


@click.option("--json", "as_json", is_flag=True, hidden=True)
@admin.command()
def asyncapi(*, as_json: bool) -> None:
    """Print the AsyncAPI document of everything upstream systems may publish and ask."""
    from consumers.asyncapi import asyncapi_document

    del as_json
    click.echo(json.dumps(asyncapi_document(), indent=2))


@click.option("--into", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Write it into this file.")
@admin.command(hidden=True)
def rules(into: Path | None) -> None:
    """Print the table of rules, each with an example that was decided just now."""
    from app.policy_reference import rule_table

    if into is None:
        click.echo(rule_table(), nl=False)
        return
    before, begin, rest = into.read_text().partition("<!-- rules -->\n")
    _, end, after = rest.partition("<!-- end of rules -->\n")
    into.write_text(f"{before}{begin}{rule_table()}{end}{after}")


@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for machines.")
@admin.command()
def schema(*, as_json: bool) -> None:
    """Print the views' tables for SQL dashboards: names, types, units, meaning (docs/sql.md)."""
    from projections.schema import columns, schema_text

    if as_json:
        print_json({"items": [column._asdict() for column in columns()]})
    else:
        click.echo(schema_text(), nl=False)


@admin.command(hidden=True)
def reference() -> None:
    """Print the reference of all commands."""
    from app.reference import reference as written

    click.echo(written(), nl=False)
