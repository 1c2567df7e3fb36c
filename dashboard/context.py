"""What the HTTP API is made of."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dashboard.auth.authorization import Authorizer
from dashboard.view_reader import ViewReader
from dashboard.view_updates import ViewUpdates
from ledger.encryption.keyring import Keyring
from ledger.nats.client import LedgerClient
from ledger.store.log import Log


class ApiContext(NamedTuple):
    """``doors`` authenticates callers; ``rejected`` is the log of rejections; ``hosts`` are the server's names."""

    views: ViewReader
    log: Log
    rejected: Log
    keys: Keyring
    news: ViewUpdates
    doors: Authorizer
    client: LedgerClient
    data_dir: Path
    hosts: frozenset[str]
