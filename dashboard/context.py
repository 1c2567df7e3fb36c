"""The objects that the routes of the HTTP API share."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from dashboard.auth.authorization import Authorizer
from dashboard.event_gateway import EventCheck
from dashboard.metrics import Metrics
from dashboard.report_cache import ReportCache
from dashboard.view_reader import ViewReader
from dashboard.view_updates import ViewUpdates
from ledger.encryption.keyring import Keyring
from ledger.nats.client import LedgerClient
from ledger.store.log import Log
from ledger.transparency.seal_mirror import SealMirror
from ledger.transparency.sealer import SealFolder


class ApiContext(NamedTuple):
    """The dependencies of the routes.

    ``seal`` is that of this machine, and ``seal_mirror`` that of the machine that seals, where this one does not.
    ``authorizer`` authenticates and authorizes callers. ``rejected`` is the log of rejected messages. ``hosts`` are the
    server's own names. ``replaying`` lets one replay of history run at a time: each takes a thread and its memory.
    ``reports`` keeps reports for all routes.
    """

    views: ViewReader
    log: Log
    rejected: Log
    keys: Keyring
    updates: ViewUpdates
    authorizer: Authorizer
    client: LedgerClient
    check: EventCheck
    seal: SealFolder
    seal_mirror: SealMirror
    hosts: frozenset[str]
    metrics: Metrics
    replaying: asyncio.Semaphore
    reports: ReportCache
