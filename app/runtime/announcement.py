"""``connection.json``, which tells clients the addresses of a running ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ledger.files import read_bounded, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.nats.connection_options import ConnectionOptions

FILE = "connection.json"
_MOST_BYTES = 65_536


def announce(data_dir: Path, server: ConnectionOptions, http_url: str, http_token: str) -> None:
    """Write the addresses of the NATS server and the HTTP API into a file that only its owner can read.

    User and password are also fields of their own, since some clients do not take them from a URL.
    """
    document = {
        "nats_url": server.url(),
        "nats_user": server.user,
        "nats_password": server.password,
        "http_url": http_url,
        "http_token": http_token,
    }
    write_private(data_dir / FILE, json.dumps(document, indent=2) + "\n")


def announced_http_url(data_dir: Path) -> str:
    """Return the announced URL of the HTTP API; empty if no running ledger has announced one."""
    try:
        return str(json.loads(read_bounded(data_dir / FILE, _MOST_BYTES)).get("http_url", ""))
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""


def remove_announcement(data_dir: Path) -> None:
    """Remove the file."""
    (data_dir / FILE).unlink(missing_ok=True)
