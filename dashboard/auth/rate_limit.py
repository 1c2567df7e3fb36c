"""Rate limits: token buckets, and of failed logins by client network, which do not apply to valid tokens."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict

LOGIN_FAILURES, REQUEST_FAILURES, WINDOW_SECONDS = 20, 200, 60.0
"""Failures of one network in a window before the answer is 429 instead of 401: at a login, and at other requests."""
_NETWORKS = 10_000
"""Counted networks; the one with the oldest failure is dropped first."""
_IPV6_PREFIX = 64
"""Length of the part of an IPv6 address that its owner cannot choose, in bits."""


def network_of(address: str) -> str:
    """Return the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"  # a proxy may forward any text, which must not become a key
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found)


class FailureLimiter:
    """Counts the failed logins of each network in windows of a minute, in bounded memory."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Start of the window, and failures in it."""

    def is_exceeded_by_failure(self, address: str, limit: int) -> bool:
        """Count a failed login of an address; return whether its network had reached the limit before."""
        network, now = network_of(address), time.monotonic()
        begun, failures = self._failures.pop(network, (now, 0))
        if now - begun >= WINDOW_SECONDS:
            begun, failures = now, 0
        self._failures[network] = begun, failures + 1
        if len(self._failures) > _NETWORKS:
            self._failures.popitem(last=False)
        return failures >= limit


class TokenBuckets[Key]:
    """Buckets that fill steadily: they limit the amount that a key takes at once, and over time."""

    def __init__(self) -> None:
        self._left: dict[Key, tuple[float, float]] = {}

    def take(self, key: Key, number: float, most: float, a_second: float) -> tuple[bool, float]:
        """Take from a bucket that holds ``most`` and gains ``a_second``; return whether it did, and the rest.

        A number above ``most`` may be taken from a full bucket.
        """
        now = time.monotonic()
        left, at = self._left.get(key, (most, now))
        left = min(most, left + (now - at) * a_second)
        enough = left >= min(number, most)
        left -= number if enough else 0
        self._left[key] = left, now
        return enough, left
