"""Output of commands: tables for people, one JSON document for programs, one line for an error."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NoReturn

import click
from rich.console import Console, ConsoleDimensions

from app import json_logs
from domain.serialization import encode
from ledger.nats.redaction import without_passwords
from projections.csv_text import csv_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from domain.serialization import Json

_log = logging.getLogger(__name__)
type OutputFormat = Literal["table", "json", "csv"]
"""The form of a printed list."""
_WIDE = 1_000_000
"""Columns of output that does not go to a terminal: no line is wrapped, so that `grep` finds it."""


class _OutputConsole(Console):
    """A console that wraps lines only at a terminal."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        return super().size if self.file.isatty() else ConsoleDimensions(_WIDE, super().size.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size


console = _OutputConsole(highlight=False)
progress_console = Console(stderr=True)


def print_json(document: Json) -> None:
    """Print one JSON document on standard output."""
    click.echo(encode(document).decode())


def print_result(document: Json, text: str, *, as_json: bool) -> None:
    """Print the result of a command: a JSON document, or a sentence."""
    if as_json:
        print_json(document)
    else:
        console.print(text, markup=False)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()
) -> None:
    """Print a table; the columns with the indexes ``numbers`` are right-aligned."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=any(columns))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else _escape(value) for value in row))
    console.print(table)


def print_list(
    output: OutputFormat,
    items: Sequence[Mapping[str, Json]],
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    fields: str,
    numbers: Sequence[int] = (),
    **more: Json,
) -> None:
    """Print a list: ``items`` as JSON (with ``more`` beside them) or as CSV, or ``rows`` as a table.

    ``fields`` are the names of the items' fields for the header of CSV; those of money end in ``$``.
    """
    if output == "csv":
        click.echo(csv_text(items, fields), nl=False)
    elif output == "json":
        print_json({"items": items, **more})
    else:
        print_table(title, columns, rows, numbers)


def _escape(value: object) -> str:
    """Return a text without control characters and without the table's markup."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text.replace("[", "\\[")


def fail(
    message: str, *, code: str = "error", status: int = 1, as_json: bool = False, field: str | None = None
) -> NoReturn:
    """Print an error in one line and exit."""
    message = without_passwords(message)
    if as_json:
        error = {"code": code, "message": message} | ({"field": field} if field else {})
        print_json({"error": error})
    line = " ".join(message.split())
    if json_logs.are_in_use():
        _log.critical("%s", line)
    else:
        click.echo(f"resolution-ledger: {line}", err=True)
    sys.exit(status)


@contextmanager
def showing_progress(title: str, unit: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error at a terminal; yield the function to call with (done, total)."""
    if quiet or not progress_console.is_terminal:
        yield lambda _done, _of: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    counted = TextColumn("{task.completed:,} of {task.total:,} " + unit)
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeRemainingColumn())
    with Progress(*columns, console=progress_console, transient=True) as bars:
        task = bars.add_task(title, total=1)
        yield lambda done, of: bars.update(task, completed=done, total=max(1, of))


@contextmanager
def counting_progress(title: str, total: int | None, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar with the elapsed time on standard error; yield the function to call with each increment."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_console, disable=not shown, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
