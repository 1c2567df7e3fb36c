"""What reading a view gives, and how a report is handed the means to read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import sqlalchemy as sa

from projections.generations import Progress


class Answer(NamedTuple):
    """What was read, and up to where the view had read the log."""

    result: Any
    progress: Progress


type Reader = Callable[[str, Callable[[sa.Connection], Any]], Awaitable[Answer]]
"""Reads a view by its name: gives the query a connection, within one transaction."""
