"""`publish` and `import`; a dry run without a ledger loads nothing that speaks NATS, so that it starts quickly."""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from app.cli.main import CommandFinding, cli, command
from app.outcome import Outcome
from app.output import console, counting_progress, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from app.importing.database import Fence
    from app.importing.import_report import ImportReport
    from app.importing.importer import Import
    from app.importing.mapping import ImportMapping
    from app.outcome import Outgoing
    from app.runtime.session import Session
    from config.settings import Settings
    from ledger.encryption.keyring import Key

_HASHES = "import:addresses"
"""The owner of the key of `keyed_hash` and `email_hash`."""
_SHOWN_EVENTS, _SHOWN_REJECTIONS = 5, 50
_CHUNK = 2_000


class _Purpose(NamedTuple):
    """The purpose of a call: to check, to show, or to record."""

    dry: bool
    preview: bool


@click.option("--dry-run", "dry", is_flag=True, help="Say what would be recorded, and publish nothing.")
@click.option("--preview", is_flag=True, help="Show the first events of each type as a table, and publish nothing.")
@click.option(
    "--guess",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Propose a mapping for FILE: a shipped one that fits, else a commented skeleton.",
)
@click.option("--retract", metavar="RUN", help="Correct each event that this run recorded to null.")
@click.option("--memory", type=click.IntRange(64), default=192, show_default=True, help="Megabytes for the SELECTs.")
@click.option(
    "--time-limit", type=click.IntRange(1), default=600, show_default=True, help="Seconds that one SELECT may take."
)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("mapping", metavar="[MAPPING]", required=False)  # decorators apply bottom up
@command(cli, "import")
async def import_history(
    settings: Settings,
    mapping: str | None,
    files: tuple[Path, ...],
    *,
    dry: bool,
    preview: bool,
    guess: Path | None,
    retract: str | None,
    memory: int,
    time_limit: int,
    as_json: bool,
) -> None:
    """Import history from FILES (CSV, JSON Lines, Parquet, Excel) by a MAPPING in SQL: a file, or a shipped one."""
    from app.importing.csv_rows import ImportFileError
    from app.importing.mapping import MappingError, load_mapping

    alone = guess is not None or retract is not None
    if alone == bool(mapping) or alone == bool(files) or (guess is not None and retract is not None):
        raise click.UsageError("give MAPPING and FILES, or --guess FILE, or --retract RUN")
    try:
        if guess is not None:
            _propose(settings, guess, as_json=as_json)
        elif retract is not None:
            await _retract(settings, retract, as_json=as_json)
        else:
            from app.importing.database import Fence

            fence = Fence(memory, float(time_limit))
            await _import(settings, load_mapping(mapping or ""), files, fence, _Purpose(dry, preview), as_json=as_json)
    except MappingError as error:
        raise click.UsageError(str(error)) from None
    except ImportFileError as error:
        if as_json:
            print_json({"error": {"code": "file", "message": str(error)}})
        raise CommandFinding(str(error)) from None


def _propose(settings: Settings, path: Path, *, as_json: bool) -> None:
    from app.importing.database import Fence, ImportDatabase
    from app.importing.proposal import propose
    from app.importing.workspace import workspace

    with workspace(settings.folder) as folder, ImportDatabase(folder, str, Fence()) as database:
        found = propose(path, database)
    if as_json:
        print_json({"shipped": found.shipped or None, "mapping": found.text})
        return
    if found.shipped:
        click.echo(f"# The shipped mapping {found.shipped} fits: resolution-ledger import {found.shipped} {path.name}")
    click.echo(found.text, nl=False)


async def _retract(settings: Settings, run: str, *, as_json: bool) -> None:
    from app.importing.retraction import retract
    from app.publisher import Publisher
    from app.runtime.roles import ensure_roles
    from app.runtime.session import Session

    outcome = Outcome()
    async with Session(settings, reads_only=True) as session, ensure_roles(session, "intake"):
        await retract(session, run, await Publisher.open(session, outcome, lambda _: None))
    document = {
        "run": run,
        "retracted": outcome.recorded,
        "duplicate": outcome.duplicate,
        "rejected": outcome.rejected_count,
    }
    if as_json:
        print_json({**document, "rejections": [one._asdict() for one in outcome.rejected]})
    else:
        print_table("Retracted", ("", "events"), list(document.items()), numbers=(1,))
    if outcome.rejected_count:
        raise CommandFinding("" if as_json else f"{outcome.rejected[0].message}")


async def _import(
    settings: Settings,
    mapping: ImportMapping,
    files: Sequence[Path],
    fence: Fence,
    purpose: _Purpose,
    *,
    as_json: bool,
) -> None:
    from app.importing.import_report import ImportReport
    from app.importing.importer import opened_import

    report = ImportReport()
    async with AsyncExitStack() as stack:
        ledger = _Ledger(settings, stack)
        key = await ledger.hash_key(report, creates=not (purpose.dry or purpose.preview)) if mapping.hashes else None
        hash_of = key.hash_of if key is not None else str
        made = stack.enter_context(opened_import(mapping, files, settings.folder, report, hash_of, fence))
        size = sum(path.stat().st_size for path in files)
        with counting_progress("reading", size, shown=not as_json) as read:
            await asyncio.to_thread(made.load, read)
        report.run = made.run
        if purpose.preview:
            _preview(made, as_json=as_json)
            return
        is_seen = not as_json and sys.stderr.isatty()
        with counting_progress("checking" if purpose.dry else "publishing", made.rows, shown=is_seen) as sent:
            if purpose.dry:
                await _count(made, await ledger.existing(), sent)
            else:
                await _publish(made, await ledger.opened(), sent)
    _print_report(report, dry=purpose.dry, as_json=as_json)


class _Ledger:
    """The ledger of an import, opened when it is first needed."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        self._settings, self._stack = settings, stack
        self._session: Session | None = None

    async def opened(self) -> Session:
        """Return the ledger's session; an embedded ledger is created if there is none."""
        return await self._session_of(reads_only=False)

    async def existing(self) -> Session | None:
        """Return the ledger's session, or ``None`` if there is no ledger yet."""
        here = self._settings.folder / "server" / "passwords.json"
        if self._settings.nats_url is None and not here.exists():
            return None
        return await self._session_of(reads_only=True)

    async def _session_of(self, *, reads_only: bool) -> Session:
        from app.runtime.session import Session

        if self._session is None:
            self._session = await self._stack.enter_async_context(Session(self._settings, reads_only=reads_only))
        return self._session

    async def hash_key(self, report: ImportReport, *, creates: bool) -> Key:
        """Return the ledger's key of hashed addresses; a dry run makes one of its own where there is none."""
        from ledger.encryption.keyring import Key, Keyring

        session = await (self.opened() if creates else self.existing())
        if session is not None:
            keys = await Keyring.open(session.client)
            if creates or await keys.has_key(_HASHES):
                return (await keys.ensure([_HASHES]))[_HASHES]
        report.warnings.append("the ledger has no key for hashes yet: those of this run are not the final ones")
        return Key("", secrets.token_bytes(32))


async def _publish(made: Import, session: Session, progressed: Callable[[int], None]) -> None:
    from app.publisher import Publisher
    from app.runtime.roles import ensure_roles

    async with ensure_roles(session, "intake"):
        publisher = await Publisher.open(session, made.report, progressed, made.run)
        for event in made.events():
            if not made.repeats(event):
                await publisher.add(event)
        await publisher.settle()


async def _count(made: Import, session: Session | None, progressed: Callable[[int], None]) -> None:
    """Count the events that would be recorded."""
    known = None
    if session is not None:
        from app.importing.known_events import KnownEvents

        known = KnownEvents(made)
        await known.read(session)
    new = (event for event in made.events() if not made.repeats(event))
    while waiting := list(islice(new, _CHUNK)):
        made.report.recorded += len(waiting if known is None else known.sorted_out(waiting))
        progressed(len(waiting))


def _preview(made: Import, *, as_json: bool) -> None:
    found = [(name, events) for name, events in made.preview(_SHOWN_EVENTS)]
    if as_json:
        items = [
            {"type": name, "file": one.file, "line": one.line, "event": msgspec.json.decode(one.data)}
            for name, events in found
            for one in events
        ]
        print_json({"items": items, "rejections": [one._asdict() for one in made.report.rejected]})
        return
    for name, events in found:
        documents = [msgspec.json.decode(one.data) for one in events]
        fields = list(dict.fromkeys(field for one in documents for field in one["data"]))
        rows = [
            (one.line, document["id"], document["time"], *(_cell(document["data"].get(field)) for field in fields))
            for one, document in zip(events, documents, strict=True)
        ]
        print_table(name, ("line", "id", "time", *fields), rows, numbers=(0,))
    _print_rejections(made.report)


def _cell(value: object) -> object:
    if isinstance(value, dict) and set(value) == {"amount", "currency"}:
        return f"{value['amount']} {value['currency']}"
    return value


def _print_report(report: ImportReport, *, dry: bool, as_json: bool) -> None:
    if as_json:
        print_json(report.wire() | ({"dry_run": True} if dry else {}))
    else:
        would = "would be " if dry else ""
        rows: list[tuple[str, object]] = [("read", report.read), (f"{would}recorded", report.recorded)]
        rows.append((f"{would}duplicate", report.duplicate))
        rows += [("would be rejected, id reused", report.reused)] if dry else []
        rows.append((f"{would}rejected", report.rejected_count))
        rows += [(f"skipped: {reason}", count) for reason, count in sorted(report.skipped.items())]
        print_table(f"Dry run {report.run}" if dry else f"Run {report.run}", ("", "events"), rows, numbers=(1,))
        _print_types(report)
        for warning in report.warnings:
            console.print(f"Warning: {warning}", markup=False)
        for nothing in report.nothing:
            console.print(f"Nothing: {nothing}", markup=False)
        _print_rejections(report)
    if report.rejected_count:
        raise CommandFinding("" if as_json else f"{report.rejected_count} events were rejected")


def _print_types(report: ImportReport) -> None:
    rows = []
    for name, summary in sorted(report.types.items()):
        document = summary.wire(name)
        totals = document["totals"]
        assert isinstance(totals, list)
        text = ", ".join(f"{one['field']} {one['amount']} {one['currency']}" for one in totals)
        rows.append((name, summary.events, summary.first, summary.last, text))
    if rows:
        print_table("Valid events by type", ("type", "events", "first", "last", "totals"), rows, numbers=(1,))


def _print_rejections(report: ImportReport) -> None:
    if not report.rejected_count:
        return
    kinds = [
        (kind.count, kind.code, kind.field, ", ".join(map(str, kind.lines)), kind.message) for kind in report.kinds()
    ]
    print_table("Rejected, by kind", ("events", "code", "column", "first lines", "first message"), kinds, numbers=(0,))
    several = len({one.file for one in report.rejected}) > 1
    columns = ("line", "id", "code", "column", "what to do", *(["file"] if several else []))
    rows = [one if several else one[:-1] for one in report.rejected[:_SHOWN_REJECTIONS]]
    print_table("Rejected", columns, rows, numbers=(0,))


@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", "dry", is_flag=True, help="Show rejections with their reasons; publish nothing.")
@command(cli)
async def publish(settings: Settings, file: Iterable[bytes], *, dry: bool, as_json: bool) -> None:
    """Publish CloudEvents from FILE, one JSON document a line; `-` is standard input."""
    from app.publisher import Publisher, dry_run, publish_all, read_lines
    from app.runtime.roles import ensure_roles
    from app.runtime.session import Session

    outcome = Outcome()
    events = read_lines(file)
    if dry:
        dry_run(_counted(events, outcome), outcome)
    else:
        async with Session(settings) as session, ensure_roles(session, "intake"):
            with counting_progress("publishing", None, shown=not as_json and sys.stderr.isatty()) as sent:
                await publish_all(await Publisher.open(session, outcome, sent), events)
    _report_published(outcome, dry=dry, as_json=as_json)


def _counted(events: Iterable[Outgoing], outcome: Outcome) -> Iterator[Outgoing]:
    for event in events:
        outcome.read += 1
        yield event


def _report_published(outcome: Outcome, *, dry: bool, as_json: bool) -> None:
    if as_json:
        print_json(outcome.wire() | ({"dry_run": True} if dry else {}))
    else:
        rows: list[tuple[str, object]] = [("read", outcome.read)]
        rows += [] if dry else [("recorded", outcome.recorded), ("duplicate", outcome.duplicate)]
        rows.append(("rejected", outcome.rejected_count))
        rows += [(f"skipped: {reason}", count) for reason, count in sorted(outcome.skipped.items())]
        print_table("Outcome", ("", "events"), rows, numbers=(1,))
        if outcome.rejected_count:
            columns = ("line", "id", "code", "field", "what to do")
            print_table("Rejected", columns, [one[:-1] for one in outcome.rejected[:50]], numbers=(0,))
    if outcome.rejected_count:
        raise CommandFinding("" if as_json else f"{outcome.rejected_count} events were rejected")
