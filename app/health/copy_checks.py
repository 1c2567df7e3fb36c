"""Copies of streams in a cluster: servers with copies that are missing or do not catch up with their leaders."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from app.health.check import shortened
from ledger.errors import UnavailableError
from ledger.store.api_types import Cluster
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ledger.nats.client import LedgerClient
    from ledger.store.api_types import Replica, StreamInfo

_SECOND_NS = 1_000_000_000
_SILENT_SECONDS = 3.0
"""Servers of a cluster exchange messages every second; `current` and `offline` change only after ten."""
_RECHECK_SECONDS = 1.2
_RECHECKS = 3


def replicas_of(info: StreamInfo) -> dict[str, Replica]:
    """Return the leader's information on the other copies, by server."""
    return {one["name"]: one for one in info.get("cluster", Cluster()).get("replicas") or ()}


async def incomplete_copies(client: LedgerClient, infos: Mapping[str, StreamInfo]) -> dict[str, str]:
    """Return a sentence for each server with copies that are missing or do not catch up.

    A suspect is looked at several times before it counts.
    """
    suspects = {name: info for name, info in infos.items() if any(map(_is_suspicious, replicas_of(info).values()))}
    for _ in range(_RECHECKS):
        if not suspects:
            return {}
        await asyncio.sleep(_RECHECK_SECONDS)
        before = suspects
        again = await asyncio.gather(*(_latest_info(client, name, info) for name, info in suspects.items()))
        suspects = {name: info for name, info in zip(before, again, strict=True) if _behind(before[name], info)}
    found: dict[str, dict[str, Replica]] = {}
    for name, info in suspects.items():
        for server, replica in _behind(before[name], info).items():
            found.setdefault(server, {})[name] = replica
    return {server: _text(copies) for server, copies in found.items()}


async def _latest_info(client: LedgerClient, name: str, before: StreamInfo) -> StreamInfo:
    try:
        info = await js_api(client, f"STREAM.INFO.{name}")
    except UnavailableError:
        return before
    return info if "config" in info else before


def _is_suspicious(replica: Replica) -> bool:
    return _is_away(replica) or not replica.get("current")


def _is_away(replica: Replica) -> bool:
    return bool(replica.get("offline")) or replica.get("active", 0) > _SILENT_SECONDS * _SECOND_NS


def _behind(before: StreamInfo, now: StreamInfo) -> dict[str, Replica]:
    """Return by server the copies that were silent, or did not come nearer to their leader, between two looks."""
    earlier = replicas_of(before)
    found: dict[str, Replica] = {}
    for server, replica in replicas_of(now).items():
        known = earlier.get(server, {})
        silent = _is_away(replica) and replica.get("active", 0) >= known.get("active", 0)
        if silent or (not replica.get("current") and replica.get("lag", 0) >= known.get("lag", 0)):
            found[server] = replica
    return found


def _text(copies: Mapping[str, Replica]) -> str:
    """Return a sentence about one server's copies, by stream."""
    shown = shortened(sorted(copies))
    if any(map(_is_away, copies.values())):
        silent = max(replica.get("active", 0) for replica in copies.values()) / _SECOND_NS
        return (
            f"its copies of {shown} are missing: their leaders have not heard of it for {silent:.0f} s. Start that "
            "server again; until then another failure can stop the ledger"
        )
    lag = max(replica.get("lag", 0) for replica in copies.values())
    return f"its copies of {shown} are {lag} messages behind and do not catch up: check that server's disk and log"
