"""What the HTTP API is made of."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dashboard.doors import Doors
from dashboard.news import News
from dashboard.views import Views
from ledger.connection import LedgerClient
from ledger.keys import Keys
from ledger.log import Log


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
