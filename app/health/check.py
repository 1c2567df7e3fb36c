"""The result of one check of `admin doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Check(NamedTuple):
    """A check's result: the part, a sentence about it, and whether it is well."""

    check: str
    says: str
    ok: bool = True


async def collected(name: str, checks: AsyncIterator[Check]) -> list[Check]:
    """Return the results of one check; where it cannot be made, that is a finding."""
    found: list[Check] = []
    try:
        async for check in checks:
            found.append(check)  # noqa: PERF401 - what was found before an error counts
    except (LedgerError, OSError, ValueError) as error:
        found.append(Check(name, str(error), ok=False))
    return found
