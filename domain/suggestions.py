"""Find the known name that a misspelt one may mean."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_COMPARED = 64
"""Longer names are not compared, because the comparison takes quadratic time in their length."""


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the known name that is most similar to this one, or ``None`` if there is none."""
    if len(name) > _COMPARED:
        return None
    plain = name.lower().replace("-", "_")
    matches = get_close_matches(plain, sorted(known), n=1, cutoff=0.6)
    parts = [one for one in sorted(known) if plain and (one.startswith(plain) or plain.startswith(one))]
    return matches[0] if matches else min(parts, key=len) if parts else None
