"""The TCP transport of a NATS connection, with or without TLS; a broken connection does not end its client."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nats.aio.transport import TcpTransport

if TYPE_CHECKING:
    from collections.abc import Callable


class ReconnectingTransport(TcpTransport):
    """TCP on which data written to a broken connection is lost without an error.

    asyncio's ``writelines`` raises a TypeError then (CPython gh-136234), which nats-py does not expect: it would end
    its flusher, and fail the caller of ``send``.
    """

    def __init__(self, connected: TcpTransport) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vars(self).update(vars(connected))
        self.ending = False  # an error while closing does not matter
        self._is_waiting = False  # a task waits for bytes

    @property
    def certificate_end(self) -> datetime | None:
        """The end of the server's certificate; None without TLS."""
        certificate = self._io_writer.get_extra_info("peercert") if self._io_writer is not None else None
        if not certificate:
            return None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)

    def offer_to(self, take: Callable[[bytes], bytes]) -> None:
        """Offer bytes to ``take`` as they arrive, and read the rest that it returns.

        The event loop calls ``take`` where it reads the socket, without waking the task that reads. Bytes that arrive
        while that task is busy are read by it, so that all bytes stay in order.
        """
        reader = self._io_reader
        assert reader is not None
        read_later = reader.feed_data

        def on_bytes(data: bytes) -> None:
            rest = take(data) if self._is_waiting else data
            if rest:
                self._is_waiting = False
                read_later(rest)

        reader.feed_data = on_bytes  # type: ignore[assignment,method-assign]

    async def read(self, buffer_size: int) -> bytes:
        """Return the next bytes; empty at the end."""
        self._is_waiting = True
        try:
            return bytes(await super().read(buffer_size))
        finally:
            self._is_waiting = False

    def write(self, payload: bytes) -> None:
        """Write; on a broken connection it is lost, for which uvloop raises a RuntimeError."""
        try:
            self._io_writer.write(payload)  # type: ignore[union-attr]
        except RuntimeError:
            return

    def writelines(self, payload: list[bytes]) -> None:
        """Write all as one chunk; on a broken connection it is lost."""
        self.write(b"".join(payload))

    async def connect_tls(self, *arguments: Any, **options: Any) -> None:
        """Begin TLS; drop the connection if that fails, since nats-py would wait for its end forever."""
        try:
            await super().connect_tls(*arguments, **options)
        except BaseException:
            if self._io_writer is not None:
                self._io_writer.transport.abort()
            self._io_reader = self._io_writer = None
            raise
        if self._io_writer is not None:
            # nats-py's protocol was made without a connection, so it does not know of TLS, and asyncio would log a
            # warning at the end of each connection.
            self._io_writer.transport.get_protocol()._over_ssl = True  # type: ignore[attr-defined] # noqa: SLF001

    async def drain(self) -> None:
        """Wait for buffer space; ignore a broken connection while closing."""
        try:
            await super().drain()  # type: ignore[no-untyped-call]
        except OSError:
            if not self.ending:
                raise
