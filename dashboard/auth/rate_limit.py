"""Rate limit of failed logins by client address; a valid token never meets it."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict

LOGIN_FAILURES, REQUEST_FAILURES, WINDOW_SECONDS = 20, 200, 60.0
"""Wrong tokens of one network in a window: so many are answered by 401 at a login, so many at any other request; the
next ones by 429."""
_NETWORKS = 10_000
"""Networks that are counted at once; the one that failed longest ago is forgotten first."""
_IPV6_PREFIX = 64
"""Bits of an IPv6 address that its owner cannot choose."""


def network_of(address: str) -> str:
    """Return the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"  # a proxy may forward anything; texts of its choice are not kept
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found)


class FailureLimiter:
    """Counts failed logins of each network in windows of a minute; its memory is bounded."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Begin of the window, and failures in it."""

    def is_exceeded_by_failure(self, address: str, limit: int) -> bool:
        """Count a failed login of this address; say whether the limit was reached before it."""
        network, now = network_of(address), time.monotonic()
        begun, failures = self._failures.pop(network, (now, 0))
        if now - begun >= WINDOW_SECONDS:
            begun, failures = now, 0
        self._failures[network] = begun, failures + 1
        if len(self._failures) > _NETWORKS:
            self._failures.popitem(last=False)
        return failures >= limit
