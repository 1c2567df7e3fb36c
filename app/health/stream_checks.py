"""Checks of `admin doctor` on servers and streams: certificate, streams as declared, copies, consumers, free space."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from app.health.check import Check
from app.health.copy_checks import incomplete_copies, replicas_of
from app.runtime.stream_setup import TOLERATED_FIELDS
from config import topology
from ledger.errors import UnavailableError
from ledger.nats.client import frame
from ledger.store.streams import REPLICAS_FIELD, differing_fields, has_fields, js_api, stream_names, syncs_always

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from app.runtime.session import Session
    from ledger.store.api_types import ApiAnswer

_NEARLY_FULL = 0.9
_RENEWED_BEFORE = timedelta(days=21)
_SERVERS_SECONDS = 0.3
"""Time to wait for answers of servers, whose number is unknown."""
_NO_STREAM = 10059
_HARMLESS = frozenset(
    ("metadata", "description", "placement", "compression", "consumer_limits", "mirror_direct", "first_seq")
)
_DEFAULTS: tuple[object, ...] = (None, False, 0, -1, "", "none", "default", {}, [])
_HOLDS = {
    topology.LEDGER: "every event: find out who deleted it, keep the server's folder, then restore the archive into a "
    "new ledger (`admin restore`)",
    topology.KEYS: "the keys of personal fields: run `admin init`, then bring them back with `admin keys restore`",
    topology.SEAL: "the trace of the seal: find out who deleted it, then run `admin init`",
    topology.NOTIFY: "notifications of the last week, which are in the log, too: run `admin init`",
    topology.REJECTED: "rejected events: find out who deleted it, then run `admin init`",
}


async def certificate(session: Session) -> AsyncIterator[Check]:
    """Check that the certificate of the connected server does not end soon; a server without TLS has none."""
    end = session.client.certificate_end
    if end is None:
        return
    server = session.client.connected_url.hostname if session.client.connected_url else "the server"
    text = f"that of the NATS server at {server} ends on {end:%Y-%m-%d}"
    well = end - datetime.now(UTC) > _RENEWED_BEFORE
    if not well:
        text += ": renew it (`admin certificates`, where that made it), and start the server again with the new file"
    yield Check("certificate", text, ok=well)


async def durability(session: Session) -> AsyncIterator[Check]:
    """Check that the server syncs to disk before it acknowledges."""
    synced = await syncs_always(session.client)
    if synced or (synced is None and session.settings.allow_lazy_fsync):
        text = "the server syncs before it acknowledges" if synced else "unknown; accepted by a setting"
        yield Check("durability", text)
        return
    does = "does not report whether it syncs events to disk before it acknowledges them"
    if synced is False:
        does = "acknowledges events before they are on disk, so that a power failure loses them"
    advice = "set `jetstream { sync_interval: always }` and our accounts (config/nats/nats-server.conf)"
    accepted = session.settings.allow_lazy_fsync
    text = f"the NATS server {does}: {advice}" + ("" if accepted else ", or accept this with --allow-lazy-fsync")
    yield Check("durability", text, ok=accepted)


async def streams(session: Session) -> AsyncIterator[Check]:
    """Check each stream of the ledger and of its sources."""
    declared = {stream["name"]: stream for stream in topology.stream_configs(1, session.log.retired.until)}
    there = await stream_names(session.client)
    names = [*declared, *(name for name in topology.inbox_streams(there) if name not in declared)]
    infos = dict(zip(names, await asyncio.gather(*(_info(session, name) for name in names)), strict=True))
    ledger = infos[topology.LEDGER] or {}
    copies = max(session.settings.replicas, ledger.get("config", {}).get(REPLICAS_FIELD, 1))
    wrong = False
    for name, info in infos.items():
        for text in _troubles(name, info, declared.get(name), copies):
            wrong = True
            yield Check(f"stream {name}", text, ok=False)
    known = {name: info for name, info in infos.items() if info and "config" in info}
    for server, text in (await incomplete_copies(session.client, known)).items():
        wrong = True
        yield Check(f"server {server}", text, ok=False)
    for name in topology.inbox_streams(there):
        if text := await _consumer_trouble(session, name):
            wrong = True
            yield Check(f"consumer {name}", text, ok=False)
    if not wrong:
        number = "1 copy" if copies == 1 else f"{copies} copies, all complete"
        yield Check("streams", f"{len(names)} as declared, {number}")


async def _info(session: Session, name: str) -> ApiAnswer | None:
    """Return the server's information on a stream, or the error why it has none; None if the stream does not exist."""
    try:
        info = await js_api(session.client, f"STREAM.INFO.{name}")
    except UnavailableError as error:
        return {"error": {"description": str(error)}}
    return None if info.get("error", {}).get("err_code") == _NO_STREAM else info


def _troubles(
    name: str, info: ApiAnswer | None, declared: topology.DeclaredStream | None, copies: int
) -> Iterator[str]:
    if info is None:
        held = _HOLDS.get(name)
        yield f"it is missing, and held {held}" if held else "it is missing: run `resolution-ledger admin init`"
        return
    if "error" in info:
        yield (
            f"the server does not report its state ({info['error'].get('description')}): more than half of the servers "
            "with a copy have to run; see their logs"
        )
        return
    config = info["config"]
    if declared is None:
        (subject,) = config.get("subjects") or [""]
        if config.get("sealed"):  # the intake frees it (consumers/intake/idle_inboxes.py)
            return
        declared = topology.source_stream(subject.removeprefix(f"{topology.SOURCE_SUBJECT}."))
    if name == topology.INBOX and has_fields(config, topology.earlier_inbox_fields()):
        yield "it has the form of an earlier version: restart `up`, or on your own server run `admin upgrade`"
    elif changed := _changed(config, declared):
        yield (
            f"{', '.join(changed)}: it was changed. Find out by which user and whether messages are missing, then set "
            f"it back as the operator (nats stream edit {name})"
        )
    if config[REPLICAS_FIELD] < copies:
        held = _copies(config[REPLICAS_FIELD])
        yield f"it has {held} where there should be {copies}: run `admin init --replicas {copies}`"
    lacking = config[REPLICAS_FIELD] - 1 - len(replicas_of(info))
    if lacking > 0:
        yield f"{_copies(lacking)} of {config[REPLICAS_FIELD]} are on no server: add a server to the cluster"


def _copies(number: int) -> str:
    return "1 copy" if number == 1 else f"{number} copies"


def _changed(config: Mapping[str, object], declared: topology.DeclaredStream) -> list[str]:
    """Return the differences between a stream's configuration and its declaration, as sentences."""
    passed_over = TOLERATED_FIELDS.get(declared["name"], ())
    changed = [
        f"{field} is {json.dumps(found)}, declared {json.dumps(value)}"
        for field, value, found in differing_fields(config, declared)
        if field != REPLICAS_FIELD and field not in passed_over
    ]
    beside = config.keys() - declared.keys() - _HARMLESS
    return changed + [
        f"{field} is {json.dumps(config[field])}" for field in sorted(beside) if config[field] not in _DEFAULTS
    ]


async def _consumer_trouble(session: Session, stream: str) -> str:
    """Return the fault of the intake's consumer on an inbox; empty if there is none, or no consumer yet."""
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


async def store(session: Session) -> AsyncIterator[Check]:
    """Check the free space in the store of the account and of each server, as far as they report it."""
    account = await js_api(session.client, "INFO")
    limits = account.get("limits") or {}
    stores = {"the account's store": (int(account.get("storage", 0)), int(limits.get("max_storage", -1)))}
    stores |= await _server_stores(session)
    full = {name: used / most for name, (used, most) in stores.items() if most > 0 and used >= _NEARLY_FULL * most}
    for name, share in full.items():
        text = f"{name} is {share:.0%} full: nothing is recorded once it is full. Raise max_file_store"
        yield Check("store", text, ok=False)
    if not full:
        used, most = stores["the account's store"]
        of = f" of {most >> 20}" if most > 0 else ""
        yield Check("store", f"{used >> 20}{of} MiB used")


async def _server_stores(session: Session) -> dict[str, tuple[int, int]]:
    """Return used and allowed bytes in the store of each server, if our account may ask for them."""
    client, answers = session.client, list[bytes]()
    inbox = client.new_inbox()
    subscription = await client.subscribe_raw(inbox, lambda _subject, _reply, _headers, body: answers.append(body))
    try:
        client.send(frame(b"$SYS.REQ.SERVER.PING.VARZ", b"", inbox.encode()))
        await asyncio.sleep(_SERVERS_SECONDS)
    finally:
        await client.unsubscribe_raw(subscription)
    stores: dict[str, tuple[int, int]] = {}
    for answer in answers:
        with suppress(KeyError, TypeError, ValueError):  # not a server's answer, or no JetStream
            data = json.loads(answer)["data"]
            jetstream = data["jetstream"]
            used, most = int(jetstream["stats"]["storage"]), int(jetstream["config"]["max_storage"])
            stores[f"the store of server {data.get('server_name', '')}"] = used, most
    return stores
