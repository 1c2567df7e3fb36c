"""The transport below a connection to NATS: TCP, with TLS or not, that breaks without ending its client."""

from __future__ import annotations

from typing import Any

from nats.aio.transport import TcpTransport


class ReconnectingTransport(TcpTransport):
    """TCP on which writing to a connection that has broken is nothing worse than lost.

    asyncio's own ``writelines`` raises a TypeError then (CPython gh-136234), which nats-py does not expect: its
    flusher dies of it, and so does whoever calls ``send``.
    """

    def __init__(self, connected: TcpTransport) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vars(self).update(vars(connected))
        self.ending = False  # then it does not matter that it broke

    def writelines(self, payload: list[bytes]) -> None:
        """Write as one, which loses what a broken connection cannot take."""
        self.write(b"".join(payload))  # type: ignore[no-untyped-call]

    async def connect_tls(self, *arguments: Any, **options: Any) -> None:
        """Begin TLS; where that fails, drop the connection, since nats-py would wait for its end for ever."""
        try:
            await super().connect_tls(*arguments, **options)
        except BaseException:
            if self._io_writer is not None:
                self._io_writer.transport.abort()
            self._io_reader = self._io_writer = None
            raise

    async def drain(self) -> None:
        """Wait for room; that the connection broke matters only while it is wanted."""
        try:
            await super().drain()  # type: ignore[no-untyped-call]
        except OSError:
            if not self.ending:
                raise
