"""Rate limits of the routes for sources, told in the fields `RateLimit` and `RateLimit-Policy`.

Source: draft-ietf-httpapi-ratelimit-headers-10. A bucket holds the most that may come at once, and fills steadily.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fastapi import HTTPException

from dashboard.auth.rate_limit import TokenBuckets

if TYPE_CHECKING:
    from fastapi import Response

REQUESTS_A_SECOND, EVENTS_A_SECOND = 1_000.0, 20_000.0
BURST_SECONDS = 2.0
"""A bucket holds what it gains in this time."""


class SourceLimits:
    """The buckets of each token of a source: one of requests, one of events."""

    def __init__(self) -> None:
        self._buckets = TokenBuckets[tuple[str, str]]()

    def take(self, token: str, policy: str, number: int = 1) -> dict[str, str]:
        """Take requests or events from a token's bucket; return the header fields that tell the rest.

        ``policy`` is `requests` or `events`. More events at once than the bucket holds may pass while it is full.

        Raises:
            HTTPException: 429 with `Retry-After`, the bucket does not hold so many.

        """
        a_second = REQUESTS_A_SECOND if policy == "requests" else EVENTS_A_SECOND
        most = a_second * BURST_SECONDS
        enough, left = self._buckets.take((token, policy), number, most, a_second)
        wait = max(0, math.ceil((min(number, most) - left) / a_second)) if not enough else 0
        fields = {
            "RateLimit-Policy": f'"{policy}";q={most:.0f};w={BURST_SECONDS:.0f}',
            "RateLimit": f'"{policy}";r={max(0, int(left))};t={math.ceil((most - left) / a_second)}',
        }
        if not enough:
            detail = f"too many {policy} with this token: wait {wait} s"
            raise HTTPException(429, detail, fields | {"Retry-After": str(max(1, wait))})
        return fields


def tell(response: Response, fields: dict[str, str]) -> Response:
    """Add header fields to a response; return it."""
    response.headers.update(fields)
    return response
