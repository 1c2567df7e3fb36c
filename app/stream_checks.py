"""Checks of `admin doctor`: streams as declared, their copies, the intake's consumers, and the room in the store."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import nats.errors

from app.check import Check
from app.stream_setup import PASSED_OVER
from config import topology
from ledger.errors import UnavailableError
from ledger.streams import COPIES, differing_fields, is_like, js_api, stream_names, syncs_always

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from app.session import Session

_SECOND_NS = 1_000_000_000
_SILENT_SECONDS = 3.0
"""Servers of a cluster hear from each other every second; `current` and `offline` follow only after ten."""
_LOOKED_AGAIN_SECONDS = 1.2
_LOOKED_AGAIN_TIMES = 3
_NEARLY_FULL = 0.9
_NO_STREAM = 10059
_HARMLESS = frozenset(
    ("metadata", "description", "placement", "compression", "consumer_limits", "mirror_direct", "first_seq")
)
_DEFAULTS: tuple[Any, ...] = (None, False, 0, -1, "", "none", "default", {}, [])
_HOLDS = {
    topology.LEDGER: "every event: find out who deleted it, keep the server's folder, then restore the archive into a "
    "new ledger (`admin restore`)",
    topology.KEYS: "the keys of personal fields: run `admin init`, then bring them back with `admin keys restore`",
    topology.SEAL: "the trace of the seal: find out who deleted it, then run `admin init`",
    topology.REJECTED: "rejected events: find out who deleted it, then run `admin init`",
}


async def durability(session: Session) -> AsyncIterator[Check]:
    """Check that the server writes to disk before it acknowledges."""
    synced = await syncs_always(session.client)
    if synced or (synced is None and session.settings.allow_lazy_fsync):
        says = "the server writes before it acknowledges" if synced else "not said by the server; accepted by a setting"
        yield Check("durability", says)
        return
    does = "does not say whether it writes events to disk before it acknowledges them"
    if synced is False:
        does = "acknowledges events before they are on disk, so that they are lost with the power"
    advice = "set `jetstream { sync_interval: always }` and our accounts (config/nats/nats-server.conf)"
    accepted = session.settings.allow_lazy_fsync
    says = f"the NATS server {does}: {advice}" + ("" if accepted else ", or accept that with --allow-lazy-fsync")
    yield Check("durability", says, ok=accepted)


async def streams(session: Session) -> AsyncIterator[Check]:
    """Check each stream of the ledger and of its sources."""
    declared = {stream["name"]: stream for stream in topology.streams()}
    there = await stream_names(session.client)
    names = [*declared, *(name for name in topology.inboxes(there) if name not in declared)]
    infos = dict(zip(names, await asyncio.gather(*(_info(session, name) for name in names)), strict=True))
    ledger = infos[topology.LEDGER] or {}
    copies = max(session.settings.replicas, ledger.get("config", {}).get(COPIES, 1))
    silent = await _silent_replicas(session, infos)
    wrong = False
    for name, info in infos.items():
        for says in _troubles(name, info, declared.get(name), copies, silent.get(name, ())):
            wrong = True
            yield Check(f"stream {name}", says, ok=False)
    for name in topology.inboxes(there):
        if says := await _consumer_trouble(session, name):
            wrong = True
            yield Check(f"consumer {name}", says, ok=False)
    if not wrong:
        number = "1 copy" if copies == 1 else f"{copies} copies, all complete"
        yield Check("streams", f"{len(names)} as declared, {number}")


async def _info(session: Session, name: str) -> dict[str, Any] | None:
    """Return what the server says of a stream, or why it says nothing; None where there is none."""
    try:
        info = await js_api(session.client, f"STREAM.INFO.{name}")
    except UnavailableError as error:
        return {"error": {"description": str(error)}}
    return None if info.get("error", {}).get("err_code") == _NO_STREAM else info


def _troubles(name: str, info: dict[str, Any] | None, declared: dict[str, Any] | None, copies: int,
              silent: tuple[str, ...] | list[str]) -> Iterator[str]:  # fmt: skip
    if info is None:
        held = _HOLDS.get(name)
        yield f"it is not there, and held {held}" if held else "it is not there: run `resolution-ledger admin init`"
        return
    if "error" in info:
        yield (
            f"the server does not say how it is ({info['error'].get('description')}): more than half of the servers "
            "with a copy have to run; see their logs"
        )
        return
    config = info["config"]
    if declared is None:
        (subject,) = config.get("subjects") or [""]
        if config.get("sealed"):  # the intake frees it (consumers/idle_inboxes.py)
            return
        declared = topology.source_stream(subject.removeprefix(f"{topology.SOURCE_SUBJECT}."))
    if name == topology.INBOX and is_like(config, topology.earlier_inbox()):
        yield "it is as an earlier version made it: start `up` anew, or on a server of yours run `admin upgrade`"
    elif changed := _changed(config, declared):
        yield (
            f"{', '.join(changed)}: it was changed. Find out by which user and whether messages are missing, then set "
            f"it back as the operator (nats stream edit {name})"
        )
    if config[COPIES] < copies:
        yield f"it has {_copies(config[COPIES])} where there should be {copies}: run `admin init --replicas {copies}`"
    yield from silent


def _copies(number: int) -> str:
    return "1 copy" if number == 1 else f"{number} copies"


def _changed(config: dict[str, Any], declared: dict[str, Any]) -> list[str]:
    """Return what a stream's configuration has otherwise than declared, and what it has beside that."""
    passed_over = PASSED_OVER.get(declared["name"], ())
    changed = [
        f"{field} is {json.dumps(found)}, declared {json.dumps(value)}"
        for field, value, found in differing_fields(config, declared)
        if field != COPIES and field not in passed_over
    ]
    beside = config.keys() - declared.keys() - _HARMLESS
    return changed + [
        f"{field} is {json.dumps(config[field])}" for field in sorted(beside) if config[field] not in _DEFAULTS
    ]


async def _consumer_trouble(session: Session, stream: str) -> str:
    """Return what is wrong with the intake's consumer on an inbox; nothing where none was made yet."""
    wanted = topology.intake_consumer()
    info = await js_api(session.client, f"CONSUMER.INFO.{stream}.{wanted['durable_name']}")
    if "config" not in info:
        return ""
    changed = [
        f"{field} is {json.dumps(found)}, declared {json.dumps(value)}"
        for field, value, found in differing_fields(info["config"], wanted)
    ]
    advice = f"set it back as the operator (nats consumer edit {stream} {wanted['durable_name']})"
    return f"{', '.join(changed)}: it was changed; {advice}" if changed else ""


async def _silent_replicas(session: Session, infos: Mapping[str, dict[str, Any] | None]) -> dict[str, list[str]]:
    """Return sentences about copies that are missing or do not catch up, by stream; a suspicion is looked at again."""
    suspects = {name: info for name, info in infos.items() if info and "config" in info and _suspicious(info)}
    found = {name: [""] for name in suspects}
    for _ in range(_LOOKED_AGAIN_TIMES):
        if not suspects:
            break
        await asyncio.sleep(_LOOKED_AGAIN_SECONDS)
        again = await asyncio.gather(*(_info(session, name) for name in suspects))
        for (name, before), info in zip(list(suspects.items()), again, strict=True):
            known = info if info and "config" in info else before
            found[name] = _behind(before, known) if known is not before else []
            suspects[name] = known
            if not found[name]:
                del suspects[name]
    return {name: says for name, says in found.items() if says}


def _replicas(info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in (info.get("cluster") or {}).get("replicas") or ()}


def _suspicious(info: dict[str, Any]) -> bool:
    replicas = _replicas(info)
    lacks = 1 + len(replicas) < info["config"][COPIES]
    return lacks or any(_is_away(one) or not one.get("current") for one in replicas.values())


def _is_away(replica: dict[str, Any]) -> bool:
    return bool(replica.get("offline")) or replica.get("active", 0) > _SILENT_SECONDS * _SECOND_NS


def _behind(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a sentence for each copy that was not heard of between two looks, or is no nearer to its leader."""
    earlier, later, found = _replicas(before), _replicas(now), []
    leader = (now.get("cluster") or {}).get("leader", "")
    for name, replica in later.items():
        lag, known = replica.get("lag", 0), earlier.get(name, {})
        if _is_away(replica) and replica.get("active", 0) >= known.get("active", 0):
            silent = replica.get("active", 0) / _SECOND_NS
            found.append(
                f"the copy on server {name} is missing: {leader} has not heard of it for {silent:.0f} s. Start that "
                "server again; until then one more failure can stop the ledger"
            )
        elif not replica.get("current") and lag and lag >= known.get("lag", 0):
            found.append(
                f"the copy on server {name} is {lag} behind {leader} and comes no nearer: look at that server's disk "
                "and log"
            )
    missing = now["config"][COPIES] - 1 - len(later)
    if missing > 0:
        found.append(f"{_copies(missing)} of {now['config'][COPIES]} are on no server: add a server to the cluster")
    return found


async def store(session: Session) -> AsyncIterator[Check]:
    """Check how full the store of the account and of each server is, as far as they say."""
    account = await js_api(session.client, "INFO")
    limits = account.get("limits") or {}
    stores = {"the account's store": (int(account.get("storage", 0)), int(limits.get("max_storage", -1)))}
    stores |= await _server_stores(session)
    full = {name: used / most for name, (used, most) in stores.items() if most > 0 and used >= _NEARLY_FULL * most}
    for name, share in full.items():
        says = f"{name} is {share:.0%} full: nothing is recorded once it is full. Give it more room (max_file_store)"
        yield Check("store", says, ok=False)
    if not full:
        used, most = stores["the account's store"]
        of = f" of {most >> 20}" if most > 0 else ""
        yield Check("store", f"{used >> 20}{of} MiB used")


async def _server_stores(session: Session) -> dict[str, tuple[int, int]]:
    """Return bytes used and allowed in the store of the server that answers, where our account may ask."""
    try:
        answer = await session.client.request("$SYS.REQ.SERVER.PING.VARZ", b"", timeout=2)
        data = json.loads(answer.data)["data"]
        jetstream = data["jetstream"]
        name = f"the store of server {data.get('server_name', '')}"
        return {name: (int(jetstream["stats"]["storage"]), int(jetstream["config"]["max_storage"]))}
    except (nats.errors.Error, TimeoutError, UnavailableError, KeyError, TypeError, ValueError):
        return {}
