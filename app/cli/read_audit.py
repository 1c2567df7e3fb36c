"""The audit record of reading, for commands that show data about a person."""

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

by_option = click.option("--by", help="The reader; recorded if the policy requires it. [default: the user's name]")


async def note_reading(log: Log, about: Sequence[str], up_to: int, by: str | None) -> None:
    """Record that this user, or ``by``, reads data about these subjects, if the policy requires it."""
    try:
        await record_reading(log, about, up_to, by or _user())
    except ValueError as error:
        raise click.UsageError(f"--by: {error}") from None


def _user() -> str:
    """Return the user's name in the system, or the user's number if there is no name, as in a container."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # by version of Python
        if sys.platform == "win32":
            return "unknown"
        return f"uid {os.getuid()}"
