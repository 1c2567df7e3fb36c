"""What commands print: tables for people, one JSON document for machines, one line for an error."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from domain.wire import encode
from ledger.redaction import without_passwords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

console = Console(highlight=False)
progress_console = Console(stderr=True)


def print_json(document: Any) -> None:
    """One document on standard output."""
    click.echo(encode(document).decode())


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()
) -> None:
    """A table; columns whose places are in ``numbers`` stand to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=any(columns))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else _escape(value) for value in row))
    console.print(table)


def _escape(value: object) -> str:
    """Text from outside, harmless to a terminal and to the table's markup."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text.replace("[", "\\[")


def fail(
    message: str, *, code: str = "error", status: int = 1, as_json: bool = False, field: str | None = None
) -> None:
    """Say what is wrong in one line and end."""
    message = without_passwords(message)
    if as_json:
        error = {"code": code, "message": message} | ({"field": field} if field else {})
        print_json({"error": error})
    line = " ".join(message.split())
    click.echo(f"resolution-ledger: {line}", err=True)
    sys.exit(status)


@contextmanager
def showing_progress(title: str, unit: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while somebody looks; call what it gives with (done, of)."""
    if quiet or not progress_console.is_terminal:
        yield lambda _done, _of: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    counted = TextColumn("{task.completed:,} of {task.total:,} " + unit)
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeRemainingColumn())
    with Progress(*columns, console=progress_console, transient=True) as bars:
        task = bars.add_task(title, total=1)
        yield lambda done, of: bars.update(task, completed=done, total=max(1, of))
