"""Connection options: the servers of a NATS cluster, and the credentials that each of them gets.

Credentials never stay in the URLs. A server that is *discovered*, by the list that every server of a cluster sends,
has no URL of the user's: nats-py would give it none.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ledger.errors import UnavailableError
from ledger.nats.credential_files import check_credentials, check_seed, tls_context

if TYPE_CHECKING:
    import ssl

_SCHEMES = ("nats", "tls")
_FILES = ("creds", "nkey", "tls_ca", "tls_cert", "tls_key")
_INBOX_PREFIX = re.compile(r"_[\w$:~%-]+(\.[\w$:~%-]+)*", re.ASCII)


class ConnectionOptionError(ValueError):
    """An option that cannot be used. ``option`` is its name, ``reason`` says why and what to do."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option}: {reason}")
        self.option = option
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """Servers without credentials, and what serves for all of them.

    ``creds``, ``nkey`` and ``tls_*`` are paths of files; ``nkey`` is a user's seed.
    """

    servers: tuple[str, ...]
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    token: str | None = dataclasses.field(default=None, repr=False)
    creds: str | None = None
    nkey: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_first: bool = False
    inbox_prefix: str | None = None

    @classmethod
    def of(cls, url: str, **others: Any) -> Self:
        """Return the options of ``url``, one server or several with a comma between, and of ``others``.

        Credentials in a URL are percent-decoded and serve for all servers.

        Raises:
            ConnectionOptionError: an option cannot be used, or not beside another one.

        """
        parts = [_parse_url(one.strip()) for one in url.split(",")]
        found = {login for part in parts if (login := _credentials(part))}
        if len(found) > 1:
            reason = "its URLs carry different credentials: one user serves for all servers of a cluster"
            raise ConnectionOptionError("url", reason)
        given = {name: value for name, value in others.items() if value not in (None, "")}
        given |= {name: str(Path(given[name]).expanduser()) for name in _FILES if name in given}
        if found:
            _require_one_login({"url", *given})
            given |= dict(found.pop())
        options = cls(servers=tuple(f"{part.scheme}://{_host_and_port(part)}" for part in parts), **given)
        options.check()
        return options

    def check(self) -> None:
        """Check that the options fit together, and that their files can be used.

        Raises:
            ConnectionOptionError: one cannot be used.

        """
        _require_one_login({name for name in ("user", "password", "token", "creds", "nkey") if getattr(self, name)})
        for one, other in (("user", "password"), ("password", "user"), ("tls_key", "tls_cert")):
            if getattr(self, one) and not getattr(self, other):
                raise ConnectionOptionError(one, f"it needs {other} beside it")
        if self.inbox_prefix and not _INBOX_PREFIX.fullmatch(self.inbox_prefix):
            reason = (
                "it begins with _ and is made of letters, digits, _ and -, with dots between tokens, such as "
                "_INBOX_ledger: answers go to no other subjects, lest a reply steers a service into publishing"
            )
            raise ConnectionOptionError("inbox_prefix", reason)
        for option, check in (("creds", check_credentials), ("nkey", check_seed)):
            if path := getattr(self, option):
                _check_file(option, lambda check=check, path=path: check(path))
        if self.tls_ca is not None:  # without a file, the system's authorities take a third of a second to load
            _check_file("tls_ca", lambda: tls_context(self.tls_ca, None, None))
        if self.tls_cert is not None:
            _check_file("tls_cert", lambda: tls_context(self.tls_ca, self.tls_cert, self.tls_key))

    @property
    def requires_tls(self) -> bool:
        """Whether nothing may go to a server in the clear."""
        named = self.tls_ca or self.tls_cert or self.tls_first
        return bool(named) or any(server.startswith("tls://") for server in self.servers)

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context for the next connection; files that were replaced are read anew."""
        return tls_context(self.tls_ca, self.tls_cert, self.tls_key)

    def connect_arguments(self) -> dict[str, Any]:
        """Return the arguments of nats-py's ``connect``."""
        found: dict[str, Any] = {
            "servers": list(self.servers),
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "user_credentials": self.creds,
            "nkeys_seed": self.nkey,
            "tls_handshake_first": self.tls_first,
        }
        return found | ({"inbox_prefix": self.inbox_prefix} if self.inbox_prefix else {})

    def url(self) -> str:
        """Return the servers as URLs with user and password or token, for clients that know no other options."""
        login = ""
        if self.user is not None:
            login = f"{quote(self.user, safe='')}:{quote(self.password or '', safe='')}@"
        elif self.token is not None:
            login = f"{quote(self.token, safe='')}@"
        return ",".join(server.replace("://", f"://{login}") for server in self.servers)

    def __str__(self) -> str:
        return ",".join(server.partition("://")[2] for server in self.servers)


type NatsServer = ConnectionOptions | str
"""Options, or a URL with all that is needed."""


def options_of(server: NatsServer) -> ConnectionOptions:
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


_LOGINS = {
    "url": "credentials in the URL",
    "user": "user and password",
    "password": "user and password",
    "token": "a token",
    "creds": "a credentials file",
    "nkey": "an nkey",
}


def _require_one_login(options: set[str]) -> None:
    """Refuse two ways of saying who connects."""
    ways = {words: option for option, words in _LOGINS.items() if option in options}
    if len(ways) > 1:
        *_, last = ways.values()
        raise ConnectionOptionError(last, f"{' and '.join(ways)} exclude each other: keep one of them")


def _check_file(option: str, check: Any) -> None:
    try:
        check()
    except (ValueError, OSError) as error:
        raise ConnectionOptionError(option, str(error)) from None


def _parse_url(url: str) -> SplitResult:
    try:
        part = urlsplit(url if "://" in url else f"nats://{url}")
        readable = part.hostname and part.port != 0 and not (part.path.strip("/") or part.query or part.fragment)
    except ValueError:
        readable = False
    if not readable:
        reason = (
            "the address cannot be read. It looks like nats://user:password@host:4222, several with commas between "
            "them; in a password, / ? # [ ] @ : , and % are percent-encoded"
        )
        raise ConnectionOptionError("url", reason)
    if part.scheme not in _SCHEMES:
        raise ConnectionOptionError("url", f"{part.scheme}:// is not supported: use nats:// or tls://")
    return part


def _host_and_port(part: SplitResult) -> str:
    host = f"[{part.hostname}]" if ":" in str(part.hostname) else part.hostname
    return f"{host}:{part.port or 4222}"


def _credentials(part: SplitResult) -> tuple[tuple[str, str], ...]:
    if not part.username:
        return ()
    if part.password is None:
        return (("token", unquote(part.username)),)
    return (("user", unquote(part.username)), ("password", unquote(part.password)))
