"""Connection options: the servers of a NATS cluster, and the credentials for all of them.

Credentials are removed from the URLs. A *discovered* server, which another server of the cluster announces, has no URL
with credentials, and nats-py would send it none.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ledger.errors import UnavailableError
from ledger.nats.credential_files import check_credentials, check_seed, tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_SCHEMES = ("nats", "tls")
_FILES = ("creds", "nkey", "tls_ca", "tls_cert", "tls_key")
_INBOX_PREFIX = re.compile(r"_[\w$:~%-]+(\.[\w$:~%-]+)*", re.ASCII)


class ConnectionOptionError(ValueError):
    """An unusable option. ``option`` is its name, ``reason`` the cause and the remedy.

    ``needs`` is the name of another option that is missing, if that is the cause.
    """

    def __init__(self, option: str, reason: str = "", *, needs: str | None = None) -> None:
        self.option, self.needs = option, needs
        self.reason = f"it needs {needs}, too" if needs else reason
        super().__init__(f"{option}: {self.reason}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """Servers without credentials, and the options for all of them.

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
    def of(cls, url: str, **options_by_name: Any) -> Self:
        """Return the options of ``url``, one server or several separated by commas, and of ``options_by_name``.

        Credentials in a URL are percent-decoded and used for all servers.

        Raises:
            ConnectionOptionError: an option is unusable, or conflicts with another one.
        """
        parsed_urls = [_parse_url(server_url.strip()) for server_url in url.split(",")]
        logins = {login for parsed_url in parsed_urls if (login := _credentials(parsed_url))}
        if len(logins) > 1:
            reason = "its URLs contain different credentials: use one user for all servers of a cluster"
            raise ConnectionOptionError("url", reason)
        values = {name: value for name, value in options_by_name.items() if value not in (None, "")}
        values |= {name: str(Path(values[name]).expanduser()) for name in _FILES if name in values}
        if logins:
            _require_one_login({"url", *values})
            values |= dict(logins.pop())
        options = cls(
            servers=tuple(f"{parsed_url.scheme}://{_host_and_port(parsed_url)}" for parsed_url in parsed_urls), **values
        )
        options.check()
        return options

    def check(self) -> None:
        """Check that the options fit together, and that their files are usable.

        Raises:
            ConnectionOptionError: one is not.
        """
        _require_one_login({name for name in ("user", "password", "token", "creds", "nkey") if getattr(self, name)})
        for option, required in (("user", "password"), ("password", "user"), ("tls_key", "tls_cert")):
            if getattr(self, option) and not getattr(self, required):
                raise ConnectionOptionError(option, needs=required)
        if self.inbox_prefix and not _INBOX_PREFIX.fullmatch(self.inbox_prefix):
            reason = (
                "it begins with _ and contains letters, digits, _ and -, with dots between tokens, such as "
                "_INBOX_ledger: answers go to no other subjects, so that a reply cannot make a service publish"
            )
            raise ConnectionOptionError("inbox_prefix", reason)
        for option, check in (("creds", check_credentials), ("nkey", check_seed)):
            if path := getattr(self, option):
                _check_file(option, partial(check, path))
        if self.tls_ca is not None:  # without a file, the system's authorities take a third of a second to load
            _check_file("tls_ca", lambda: tls_context(self.tls_ca, None, None))
        if self.tls_cert is not None:
            _check_file("tls_cert", lambda: tls_context(self.tls_ca, self.tls_cert, self.tls_key))

    @property
    def requires_tls(self) -> bool:
        """Return whether a connection without TLS is refused."""
        named = self.tls_ca or self.tls_cert or self.tls_first
        return bool(named) or any(server.startswith("tls://") for server in self.servers)

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context for the next connection; replaced files are read again."""
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
        """Return the servers as URLs with user and password or token, for clients that support no other options."""
        login = ""
        if self.user is not None:
            login = f"{quote(self.user, safe='')}:{quote(self.password or '', safe='')}@"
        elif self.token is not None:
            login = f"{quote(self.token, safe='')}@"
        return ",".join(server.replace("://", f"://{login}") for server in self.servers)

    def __str__(self) -> str:
        return ",".join(server.partition("://")[2] for server in self.servers)


type NatsServer = ConnectionOptions | str
"""Options, or a URL with everything needed."""


def options_of(server: NatsServer) -> ConnectionOptions:
    """Return the options of a URL; options are returned unchanged.

    Raises:
        UnavailableError: the URL is not valid.
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
    """Reject two kinds of credentials."""
    kinds = {kind: option for option, kind in _LOGINS.items() if option in options}
    if len(kinds) > 1:
        *_, last = kinds.values()
        raise ConnectionOptionError(last, f"{' and '.join(kinds)} exclude each other: keep one of them")


def _check_file(option: str, check: Callable[[], object]) -> None:
    try:
        check()
    except (ValueError, OSError) as error:
        raise ConnectionOptionError(option, str(error)) from None


def _parse_url(url: str) -> SplitResult:
    try:
        parsed = urlsplit(url if "://" in url else f"nats://{url}")
        readable = (
            parsed.hostname and parsed.port != 0 and not (parsed.path.strip("/") or parsed.query or parsed.fragment)
        )
    except ValueError:
        readable = False
    if not readable:
        reason = (
            "the address is not valid. Its form is nats://user:password@host:4222, several separated by commas; "
            "in a password, / ? # [ ] @ : , and % are percent-encoded"
        )
        raise ConnectionOptionError("url", reason)
    if parsed.scheme not in _SCHEMES:
        raise ConnectionOptionError("url", f"{parsed.scheme}:// is not supported: use nats:// or tls://")
    return parsed


def _host_and_port(url: SplitResult) -> str:
    host = f"[{url.hostname}]" if ":" in str(url.hostname) else url.hostname
    return f"{host}:{url.port or 4222}"


def _credentials(url: SplitResult) -> tuple[tuple[str, str], ...]:
    if not url.username:
        return ()
    if url.password is None:
        return (("token", unquote(url.username)),)
    return (("user", unquote(url.username)), ("password", unquote(url.password)))
