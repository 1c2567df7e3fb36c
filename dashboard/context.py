"""What the HTTP API is made of."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dashboard.auth.authorization import Doors
from dashboard.view_reader import Views
from dashboard.view_updates import News
from ledger.encryption.keyring import Keys
from ledger.nats.client import LedgerClient
from ledger.store.log import Log


class House(NamedTuple):
    """``doors`` authenticates callers; ``rejected`` is the log of rejections; ``hosts`` are the server's names."""

    views: Views
    log: Log
    rejected: Log
    keys: Keys
    news: News
    doors: Doors
    client: LedgerClient
    data_dir: Path
    hosts: frozenset[str]
