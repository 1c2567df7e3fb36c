"""Where the API listens, and the token that it wants."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple

from ledger.errors import LedgerError
from ledger.server import write_private

if TYPE_CHECKING:
    from pathlib import Path

PORT = 8321
LOOPBACK = "127.0.0.1"
_WAITING = 256


class Where(NamedTuple):
    """Where the API listens: an address, a port (none: the usual one, or any), its certificate and key."""

    host: str = LOOPBACK
    port: int | None = None
    certificate: str | None = None
    key: str | None = None
    behind_proxy: bool = False
    descriptor: int | None = None
    """Of a socket that listens already."""

    @property
    def encrypted(self) -> bool:
        """Whether browsers speak TLS, with us or with the proxy."""
        return self.certificate is not None or self.behind_proxy

    def checked(self) -> Where:
        """The same, if it may be.

        Raises:
            LedgerError: elsewhere than on loopback without TLS, or files that cannot be used; says what to do.

        """
        try:
            here = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            message = f"--host {self.host!r}: give an IP address, such as 127.0.0.1 or 0.0.0.0"
            raise LedgerError(message) from None
        if (self.certificate is None) != (self.key is None):
            raise LedgerError("--tls-cert and --tls-key belong together: give both")
        if self.certificate is not None and self.key is not None:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                message = f"--tls-cert and --tls-key cannot be used: {error}"
                raise LedgerError(message) from None
        if not here and not self.encrypted:
            message = (
                f"--host {self.host} is not loopback, and tokens would go there unencrypted: give --tls-cert and "
                "--tls-key, or say --behind-proxy where a proxy in front speaks TLS"
            )
            raise LedgerError(message)
        return self

    def url(self, listening: socket.socket) -> str:
        """Where to ask."""
        scheme = "https" if self.certificate is not None else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{listening.getsockname()[1]}"

    def bound(self) -> socket.socket:
        """A socket that listens: at this port, or at the usual one, or at any.

        Raises:
            LedgerError: the port that was asked for is taken, or nobody is at home at the address.

        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        for wanted in (self.port,) if self.port is not None else (PORT, 0):
            # The protocol is named: asyncio lets small answers leave at once (TCP_NODELAY) only where it is.
            listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((self.host, wanted))
                listening.listen(_WAITING)  # only then nobody else can have it
            except OSError:
                listening.close()
                continue
            return listening
        message = f"{self.host} port {self.port or PORT} is taken, or not an address of this machine: name others"
        raise LedgerError(message)

    def options(self, descriptor: int) -> list[str]:
        """The same for a child process that is handed the socket."""
        files = [] if self.certificate is None else ["--tls-cert", self.certificate, "--tls-key", self.key or ""]
        proxy = ["--behind-proxy"] if self.behind_proxy else []
        return ["--descriptor", str(descriptor), "--host", self.host, *files, *proxy]


def token_of(data_dir: Path) -> str:
    """The bearer token of a data directory, made at first use; for its owner alone."""
    path = data_dir / "server" / "http_token"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, secrets.token_urlsafe(32))
        return path.read_text().strip()
