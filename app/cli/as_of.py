"""From what a person types, a position or a time, to a position of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ledger.store import position_lookup
from ledger.store.cloudevents import parse_time, time_text

if TYPE_CHECKING:
    from ledger.store.log import Log

AS_OF_HELP = "As it was behind this position, or at this recorded time."
happened_option = click.option(
    "--happened", is_flag=True, help="With a time: what had happened by then, also what was told later."
)
as_of_option = click.option("--as-of", "as_of", metavar="X", help=AS_OF_HELP)


async def position_of(log: Log, text: str, last: int, *, first: bool = False) -> int:
    """See `ledger.store.position_lookup.position_of`; what is neither position nor time is wrong use."""
    try:
        return await position_lookup.position_of(log, text, last, first=first)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def moment_of(as_of: str | None) -> str:
    """The time that ``--as-of`` means, with ``--happened``."""
    try:
        return time_text(parse_time(as_of or ""))
    except ValueError:
        raise click.UsageError("--happened needs a time: --as-of 2026-11-21T10:00:00Z") from None
