"""Who reads, for commands that show what is about somebody."""

from __future__ import annotations

import getpass
import os
import sys
from typing import TYPE_CHECKING

import click

from projections.access import record_reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.store.log import Log

by_option = click.option("--by", help="Who reads; recorded where the policy says so. [default: the system's user name]")


async def note_reading(log: Log, about: Sequence[str], up_to: int, by: str | None) -> None:
    """Record that this user, or ``by``, read about these, where the policy in force wants it."""
    try:
        await record_reading(log, about, up_to, by or _user())
    except ValueError as error:
        raise click.UsageError(f"--by: {error}") from None


def _user() -> str:
    """Return the system's name of this user; its number where a container knows no name for it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # by version of Python
        if sys.platform == "win32":
            return "unknown"
        return f"uid {os.getuid()}"
