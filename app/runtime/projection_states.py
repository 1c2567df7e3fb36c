"""Positions of views, and the event at which a view has stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from app.runtime.plugins import load_views
from domain.serialization import JsonObject
from projections.engine import storage
from projections.registry import MODELS

if TYPE_CHECKING:
    from app.runtime.session import Session


class ProjectionState(NamedTuple):
    """The state of a view; ``stopped`` has the position and type of the event, and the reason."""

    projection: str
    generation: int | None
    position: int
    lag_events: int
    recorded: str | None
    stopped: JsonObject | None


async def projection_states(session: Session) -> list[ProjectionState]:
    """Return the state of each view."""
    load_views()
    end = await session.log.last_position()
    states: list[ProjectionState] = []
    for name, cls in MODELS.items():
        generation, progress = session.views.live_generation(cls()), None
        if generation is not None:
            with storage.reading(session.views, cls(), generation) as connection:
                progress = storage.read_progress(connection)
        position, stop = (progress.anchor.position, progress.stopped) if progress else (0, None)
        recorded, stopped = (progress and progress.recorded) or None, stop and stop._asdict()
        states.append(ProjectionState(name, generation, position, end - position, recorded, stopped))
    return states
