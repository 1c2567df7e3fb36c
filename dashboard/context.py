"""The objects that the routes of the HTTP API share."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from dashboard.auth.authorization import Authorizer
from dashboard.event_gateway import EventCheck
from dashboard.metrics import Metrics
from dashboard.view_reader import ViewReader
from dashboard.view_updates import ViewUpdates
from ledger.encryption.keyring import Keyring
from ledger.nats.client import LedgerClient
from ledger.store.log import Log


class ApiContext(NamedTuple):
    """The dependencies of the routes.

    ``authorizer`` authenticates and authorizes callers. ``rejected`` is the log of rejected messages. ``hosts`` are the
    server's own names. ``replaying`` lets one replay of history run at a time: each takes a thread and its memory.
    """

    views: ViewReader
    log: Log
    rejected: Log
    keys: Keyring
    updates: ViewUpdates
    authorizer: Authorizer
    client: LedgerClient
    check: EventCheck
    data_dir: Path
    hosts: frozenset[str]
    metrics: Metrics
    replaying: asyncio.Semaphore
