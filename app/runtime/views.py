"""Up-to-date views for a command, beside a running `up` or without one."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from app.runtime.view_builds import archived_history
from ledger.errors import UnavailableError
from projections.engine import storage
from projections.engine.projector import StoppedError, catch_up
from projections.reading import ReadResult
from projections.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import sqlalchemy as sa

    from app.runtime.session import Session

_TIMEOUT_SECONDS = 60.0


async def up_to_date(session: Session, name: str) -> None:
    """Bring a view to the present end of the log, or wait until its runner has.

    Raises:
        UnavailableError: the view does not get there in time.
        StoppedError: the view stopped at an event that it cannot process.

    """
    model = MODELS[name]()
    end = await session.log.last_position()
    with session.views.claim(name) as claimed:
        if claimed:
            reader = await session.connection(f"view {name}")
            await catch_up(model, session.views, reader, session.log, archived_history(session))
            return
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        generation = session.views.live_generation(model)
        if generation is not None:
            with storage.reading(session.views, model, generation) as connection:
                progress = storage.read_progress(connection)
            if progress.anchor.position >= end:
                return
            if progress.stopped is not None:
                raise StoppedError(name, progress.stopped)
        await asyncio.sleep(0.05)
    message = f"the view {name} does not reach position {end}: see `resolution-ledger admin projections status`"
    raise UnavailableError(message)


@asynccontextmanager
async def open_view(session: Session, name: str) -> AsyncIterator[sa.Connection]:
    """Yield a connection to an up-to-date view, in one transaction."""
    await up_to_date(session, name)
    model = MODELS[name]()
    generation = session.views.live_generation(model)
    assert generation is not None
    with storage.reading(session.views, model, generation) as connection:
        yield connection


async def read_view[T](session: Session, name: str, query: Callable[[sa.Connection], T]) -> ReadResult[T]:
    """Return the result of a query on an up-to-date view, with its position, from one transaction."""
    async with open_view(session, name) as connection:
        return ReadResult(query(connection), storage.read_progress(connection))
