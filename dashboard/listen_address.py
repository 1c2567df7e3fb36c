"""The address on which the API listens, and the operator's bearer token."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509

from ledger.errors import LedgerError
from ledger.files import create_private

if TYPE_CHECKING:
    from dashboard.http.protocol import Network

PORT = 8321
LOOPBACK = "127.0.0.1"
_BACKLOG = 256
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?))\.?(?::[0-9]{1,5})?", re.ASCII)


class ListenAddress(NamedTuple):
    """An IP address and a port, with the certificate and the proxies in front of it.

    Without a port, the default port is tried first, then any free one.
    """

    host: str = LOOPBACK
    port: int | None = None
    certificate: str | None = None
    key: str | None = None
    behind_proxy: bool = False
    descriptor: int | None = None
    """The file descriptor of a socket that already listens."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names of this server, in addition to localhost, its addresses and the names in its certificate."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose ``X-Forwarded-For`` header is trusted."""

    @property
    def encrypted(self) -> bool:
        """Browsers use TLS, with this server or with a proxy in front of it."""
        return self.certificate is not None or self.behind_proxy

    def checked(self) -> ListenAddress:
        """Return the same address after validation.

        Raises:
            LedgerError: it is not loopback and has no TLS, or a file cannot be used. The message names a remedy.

        """
        try:
            is_loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            raise LedgerError(f"--host {self.host!r}: give an IP address, such as 127.0.0.1 or 0.0.0.0") from None
        for name in self.allowed_hosts:
            if host_of(name.encode()) != name.lower():
                raise LedgerError(f"--allowed-host {name!r}: give a host name or address, without scheme and port")
        self.trusted_networks()
        if (self.certificate is None) != (self.key is None):
            raise LedgerError("--tls-cert and --tls-key belong together: give both")
        if self.certificate is not None and self.key is not None:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.key)
            except (OSError, ssl.SSLError) as error:
                raise LedgerError(f"--tls-cert and --tls-key cannot be used: {error}") from None
        if not is_loopback and not self.encrypted:
            raise LedgerError(
                f"--host {self.host} is not loopback, and tokens would be sent unencrypted: give --tls-cert and "
                "--tls-key, or --behind-proxy where a proxy in front terminates TLS"
            )
        return self

    def trusted_networks(self) -> list[Network]:
        """Return the networks of trusted proxies.

        Raises:
            LedgerError: one is no address or network.

        """
        try:
            return [ipaddress.ip_network(one) for one in self.trusted_proxies]
        except ValueError as error:
            message = f"--trusted-proxy: {error}; give an address such as 10.0.0.7 or a network such as 10.0.0.0/24"
            raise LedgerError(message) from None

    def host_names(self) -> frozenset[str]:
        """Return the host names of this server, without loopback and the addresses of its connections."""
        names = {"localhost", self.host, *self.allowed_hosts}
        if self.certificate is not None:
            names |= _names_in(self.certificate)
        return frozenset(name.lower() for name in names)

    def url(self, listening: socket.socket) -> str:
        """Return the URL of the API on a listening socket."""
        scheme = "https" if self.certificate is not None else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{listening.getsockname()[1]}"

    def bound(self) -> socket.socket:
        """Return a listening socket on this port, else on the default port, else on any free port.

        Raises:
            LedgerError: the requested port is taken, or the address is not one of this machine.

        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        for wanted in (self.port,) if self.port is not None else (PORT, 0):
            # The protocol is named, because asyncio sets TCP_NODELAY only on sockets with a known protocol.
            listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((self.host, wanted))
                listening.listen(_BACKLOG)  # binding alone does not reserve the port
            except OSError:
                listening.close()
                continue
            return listening
        message = f"{self.host} port {self.port or PORT} is taken or not an address of this machine: choose others"
        raise LedgerError(message)

    def options(self, descriptor: int) -> list[str]:
        """Return command-line options that give a child process the same address and the listening socket."""
        files = [] if self.certificate is None else ["--tls-cert", self.certificate, "--tls-key", self.key or ""]
        proxy = ["--behind-proxy"] if self.behind_proxy else []
        names = [word for name in self.allowed_hosts for word in ("--allowed-host", name)]
        trusted = [word for one in self.trusted_proxies for word in ("--trusted-proxy", one)]
        return ["--descriptor", str(descriptor), "--host", self.host, *files, *proxy, *names, *trusted]


def _names_in(certificate: str) -> set[str]:
    """Return the host names in a certificate (PEM), without wildcards."""
    found = x509.load_pem_x509_certificates(Path(certificate).read_bytes())[0]
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {name for name in names.get_values_for_type(x509.DNSName) if "*" not in name}


def host_of(value: bytes) -> str | None:
    """Return the name or address in a Host header, in lower case, without a port; none where it is malformed."""
    found = _HOST.fullmatch(value.decode("latin-1").strip(" \t").lower())
    return None if found is None else found[1] or found[2]


def token_of(data_dir: Path) -> str:
    """Return the operator's bearer token of a data directory; create it on first use.

    Two dashboards that begin to use a directory at the same time have the same token.
    """
    path = data_dir / "server" / "http_token"
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_private(path, secrets.token_urlsafe(32))
        return path.read_text(encoding="utf-8").strip()
