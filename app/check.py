"""The result of one check of `admin doctor`."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """A check's result: the part, a sentence about it, and whether it is well."""

    check: str
    says: str
    ok: bool = True
