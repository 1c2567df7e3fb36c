"""Routes of case files and explanations: the reasons for an action, and its case as one page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, HTTPException, Path, Response
from fastapi.responses import HTMLResponse

from dashboard.auth.authorization import note_reading
from dashboard.openapi import answers
from dashboard.routes.proofs import from_seal
from dashboard.schemas import ExplanationAnswer, JsonResponse
from domain.serialization import encode
from projections.access import record_access
from projections.reports.case_file import case_document, case_page
from projections.reports.decision_foundation import foundation_of
from projections.reports.explanation import explain
from projections.reports.explanation_text import story_of
from projections.views.audit_trail import Trail

if TYPE_CHECKING:
    from fastapi import FastAPI

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from projections.reports.explanation import Explanation

ActionId = Annotated[str, Path(max_length=128)]


def add_case_file_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of explanations and case files; explanations need only a token that sees the agent."""
    log, authorizer = context.log, context.authorizer
    caller, auditors = Depends(authorizer.viewer), Depends(authorizer.allowed("auditor", "operator"))

    async def explained(action_id: str, viewer: Principal) -> Explanation:
        scope = await authorizer.scope(viewer)
        found = await context.views.read_with(Trail.name, lambda c: explain(log, c, action_id))
        if found is None or (scope.people is not None and found["action"]["agent_id"] not in scope.people):
            raise HTTPException(404, f"no action {action_id} is visible to this token")
        await note_reading(log, viewer, [f"action:{action_id}"], found["position"])
        return found

    @api.get(
        "/api/v1/explain/{action_id}",
        responses=answers(ExplanationAnswer),
        summary="Why an action was allowed, and what followed",
    )
    async def explanation(action_id: ActionId, viewer: Principal = caller) -> Response:
        found = await explained(action_id, viewer)
        found["action"] = json.loads(await context.keys.decrypt_fields(encode(found["action"])))
        story = [{"what": name, "said": str(said)} for name, said in story_of(found)]
        return JsonResponse(json.loads(encode({**found, "story": story})))

    @api.get(
        "/api/v1/case/{action_id}",
        dependencies=[auditors],
        response_class=HTMLResponse,
        summary="The case file of an action: one HTML page with its proofs",
    )
    async def case(action_id: ActionId, viewer: Principal = caller) -> Response:
        found = await explained(action_id, viewer)
        position = found["position"]
        foundation = await context.views.read_with(Trail.name, lambda c: foundation_of(log, c, position))
        page = await from_seal(context, lambda seal: case_page(case_document(found, foundation, seal)))
        await record_access(log, viewer.person_id or viewer.name, f"export: case file of {action_id}", "http")
        name = "".join(letter for letter in action_id if letter.isalnum() or letter in "-_")
        return HTMLResponse(
            page, headers={"Content-Disposition": f'attachment; filename="{name}.html"', "Cache-Control": "private"}
        )
