"""What services share: how the end of a task is told to whoever started them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_log = logging.getLogger(__name__)


def fails_with(failed: asyncio.Future[None], name: str) -> Callable[[asyncio.Task[None]], None]:
    """What to call at a task's end: a service whose task fails has failed for good."""

    def note(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not failed.done():
            _log.error("the %s stops: %s", name, error)
            failed.set_exception(error)

    return note
