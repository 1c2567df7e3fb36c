"""``connection.json``: where clients find a running ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ledger.files import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from ledger.nats.connection_options import ConnectionOptions

FILE = "connection.json"


def announce(data_dir: Path, server: ConnectionOptions, http_url: str, http_token: str) -> None:
    """Tell clients where the NATS server and the HTTP API are, in a file for its owner alone.

    User and password stand beside the URL once more, since some clients take none from a URL.
    """
    document = {
        "nats_url": server.url(),
        "nats_user": server.user,
        "nats_password": server.password,
        "http_url": http_url,
        "http_token": http_token,
    }
    write_private(data_dir / FILE, json.dumps(document, indent=2) + "\n")


def withdraw(data_dir: Path) -> None:
    """Take the announcement away."""
    (data_dir / FILE).unlink(missing_ok=True)
