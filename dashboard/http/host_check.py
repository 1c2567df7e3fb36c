"""A check of the Host header against DNS rebinding: it must be a name of this server."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from dashboard.listen_address import host_of
from dashboard.problem_details import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_ANY_HOST = {"/healthz", "/readyz"}
"""Health checks reach these paths under any name; they reveal nothing and need no token."""


class HostCheck:
    """Refuses requests for other hosts with 421, and without exactly one Host header with 400."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] in _ANY_HOST:
            await self._app(scope, receive, send)
            return
        values = [value for name, value in scope["headers"] if name == b"host"]
        host = host_of(values[0]) if len(values) == 1 else None
        if host is None:
            await problem(400, "send one Host header: the name or address of this server")(scope, receive, send)
        elif host not in self._names and not _is_here(host, scope):
            detail = f"the host {host[:80]!r} is not a name of this server: start it with `--allowed-host {host[:80]}`"
            await problem(421, detail)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_here(host: str, scope: Scope) -> bool:
    """Return whether a host is a loopback address, or the address of this connection's server side."""
    try:
        address = ipaddress.ip_address(host)
        own_address = ipaddress.ip_address((scope.get("server") or ("",))[0].partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address == own_address
