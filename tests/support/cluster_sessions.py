"""Ledgers on a cluster of NATS servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.runtime.session import Session
from config.settings import load_settings
from ledger.errors import LedgerError
from tests.support.waiting import eventually


@asynccontextmanager
async def cluster_session(url: str, folder: Path, copies: int = 3) -> AsyncIterator[Session]:
    """Create a ledger with so many copies on a cluster, as soon as the cluster has a leader; yield its session.

    The servers of tests sync always, but without our accounts they cannot say so: hence ``allow_lazy_fsync``.
    """
    options = {
        "data_dir": str(folder / "data"),
        "nats_url": url,
        "replicas": copies,
        "allow_lazy_fsync": True,
        "unregistered_sources": "desk",
    }
    settings = load_settings(options, {})

    async def create() -> Session:
        return await Session(settings, creates=True).__aenter__()

    session = await eventually(create, lambda _: True, 60, passing=(LedgerError,), every_seconds=0.2)
    try:
        yield session
    finally:
        await session.close()
