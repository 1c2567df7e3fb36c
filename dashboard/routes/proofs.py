"""The route of proofs of single events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, HTTPException, Path, Response
from fastapi.responses import PlainTextResponse

from ledger.transparency.merkle import ProofError
from ledger.transparency.proofs import prove
from ledger.transparency.sealer import seal_folder
from ledger.transparency.signed_notes import NoteError
from ledger.transparency.tiles import MissingTileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from dashboard.context import ApiContext


def add_proof_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the route of proofs."""
    log, data_dir = context.log, context.data_dir
    auditors = Depends(context.authorizer.allowed("auditor", "operator"))

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
        return PlainTextResponse(await from_seal(make), headers={"Content-Disposition": name})


async def from_seal[T](make: Callable[[], T]) -> T:
    """Return a value that ``make`` reads from the seal's files.

    Raises:
        HTTPException: 503, the seal does not reach that far, or is damaged.

    """
    try:
        return await asyncio.to_thread(make)
    except (AssertionError, MissingTileError, NoteError, ProofError, ValueError) as error:
        detail = f"no evidence of the seal is available now: {str(error) or 'nothing is sealed yet'}"
        raise HTTPException(503, detail, {"Retry-After": "1"}) from None
