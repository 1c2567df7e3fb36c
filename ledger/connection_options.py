"""What a connection to NATS needs: the servers, and the credentials that each of them gets.

Credentials never stay in the URLs. A server that is *discovered*, by the list that every server of a cluster sends,
has no URL of the user's: nats-py would give it none.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

from ledger.errors import UnavailableError

_SCHEMES = ("nats", "tls")


class ConnectionOptionError(ValueError):
    """An option that cannot be used. ``option`` is its name, ``reason`` says why and what to do."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option}: {reason}")
        self.option = option
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """Servers without credentials, and credentials for all of them."""

    servers: tuple[str, ...]
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    token: str | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, **others: Any) -> Self:
        """Return the options of ``url``: one server or several, with a comma between.

        Credentials in a URL are percent-decoded and serve for all servers; ``others`` are used instead.

        Raises:
            ConnectionOptionError: a URL cannot be read, or two of them carry different credentials.

        """
        parts = [_split(one.strip()) for one in url.split(",")]
        found = {login for part in parts if (login := _credentials(part))}
        if len(found) > 1:
            reason = "its URLs carry different credentials: one user serves for all servers of a cluster"
            raise ConnectionOptionError("url", reason)
        credentials = {name: value for name, value in others.items() if value is not None}
        if found and not credentials:
            credentials = dict(found.pop())
        return cls(servers=tuple(f"{part.scheme}://{_place(part)}" for part in parts), **credentials)

    def for_client(self) -> dict[str, Any]:
        """Return the arguments of nats-py's ``connect``."""
        return {"servers": list(self.servers), "user": self.user, "password": self.password, "token": self.token}

    def __str__(self) -> str:
        return ",".join(server.partition("://")[2] for server in self.servers)


def options_of(server: ConnectionOptions | str) -> ConnectionOptions:
    """Return the options of a URL; options as they are.

    Raises:
        UnavailableError: the URL cannot be read.

    """
    if isinstance(server, ConnectionOptions):
        return server
    try:
        return ConnectionOptions.of(server)
    except ConnectionOptionError as error:
        raise UnavailableError(str(error)) from None


def _split(url: str) -> SplitResult:
    try:
        part = urlsplit(url if "://" in url else f"nats://{url}")
        port = part.port
    except ValueError:
        port = part = None
    if part is None or not part.hostname or port == 0:
        reason = "one of its URLs cannot be read; expected is nats://host:4222, several with a comma between"
        raise ConnectionOptionError("url", reason)
    if part.scheme not in _SCHEMES:
        raise ConnectionOptionError("url", f"{part.scheme}:// is not supported: use nats:// or tls://")
    return part


def _place(part: SplitResult) -> str:
    host = f"[{part.hostname}]" if ":" in str(part.hostname) else part.hostname
    return f"{host}:{part.port or 4222}"


def _credentials(part: SplitResult) -> tuple[tuple[str, str], ...]:
    if not part.username:
        return ()
    if part.password is None:
        return (("token", unquote(part.username)),)
    return (("user", unquote(part.username)), ("password", unquote(part.password)))
