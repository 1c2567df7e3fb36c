"""The result of one check of `admin doctor`, and the advice that several checks give."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from app.runtime.session import Session


class Check(NamedTuple):
    """The result of a check: the part of the ledger, a sentence about it, and whether it is in order."""

    check: str
    says: str
    ok: bool = True


def shortened(names: Sequence[str], most: int = 5) -> str:
    """Return the first names of a list, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


async def run_check(name: str, checks: AsyncIterator[Check]) -> list[Check]:
    """Return the results of one check; if it cannot be made, the error is a finding."""
    found: list[Check] = []
    try:
        async for check in checks:
            found.append(check)  # noqa: PERF401 - results before an error count
    except (LedgerError, OSError, ValueError) as error:
        found.append(Check(name, str(error), ok=False))
    return found


def archive_repair(session: Session) -> str:
    """Return the repair of an archive: it is written again, or a copy is brought where events have left the log."""
    if until := session.log.retired.until:
        return (
            f"it alone has the events up to {until}, so keep it, and bring back a copy of the folder from a backup or "
            "from another machine"
        )
    return "move the folder away and run `resolution-ledger admin archive`, which writes it again"
