"""Routes of evidence: the versions of the policy, accesses, and the checkpoints of the seal."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Response

from dashboard.list_query import (  # noqa: TC001 - FastAPI reads the annotations
    FeedQuery,
    FeedRangeQuery,
    PageQuery,
    PastQuery,
)
from dashboard.list_reader import Listing, ListReader
from dashboard.openapi import answers
from dashboard.routes.proofs import from_seal
from dashboard.schemas import CheckpointList, CheckpointRow, JsonResponse, Page, PolicyVersions
from domain.documents.rows import AccessRow
from ledger.store.cloudevents import stored_decoder
from ledger.transparency.tiles import MissingTileError
from projections.policy_history import read_versions
from projections.views.audit_trail import Trail, count_accesses, read_accesses

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa
    from fastapi import FastAPI

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext
    from dashboard.list_reader import Cursor
    from ledger.transparency.sealer import SealFolder
    from ledger.transparency.signed_notes import Checkpoint, Verifier
    from projections.engine.storage import Row


def add_evidence_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of evidence."""
    log, authorizer = context.log, context.authorizer

    @api.get(
        "/api/v1/policies/versions",
        responses=answers(PolicyVersions),
        dependencies=[Depends(authorizer.allowed("manager", "auditor", "operator"))],
        summary="The published versions of the policy with their changes, the newest first",
    )
    async def versions() -> Response:
        found, position = await read_versions(log)
        return JsonResponse({"items": found, "position": position})

    _add_accesses(api, context)
    _add_checkpoints(api, context)


def _add_accesses(api: FastAPI, context: ApiContext) -> None:
    lists, authorizer = ListReader(context.views, context.log), context.authorizer
    caller, auditors = Depends(authorizer.viewer), Depends(authorizer.allowed("auditor", "operator"))

    @api.get(
        "/api/v1/accesses",
        responses=answers(Page[AccessRow], tables=True),
        dependencies=[auditors],
        summary="Accesses: sign-ins, exports, and reads about named people where the policy records them",
    )
    async def accesses(
        page: Annotated[PageQuery, Depends()],
        feed: Annotated[FeedQuery, Depends()],
        past: Annotated[PastQuery, Depends()],
        within: Annotated[FeedRangeQuery, Depends()],
        who: str | None = None,
        via: str | None = None,
        viewer: Principal = caller,
    ) -> Response:
        times, at = await lists.feed_range(within), await lists.at(past.as_of)

        def read(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> list[Row]:
            return read_accesses(connection, feed.page(limit, after, at, times), who=who, via=via)

        def total(connection: sa.Connection, limit: int, after: Cursor, at: int | None) -> int:
            return count_accesses(connection, feed.page(limit, after, at, times), who=who, via=via)

        position = itemgetter("position")
        listing = Listing("accesses", AccessRow, Trail.name, read, position, feed.after, at, more=times.told())
        return await lists.answer(listing._replace(total=total), page, viewer)


def _add_checkpoints(api: FastAPI, context: ApiContext) -> None:
    auditors = [Depends(context.authorizer.allowed("auditor", "operator"))]

    @api.get(
        "/api/v1/checkpoints",
        responses=answers(CheckpointList),
        dependencies=auditors,
        summary="The checkpoints of the seal that the ledger holds, the newest first",
    )
    async def checkpoints() -> Response:
        rows: list[CheckpointRow] = await from_seal(context, _rows)
        for row in rows:
            event = await context.log.at(row["size"])
            row["time"] = None if event is None else stored_decoder.decode(event.data).recordedtime
        return JsonResponse({"items": rows[::-1]})


def _rows(folder: SealFolder) -> list[CheckpointRow]:
    """Return the checkpoints in the seal's folder, the smallest first: the newest, cosigned ones, changes of key."""
    trusted, newest = folder.trusted(), folder.checkpoint()
    held: dict[int, Checkpoint] = {}
    for note in (*folder.rotations(), *folder.cosigned(), *([] if newest is None else [newest])):
        known = held.get(note.size)
        held[note.size] = note if known is None else known.with_signatures(note.lines)
    return [_row(folder, number, held[size], trusted) for number, size in enumerate(sorted(held), 1)]


def _row(folder: SealFolder, number: int, note: Checkpoint, trusted: Sequence[Verifier]) -> CheckpointRow:
    signers = note.signed_by(trusted)
    try:
        has_root = folder.tiles(note.size).root() == note.root
    except MissingTileError:
        if folder.is_mirror:
            raise  # the tile is fetched
        has_root = False
    return {
        "number": number,
        "size": note.size,
        "time": None,
        "root": note.root.hex(),
        "signed_by": [key.key_id.hex() for key in signers],
        "witnesses": len(note.lines) - len(signers),
        "verified": bool(signers) and has_root,
        "note": note.note,
    }
