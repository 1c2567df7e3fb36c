"""Options for a past state: a position of the log, or a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ledger.store import position_lookup
from ledger.store.cloudevents import parse_time, time_text

if TYPE_CHECKING:
    from ledger.store.log import Log

AS_OF_HELP = "The state at this position, or at this recorded time."
happened_option = click.option(
    "--happened", is_flag=True, help="With a time: the events that had happened by then, also if recorded later."
)
as_of_option = click.option("--as-of", "as_of", metavar="X", help=AS_OF_HELP)


async def position_of(log: Log, text: str, last: int, *, first: bool = False) -> int:
    """Return a position as `ledger.store.position_lookup.position_of` does; wrong text is a usage error."""
    try:
        return await position_lookup.position_of(log, text, last, first=first)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def moment_of(as_of: str | None) -> str:
    """Return the time of ``--as-of`` for ``--happened``."""
    try:
        return time_text(parse_time(as_of or ""))
    except ValueError:
        raise click.UsageError("--happened needs a time: --as-of 2026-11-21T10:00:00Z") from None
