"""Failures caused by input from outside, counted by kind and logged at a limited rate.

An attacker can repeat an input thousands of times a second. Each kind of incident is logged at its first occurrence and
then at most once in ten seconds, with its count and a traceback.
"""

from __future__ import annotations

import logging
import time
from collections import Counter

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 10.0
_DETAIL_CHARACTERS = 300

counts: Counter[str] = Counter()
"""Incidents of this process by kind, since its start."""
_logged: dict[str, float] = {}


def report(kind: str, detail: object = "", error: BaseException | None = None) -> None:
    """Count an incident; log it, unless one of its kind was logged less than ten seconds ago.

    ``kind`` is one of a few constant texts; ``detail`` differs from case to case.
    """
    counts[kind] += 1
    now = time.monotonic()
    if now - _logged.get(kind, -_EVERY_SECONDS) < _EVERY_SECONDS:
        return
    _logged[kind] = now
    text = ascii(detail)[:_DETAIL_CHARACTERS] if detail != "" else "no details"
    without_details = {"incident": f"{kind} ({counts[kind]} so far)"}  # for logs without personal data
    _log.warning("%s (%d so far): %s", kind, counts[kind], text, exc_info=error, extra=without_details)
