"""The caller as answers show it: their name and role, the people that they may see, and the newest action of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboard.view_reader import NotReadyError
from projections.engine.pages import PageRequest
from projections.views.casework import actions, read_actions, seen_by

if TYPE_CHECKING:
    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.schemas import Caller


async def caller_document(context: ApiContext, viewer: Principal) -> Caller:
    """Return the document of a caller; without the newest action where the view of actions is not built yet."""
    scope = await context.authorizer.scope(viewer)
    newest = PageRequest(1, newest_first=True)
    try:
        found = await context.views.read(
            "casework", lambda c: read_actions(c, *seen_by(actions, scope), page=newest), short=True
        )
        at = found.result[0]["time"] if found.result else None
    except NotReadyError:
        at = None
    return {
        "name": viewer.name,
        "role": viewer.role,  # type: ignore[typeddict-item] # a source has no page, and no access to this
        "person_id": viewer.person_id,
        "source": viewer.source,
        "people": None if scope.people is None else sorted(scope.people),
        "teams": sorted(scope.teams),
        "newest_action": at,
    }
