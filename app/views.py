"""Reading views from a command: up to date, beside a running `up` or alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ledger.errors import UnavailableError
from projections import generations
from projections.answers import Answer
from projections.catalogue import MODELS
from projections.engine import StoppedError, catch_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

    from app.session import Session
    from projections.model import Model

_PATIENCE_SECONDS = 60.0


async def up_to_date(session: Session, name: str) -> None:
    """Bring a view to the present end of the log, or wait until whoever runs it has.

    Raises:
        UnavailableError: it does not get there in time.
        StoppedError: it stopped at an event that it cannot digest.

    """
    model = MODELS[name]()
    folder = generations.views_folder(session.data_dir)
    end = await session.log.last_position()
    with generations.claim(folder, name) as ours:
        if ours:
            reader = await session.connection(f"view {name}")
            await catch_up(model, folder, reader, session.log)
            return
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        generation = generations.live_generation(folder, model)
        if generation is not None:
            with opened(folder, model, generation) as connection:
                progress = generations.read_progress(connection)
            if progress.anchor.position >= end:
                return
            if progress.stopped is not None:
                raise StoppedError(name, progress.stopped)
        await asyncio.sleep(0.05)
    message = f"the view {name} does not reach position {end}: see `resolution-ledger admin projections status`"
    raise UnavailableError(message)


async def read_view(session: Session, name: str, query: Callable[[sa.Connection], Any]) -> Answer:
    """The answer of an up-to-date view, with its position, read in one transaction."""
    await up_to_date(session, name)
    model = MODELS[name]()
    folder = generations.views_folder(session.data_dir)
    generation = generations.live_generation(folder, model)
    assert generation is not None
    with opened(folder, model, generation) as connection:
        return Answer(query(connection), generations.read_progress(connection))


@contextmanager
def opened(folder: Any, model: Model, generation: int) -> Iterator[sa.Connection]:
    """A connection to one generation of a view, in one transaction: what is read through it is of one moment."""
    engine = generations.open_generation(folder, model, generation)
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    finally:
        engine.dispose()
