"""Routes of evidence: explanations of actions, case files, and proofs of single events."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, HTTPException, Path, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from dashboard.auth.authorization import note_reading
from dashboard.schemas import JsonResponse, Report
from domain.serialization import encode
from ledger.transparency.merkle import ProofError
from ledger.transparency.proofs import prove
from ledger.transparency.sealer import seal_folder
from ledger.transparency.signed_notes import NoteError
from ledger.transparency.tiles import MissingTileError
from projections.reports.case_file import case_document, case_page
from projections.reports.explanation import explain
from projections.reports.explanation_text import story_of
from projections.views.audit_trail import Trail

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from projections.reports.explanation import Explanation

ActionId = Annotated[str, Path(max_length=128)]


def add_proof_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of evidence; explanations need only a token that sees the agent."""
    log, data_dir, authorizer = context.log, context.data_dir, context.authorizer
    caller, auditors = Depends(authorizer.viewer), Depends(authorizer.allowed("auditor", "operator"))

    async def explained(action_id: str, viewer: Principal) -> Explanation:
        scope = await authorizer.scope(viewer)
        found = await context.views.read_with(Trail.name, lambda c: explain(log, c, action_id))
        if found is None or (scope.people is not None and found["action"]["agent_id"] not in scope.people):
            raise HTTPException(404, f"no action {action_id} is visible to this token")
        await note_reading(log, viewer, [f"action:{action_id}"], found["position"])
        return found

    @api.get(
        "/api/v1/explain/{action_id}", response_model=Report, summary="Why an action was allowed, and what followed"
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
        page = await _from_seal(lambda: case_page(case_document(found, data_dir)))
        name = "".join(letter for letter in action_id if letter.isalnum() or letter in "-_")
        return HTMLResponse(page, headers={"Content-Disposition": f'attachment; filename="{name}.html"'})

    @api.get(
        "/api/v1/proof/{position}",
        dependencies=[auditors],
        response_class=PlainTextResponse,
        summary="A proof that an event is in the sealed log (C2SP tlog-proof)",
    )
    async def proof(position: Annotated[int, Path(ge=1, le=2**53)]) -> Response:
        if position > await log.last_position():
            raise HTTPException(404, f"there is no event at position {position}")

        def make() -> str:
            newest = seal_folder(data_dir).checkpoint()
            if newest is None or position > newest.size:
                raise ProofError(f"position {position} is not sealed yet")
            return prove(seal_folder(data_dir).tiles(newest.size), newest, position).text()

        name = f'attachment; filename="{position}.tlog-proof"'
        return PlainTextResponse(await _from_seal(make), headers={"Content-Disposition": name})


async def _from_seal(make: Callable[[], str]) -> str:
    """Return a text that is make from the seal's files.

    Raises:
        HTTPException: 503, the seal does not reach that far, or is damaged.

    """
    try:
        return await asyncio.to_thread(make)
    except (AssertionError, MissingTileError, NoteError, ProofError, ValueError) as error:
        detail = f"no proof is available now: {str(error) or 'nothing is sealed yet'}"
        raise HTTPException(503, detail, {"Retry-After": "1"}) from None
