"""Records of access by an operator on the command line: tokens, exports and restores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from app.runtime.session import Session
from ledger.errors import LedgerError
from projections.access import record_access

if TYPE_CHECKING:
    from config.settings import Settings

_OPERATOR = "operator"
_PATIENCE_SECONDS = 3.0


async def note_access(session: Session, what: str) -> None:
    """Record an operator's access; where that is not possible, say so on standard error."""
    try:
        await record_access(session.log, _OPERATOR, what, "cli", _PATIENCE_SECONDS)
    except LedgerError as error:
        _say(what, error)


async def note_access_from_outside(settings: Settings, what: str) -> None:
    """Record an operator's access by a command without a session; without a ledger there is nothing to record in."""
    if settings.nats_url is None and not (settings.folder / "server" / "passwords.json").exists():
        return
    try:
        async with Session(settings, reads_only=True) as session:
            await record_access(session.log, _OPERATOR, what, "cli", _PATIENCE_SECONDS)
    except LedgerError as error:
        _say(what, error)


def _say(what: str, error: LedgerError) -> None:
    click.echo(f"resolution-ledger: {what!r} is not recorded in the log: {error}", err=True)
