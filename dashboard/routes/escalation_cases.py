"""The route of one escalation with all that its decision rests on: limits, the customer's story, and cases alike.

An agent sees the rows and the lines of the story that name the agent. Other roles see all of them, since they decide.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypedDict

import msgspec
import sqlalchemy as sa
from fastapi import Depends, HTTPException, Response

from dashboard.auth.authorization import note_reading
from dashboard.openapi import answers
from dashboard.routes.commands import PathId  # noqa: TC001 - FastAPI reads the annotations
from dashboard.schemas import EscalationCase, JsonResponse
from domain.analytics.empowerment_gap import Share, share
from projections.engine.pages import PageRequest
from projections.views import casework
from projections.views.audit_trail import Trail, read_trail

if TYPE_CHECKING:
    from fastapi import FastAPI

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from projections.engine.storage import Row
    from projections.reading import AccessScope

_ACTIONS, _ALIKE, _SHOWN_ALIKE, _STORY = 20, 200, 8, 40


class _Met(msgspec.Struct):
    """The part of an escalation's event that the view does not hold: the limits that were met."""

    reasons: list[dict[str, object]] = []


class _Recorded(msgspec.Struct):
    data: _Met


def add_escalation_case_route(api: FastAPI, context: ApiContext) -> None:
    """Add the route of one escalation."""
    views, log, authorizer = context.views, context.log, context.authorizer
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/escalations/{escalation_id}",
        responses=answers(EscalationCase),
        summary="An escalation with the limits it met, the customer's story, and decisions of cases alike",
    )
    async def escalation_case(escalation_id: PathId, viewer: Principal = caller) -> Response:
        scope = await authorizer.scope(viewer)
        found = await views.read("casework", lambda c: _case(c, escalation_id, scope, viewer))
        if found.result is None:
            raise HTTPException(404, "no escalation with this id is visible to this token")
        case, escalation = found.result, found.result["escalation"]
        customers = [f"customer:{one}" for one in case["customer_ids"]]
        await note_reading(log, viewer, customers, found.progress.anchor.position)
        recorded = await log.at(escalation["position"])
        limits = msgspec.json.decode(recorded.data, type=_Recorded).data.reasons if recorded is not None else []
        story: list[Row] = []
        progress = found.progress
        if (interaction := escalation["interaction_id"]) is not None:
            named = [("interaction", interaction)]
            if viewer.role == "agent":
                named.append(("agent", str(viewer.person_id)))
            told = await views.read(Trail.name, lambda c: read_trail(c, named))
            story = told.result[-_STORY:]
            progress = min(progress, told.progress, key=lambda one: one.anchor.position)
        document = {**case, "limits": limits, "story": story, "position": progress.anchor.position}
        shown = await context.keys.decrypt_fields(msgspec.json.encode(document))
        return JsonResponse({**json.loads(shown), "lag_seconds": await views.lag(progress)})


class _Case(TypedDict):
    """The part of an escalation's case that the view `casework` holds; `alike`: of the same kind and reason."""

    escalation: Row
    customer_ids: list[str]
    actions: list[Row]
    waiting: list[Row]
    alike: list[Row]
    alike_decided: Share


def _case(connection: sa.Connection, escalation_id: str, scope: AccessScope, viewer: Principal) -> _Case | None:
    """Return the case of an escalation; ``None`` where it is not visible."""
    table = casework.escalations
    seen = casework.seen_by(table, scope, asked=viewer.person_id)
    rows = casework.read_escalations(connection, table.c.escalation_id == escalation_id, *seen)
    if not rows:
        return None
    one = rows[0]
    customer = one["customer_id"]
    customers = casework.customer_group_of(connection, customer) if customer is not None else []
    interaction = one["interaction_id"]

    def same(source: sa.Table) -> list[sa.ColumnElement[bool]]:
        """Return the conditions of the customer's rows, else of the interaction's; without both there are none."""
        found: list[sa.ColumnElement[bool]] = [source.c.customer_id.in_(customers)]
        if not customers:
            found = [sa.false() if interaction is None else source.c.interaction_id == interaction]
        return [*found, *(casework.seen_by(source, scope) if viewer.role == "agent" else ())]

    decided = table.c.status.in_(("approved", "denied")), table.c.reason == one["reason"]
    newest, last = PageRequest(_ALIKE, newest_first=True), PageRequest(_ACTIONS, newest_first=True)
    alike = casework.read_escalations(connection, *decided, *seen, page=newest, kind=one["kind"])
    alike = [row for row in alike if row["escalation_id"] != escalation_id]
    waiting = casework.read_escalations(connection, *same(table), table.c.status == "waiting")
    approved = sum(row["status"] == "approved" for row in alike)
    return {
        "escalation": one,
        "customer_ids": customers,
        "actions": casework.read_actions(connection, *same(casework.actions), page=last),
        "waiting": [row for row in waiting if row["escalation_id"] != escalation_id],
        "alike": alike[:_SHOWN_ALIKE],
        "alike_decided": share(approved, len(alike)),
    }
