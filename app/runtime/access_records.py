"""Records of access by an operator on the command line: tokens, exports and restores.

An access that gives something away is recorded first, and refused where it cannot be recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.errors import LedgerError
from projections.access import record_access

if TYPE_CHECKING:
    from app.runtime.session import Session

_OPERATOR = "operator"
_PATIENCE_SECONDS = 3.0


async def note_access(session: Session, what: str, consequence: str = "nothing was done") -> None:
    """Record an operator's access.

    Raises:
        LedgerError: the log cannot record it; the message has the ``consequence``.

    """
    try:
        await record_access(session.log, _OPERATOR, what, "cli", _PATIENCE_SECONDS)
    except LedgerError as error:
        message = f"the log cannot record {what!r} ({error}), so {consequence}; try again once it answers"
        raise LedgerError(message) from error
