"""Where the API listens, and the token that it wants."""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING

from ledger.errors import LedgerError
from ledger.server import write_private

if TYPE_CHECKING:
    from pathlib import Path

PORT = 8321
HOST = "127.0.0.1"
_WAITING = 256


def bound(port: int | None) -> socket.socket:
    """A socket that listens on loopback: at this port, or at the usual one, or at any.

    Raises:
        LedgerError: the port that was asked for is taken.

    """
    for wanted in (port,) if port is not None else (PORT, 0):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, wanted))
            listening.listen(_WAITING)  # only then nobody else can have it
        except OSError:
            listening.close()
            continue
        return listening
    message = f"port {port} is taken: name another with --port"
    raise LedgerError(message)


def token_of(data_dir: Path) -> str:
    """The bearer token of a data directory, made at first use; for its owner alone."""
    path = data_dir / "server" / "http_token"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, secrets.token_urlsafe(32))
        return path.read_text().strip()
