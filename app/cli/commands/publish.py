"""`publish` and `import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.main import CommandFinding, cli, command
from app.importing.importer import ImportFileError, import_events, load_mapping
from app.importing.mapping_parts import MappingError
from app.output import counting_progress, print_json, print_table
from app.publisher import Outcome, Outgoing, Publisher, dry_run, publish_all, read_lines
from app.runtime.roles import ensure_roles
from app.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from config.settings import Settings


@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", "dry", is_flag=True, help="Show rejections with their reasons; publish nothing.")
@command(cli)
async def publish(settings: Settings, file: Iterable[bytes], *, dry: bool, as_json: bool) -> None:
    """Publish CloudEvents from FILE, one JSON document a line; `-` is standard input."""
    outcome = Outcome()
    await _deliver(settings, read_lines(file), outcome, dry=dry, as_json=as_json, counts=True)


@click.option("--dry-run", "dry", is_flag=True, help="Show rejections with their reasons; publish nothing.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("mapping", metavar="MAPPING")  # decorators apply bottom up
@command(cli, "import")
async def import_history(
    settings: Settings, mapping: str, files: tuple[Path, ...], *, dry: bool, as_json: bool
) -> None:
    """Import history from CSV files (also .gz) by a column MAPPING: a YAML file or the name of a shipped one."""
    outcome = Outcome()
    try:
        columns = load_mapping(mapping)
        with counting_progress("reading", sum(path.stat().st_size for path in files), shown=not as_json) as read:
            events = list(import_events(columns, files, outcome, read))
    except (MappingError, ImportFileError) as error:
        raise click.UsageError(str(error)) from None
    await _deliver(settings, events, outcome, dry=dry, as_json=as_json, counts=False)


async def _deliver(
    settings: Settings, events: Iterable[Outgoing], outcome: Outcome, *, dry: bool, as_json: bool, counts: bool
) -> None:
    total = len(events) if isinstance(events, list) else None
    if dry:
        dry_run(_counted(events, outcome) if counts else events, outcome)
    else:
        async with Session(settings) as session, ensure_roles(session, "intake"):
            with counting_progress("publishing", total, shown=not as_json and sys.stderr.isatty()) as sent:
                publisher = await Publisher.open(session, outcome, sent)
                if counts:
                    await publish_all(publisher, events)
                else:
                    for event in events:
                        await publisher.add(event)
                    await publisher.settle()
    _report(outcome, dry=dry, as_json=as_json)


def _counted(events: Iterable[Outgoing], outcome: Outcome) -> Iterator[Outgoing]:
    for event in events:
        outcome.read += 1
        yield event


def _report(outcome: Outcome, *, dry: bool, as_json: bool) -> None:
    if as_json:
        print_json(outcome.wire() | ({"dry_run": True} if dry else {}))
    else:
        rows: list[tuple[str, object]] = [("read", outcome.read)]
        rows += [] if dry else [("recorded", outcome.recorded), ("duplicate", outcome.duplicate)]
        rows.append(("rejected", len(outcome.rejected)))
        rows += [(f"skipped: {reason}", count) for reason, count in sorted(outcome.skipped.items())]
        print_table("Outcome", ("", "events"), rows, numbers=(1,))
        if outcome.rejected:
            columns = ("line", "id", "code", "field", "what to do")
            print_table("Rejected", columns, outcome.rejected[:50], numbers=(0,))
    if outcome.rejected:
        raise CommandFinding("" if as_json else f"{len(outcome.rejected)} events were rejected")
