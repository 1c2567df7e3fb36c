"""Flags without names, until somebody who is recorded for it begins to look (policy `privacy.pseudonyms`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from app.reading import privacy_in_force
from ledger.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.session import Session

_OWNER = "pseudonyms"


async def without_names(session: Session, flags: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flags as they are to be shown: those that nobody looked at yet under pseudonyms, where policy wants that.

    A pseudonym, ``~`` and eight hex digits, is the same for one person in every flag.
    """
    if not (await privacy_in_force(session.log)).get("pseudonyms"):
        return [dict(flag) for flag in flags]
    key = (await (await Keys.open(session.client)).ensure([_OWNER]))[_OWNER]

    def masked(flag: Mapping[str, Any]) -> dict[str, Any]:
        if flag.get("status", "open") != "open" or flag.get("unmasked_by"):
            return dict(flag)
        names = {about: f"~{key.hash_of(about)[:8]}" for about in flag["about"]}
        text = flag["explanation"]
        for about, pseudonym in names.items():
            name = about.partition(":")[2]
            text = re.sub(rf"(?<![\w~-]){re.escape(name)}(?![\w-])", pseudonym, text)
        about = [f"{one.partition(':')[0]}:{pseudonym}" for one, pseudonym in names.items()]
        return {**flag, "about": about, "explanation": text}

    return [masked(flag) for flag in flags]
