"""Send one message: by HTTP POST to a public address, signed by Standard Webhooks, or by e-mail."""

from __future__ import annotations

import asyncio
import ipaddress
import smtplib
import socket
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import httpcore
from httpcore import AnyIOBackend, AsyncNetworkBackend
from standardwebhooks.webhooks import Webhook as Signer

from consumers.webhooks.messages import body_of, sentence_of
from ledger import traces
from ledger.nats.incidents import report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumers.webhooks.messages import WebhookMessage
    from domain.webhooks import Webhook

_SECONDS = 10.0
_ANSWER_BYTES = 4096
"""Bytes that are read of an answer; a longer one costs the connection."""
_CONNECTIONS = 32
_SUBMISSION = 587
_HTTP_OK, _HTTP_REDIRECT, _HTTP_GONE = 200, 300, 410
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses behind NAT64 (RFC 6052)."""
type _Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PrivateAddressError(OSError):
    """A receiver's name leads to an address that is not public."""


class AttemptOutcome(NamedTuple):
    """The outcome of an attempt: no error means delivered; ``gone`` that the receiver wants nothing more."""

    error: str = ""
    gone: bool = False
    wait_seconds: float = 0.0
    """The seconds that the receiver asked to wait (`Retry-After`)."""


class MailServer(NamedTuple):
    """The mail server of the setting `smtp_url`, and the sender's address."""

    host: str
    port: int
    sender: str
    user: str = ""
    password: str = ""
    implicit_tls: bool = False

    @classmethod
    def of(cls, url: str, sender: str) -> MailServer:
        """Return the server of a URL such as ``smtp://user:password@host:587``; ``smtps`` begins with TLS."""
        parts = urlsplit(url)
        implicit = parts.scheme == "smtps"
        port = parts.port or (smtplib.SMTP_SSL_PORT if implicit else _SUBMISSION)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return cls(parts.hostname or "", port, sender, user, password, implicit)

    def send(self, mail: EmailMessage) -> None:
        """Send a mail. A password goes over TLS alone, the text wherever the server offers TLS.

        Raises:
            OSError: the server cannot be reached, or refuses the mail (``smtplib.SMTPException``).

        """
        context = ssl.create_default_context()
        opened = (
            smtplib.SMTP_SSL(self.host, self.port, timeout=_SECONDS, context=context)
            if self.implicit_tls
            else smtplib.SMTP(self.host, self.port, timeout=_SECONDS)
        )
        with opened as server:
            server.ehlo_or_helo_if_needed()
            secured = self.implicit_tls
            if not secured and server.has_extn("starttls"):
                server.starttls(context=context)
                secured = True
            if self.user and not secured:
                raise smtplib.SMTPNotSupportedError("the mail server offers no TLS, so the password is not sent")
            if self.user:
                server.login(self.user, self.password)
            server.send_message(mail)


class Sender:
    """Sends messages. Names are resolved here, and connections go to the address that was checked."""

    def __init__(self, *, private: bool = False, mail: MailServer | None = None) -> None:
        """``private`` allows addresses inside the own network."""
        self._mail = mail
        self._pool = httpcore.AsyncConnectionPool(
            network_backend=_CheckedNetwork(private=private), max_connections=_CONNECTIONS, keepalive_expiry=30.0
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def send(self, webhook: Webhook, message: WebhookMessage) -> AttemptOutcome:
        """Attempt to deliver a message once."""
        try:
            async with asyncio.timeout(2 * _SECONDS):
                if webhook.url.startswith("mailto:"):
                    return await self._send_mail(webhook, message)
                return await self._post(webhook, message)
        except TimeoutError:
            return AttemptOutcome("no answer in time")
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            return AttemptOutcome(f"{type(error).__name__}: {error}"[:500])
        except Exception as error:  # noqa: BLE001 - our own error holds back this message alone
            report("a message of a webhook could not be sent", webhook.id, error)
            return AttemptOutcome("an error of ours, see the log")

    async def _post(self, webhook: Webhook, message: WebhookMessage) -> AttemptOutcome:
        media_type, content = body_of(message.event, webhook.format)
        identifier, now = message.id_for(webhook.id), datetime.now(UTC)
        headers: dict[bytes | str, bytes | str] = {
            "Host": urlsplit(webhook.url).netloc,
            "Content-Type": media_type,
            "Content-Length": str(len(content)),
            "User-Agent": "resolution-ledger",
            "webhook-id": identifier,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Signer(webhook.secret).sign(identifier, now, content.decode()),
        }
        times = dict.fromkeys(("connect", "read", "write", "pool"), _SECONDS)
        with traces.delivery(webhook.url, message.event) as delivery:
            headers.update(delivery.headers)
            async with self._pool.stream(
                "POST", webhook.url, headers=headers, content=content, extensions={"timeout": times}
            ) as answer:
                delivery.answered(answer.status)
                size = 0
                async for chunk in answer.aiter_stream():
                    size += len(chunk)
                    if size > _ANSWER_BYTES:
                        break
                if _HTTP_OK <= answer.status < _HTTP_REDIRECT:
                    return AttemptOutcome()
                wait = _retry_after(answer.headers)
                return AttemptOutcome(f"the receiver answered {answer.status}", answer.status == _HTTP_GONE, wait)

    async def _send_mail(self, webhook: Webhook, message: WebhookMessage) -> AttemptOutcome:
        if self._mail is None:
            return AttemptOutcome("no mail server: set smtp_url")
        mail, text = EmailMessage(), sentence_of(message.event)
        mail["From"], mail["To"] = self._mail.sender, webhook.url.removeprefix("mailto:")
        mail["Subject"] = " ".join(text.split())[:150]
        mail["Message-ID"] = f"<{message.id_for(webhook.id)}@resolution-ledger>"
        mail.set_content(text)
        await asyncio.to_thread(self._mail.send, mail)
        return AttemptOutcome()


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """Return the seconds of a `Retry-After` header, in either of its two forms; else 0."""
    text = next((value.decode("latin-1").strip() for name, value in headers if name.lower() == b"retry-after"), "")
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


class _CheckedNetwork(AsyncNetworkBackend):
    """Connects to public addresses only, and to the very address that was checked: a name may change meanwhile."""

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self._network = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore has it
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        error: Exception = OSError(f"{host} has no address")
        for address in await _addresses_of(host, port):
            if not (self._private or _is_public(ipaddress.ip_address(address))):
                error = PrivateAddressError(f"{host} leads to {address}, which is not public")
                continue
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as refused:
                error = refused
        raise error

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - as httpcore has it
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - likewise
    ) -> httpcore.AsyncNetworkStream:
        raise PrivateAddressError(path)

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


async def _addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of a name, without zones of IPv6."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]).partition("%")[0] for *_, place in found))


def _is_public(address: _Address) -> bool:
    """Return whether an address is public; one that carries an IPv4 address is as public as that one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if address in _NAT64:
            return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None or address.teredo is not None:
            return False  # tunnels of the past, to an address of their choice
    return address.is_global and not address.is_multicast and not address.is_reserved
