"""Positions of views, and the event at which a view has stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.runtime.plugins import load_views
from app.runtime.views import open_generation
from projections.engine import storage
from projections.registry import MODELS

if TYPE_CHECKING:
    from app.runtime.session import Session


async def projection_states(session: Session) -> list[dict[str, Any]]:
    """Return name, generation, position, lag in events, last recorded time and stop of each view."""
    load_views()
    folder = storage.views_folder(session.data_dir)
    end = await session.log.last_position()
    states: list[dict[str, Any]] = []
    for name, cls in MODELS.items():
        generation = storage.live_generation(folder, cls())
        state: dict[str, Any] = {"projection": name, "generation": generation, "position": 0, "lag_events": end}
        state |= {"recorded": None, "stopped": None}
        if generation is not None:
            with open_generation(folder, cls(), generation) as connection:
                progress = storage.read_progress(connection)
            state |= {"position": progress.anchor.position, "lag_events": end - progress.anchor.position}
            state |= {"recorded": progress.recorded or None}
            state["stopped"] = progress.stopped._asdict() if progress.stopped else None
        states.append(state)
    return states
