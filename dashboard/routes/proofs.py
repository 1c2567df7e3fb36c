"""The route of proofs of single events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, HTTPException, Path, Response
from fastapi.responses import PlainTextResponse

from ledger.errors import UnavailableError
from ledger.transparency.proofs import prove
from ledger.transparency.seal_mirror import SEAL_FAULTS, read_seal
from ledger.transparency.signed_notes import NoteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from dashboard.context import ApiContext
    from ledger.transparency.sealer import SealFolder


def add_proof_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the route of proofs."""
    log = context.log
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

        def make(seal: SealFolder) -> str:
            newest = seal.checkpoint()
            if newest is None or position > newest.size:
                raise NoteError(f"position {position} is not sealed yet")
            return prove(seal.tiles(newest.size), newest, position).text()

        name = f'attachment; filename="{position}.tlog-proof"'
        return PlainTextResponse(await from_seal(context, make), headers={"Content-Disposition": name})


async def from_seal[T](context: ApiContext, make: Callable[[SealFolder], T]) -> T:
    """Return a value that ``make`` reads from the seal: that of this machine, else that of the machine that seals.

    Raises:
        HTTPException: 503, no seal answers, it does not reach that far, or it is damaged.

    """
    try:
        return await read_seal(context.seal, context.seal_mirror, make)
    except (UnavailableError, *SEAL_FAULTS) as error:
        detail = f"no evidence of the seal is available now: {str(error) or 'nothing is sealed yet'}"
        raise HTTPException(503, detail, {"Retry-After": "1"}) from None
