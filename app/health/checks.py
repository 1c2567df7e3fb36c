"""The checks of `admin doctor` on stored data, one for each part of a ledger."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.health.check import Check, run_check, shortened
from app.health.clock_checks import clock, recorded_times
from app.health.role_checks import is_kept_here
from app.health.seal_checks import seal
from app.health.stream_checks import certificate, durability, store, streams
from app.runtime.plugins import installed_plugins, load_rules, load_views
from app.runtime.projection_states import projection_states
from app.runtime.sources import waiting_in_inboxes, without_own_inbox
from config import topology
from consumers.privacy.field_encryption import encrypted_texts
from domain.managers import manager_rings
from ledger.encryption.keyring import Keyring, key_ids
from ledger.errors import LedgerError, UnavailableError
from ledger.store.cloudevents import time_text
from ledger.store.event_id_index import EventIdIndex
from ledger.store.streams import js_api, server_problem, stream_config, stream_names
from ledger.store.subscription import verify_cursor
from ledger.transparency import alarm
from projections.engine import storage
from projections.policy_history import in_force_now, published_policies
from projections.registry import MODELS
from projections.views.people import read_people
from projections.webhooks import WebhookBook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from app.runtime.session import Session
    from ledger.store.role_status import RoleAnswers
    from projections.webhooks import WebhookState

_NOTHING: Mapping[str, RoleAnswers] = MappingProxyType({})
_LOW_DISK_BYTES = 1 << 30
_KEYS_OF_EVENTS, _RINGS_SHOWN = 500, 5
_FAILS_SECONDS = 3600.0


async def _server(session: Session) -> AsyncIterator[Check]:
    version = session.client.connected_server_version
    trouble = await server_problem(session.client)
    yield Check("server", trouble or f"nats-server {version.major}.{version.minor}.{version.patch}", not trouble)


async def _directory(session: Session) -> AsyncIterator[Check]:
    original = session.copy_source
    if original is None:
        yield Check("data directory", str(session.data_dir))
        return
    text = (
        f"{session.data_dir} was copied from {original}, which still exists: both record under one name and seal with "
        "one key. Keep the right one, compare them with `audit verify --checkpoint`, and delete the other"
    )
    yield Check("data directory", text, ok=False)


async def _disk(session: Session) -> AsyncIterator[Check]:
    free = shutil.disk_usage(session.data_dir).free if session.data_dir.exists() else 0
    enough = free > _LOW_DISK_BYTES or not session.embedded
    yield Check("disk", f"{free >> 20} MiB free at {session.data_dir}", enough)


async def _indexes(session: Session) -> AsyncIterator[Check]:
    for name in ("intake", "decisions"):
        path = session.data_dir / "index" / f"{name}.sqlite"
        if path.exists():
            wrong = await _index_trouble(session, name, EventIdIndex(path))
            yield Check(f"index {name}", wrong or "consistent with the log", not wrong)


async def _index_trouble(session: Session, name: str, index: EventIdIndex) -> str:
    try:
        for anchor in (*index.heads().values(), *index.begun().values()):
            await verify_cursor(session.log, anchor, name)
    except LedgerError as error:
        return str(error)
    finally:
        index.close()
    return ""


async def _views(session: Session) -> AsyncIterator[Check]:
    for state in await projection_states(session):
        text = str(state.stopped) if state.stopped else f"position {state.position}, {state.lag_events} behind"
        yield Check(f"view {state.projection}", text, not state.stopped)


async def _plugins(_session: Session) -> AsyncIterator[Check]:
    load_rules()
    load_views()
    for package, names in installed_plugins().items():
        yield Check(f"package {package}", f"adds {', '.join(names)}")


async def _alarm(session: Session) -> AsyncIterator[Check]:
    found = await alarm.read_alarm(session.client)
    yield Check("alarm", "off" if found is None else str(found.error()), found is None)


async def _keys(session: Session) -> AsyncIterator[Check]:
    """Check for the keys of encrypted fields in the oldest and the newest events."""
    end = await session.log.last_position()
    positions = sorted({*range(1, min(end, _KEYS_OF_EVENTS) + 1), *range(max(1, end - _KEYS_OF_EVENTS), end + 1)})
    events = await asyncio.gather(*map(session.log.at, positions))
    encrypted = [text for one in events if one is not None for text in encrypted_texts(one.data)]
    bucket = await stream_config(session.client, topology.KEYS)
    keys = await Keyring.open(session.client)
    lost = key_ids(encrypted) if bucket is None else await keys.lost(encrypted)
    if lost:
        text = (
            f"{len(lost)} keys of {len(events)} checked events are missing without having been destroyed, or do not "
            "fit: these fields cannot be read. Restore them with `admin keys restore` from a backup "
            "(docs/understand/auditing.md)"
        )
        yield Check("keys", text, ok=False)
    else:
        yield Check("keys", f"those of {len(events)} events exist, or were destroyed")


async def subscriptions(session: Session) -> list[WebhookState]:
    """Return the subscriptions to webhooks; none where the stream that holds them is missing."""
    try:
        return await (await WebhookBook.open(session.client)).states()
    except UnavailableError:
        return []


async def _webhooks(session: Session) -> AsyncIterator[Check]:
    for one in await subscriptions(session):
        webhook, progress = one.webhook, one.progress
        trouble = ""
        if progress.stopped:
            trouble = f"it is stopped: {progress.stopped}. Remove it with `admin webhooks remove {webhook.id}`"
        elif one.dead_letters:
            trouble = f"{one.dead_letters} messages were given up: see `admin webhooks dead-letters {webhook.id}`"
        elif progress.failing_since and (datetime.now(UTC) - progress.failing_since).total_seconds() > _FAILS_SECONDS:
            trouble = f"nothing has arrived at {webhook.url} since {time_text(progress.failing_since)}: "
            trouble += progress.last_error or "no reason is known"
        yield Check(f"webhook {webhook.id}", trouble or f"{progress.delivered} messages were delivered", not trouble)


async def _managers(session: Session) -> AsyncIterator[Check]:
    model = MODELS["people"]()
    generation = session.views.live_generation(model)
    if generation is None:
        return
    with storage.reading(session.views, model, generation) as connection:
        people = read_people(connection)
    rings = manager_rings({name: one["manager_id"] for name, one in people.items()})
    shown = "; ".join(" -> ".join((*ring, ring[0])) for ring in rings[:_RINGS_SHOWN])
    text = (
        f"{len(rings)} rings of people who manage each other: {shown}. Their escalations find no approver; "
        "correct `manager_id` by an employee.changed"
    )
    yield Check("managers", text if rings else "none report in a ring", not rings)


async def _policy(session: Session) -> AsyncIterator[Check]:
    rules = in_force_now(await published_policies(session.log))
    if rules is None:
        return
    text = f"version {rules.version} is in force"
    if not rules.is_strict:
        text += (
            " with the meaning of an earlier version of the ledger: without a cap for customers without a name, and "
            "without proof that an amount is owed. Publish it again to have the present meaning"
        )
    yield Check("policy", text)


async def _inbox(session: Session) -> AsyncIterator[Check]:
    waiting = await waiting_in_inboxes(session)
    behind = "".join(f"; {name}: {number}" for name, number in waiting.items() if number)
    yield Check("inbox", f"{sum(waiting.values())} waiting in {len(waiting)} streams{behind}")
    config = await stream_config(session.client, topology.INBOX) or {}
    window = int(config.get("duplicate_window", 0))
    if window > topology.SHORTEST_WINDOW_NS:
        text = (
            f"stream {topology.INBOX} drops a second message with the same Nats-Msg-Id for {window / 1e9:g} s, from "
            f"any sender: as the operator, set duplicate_window to {topology.SHORTEST_WINDOW_NS // 1_000_000}ms"
        )
        yield Check("message ids", text, ok=False)


async def _sources(session: Session) -> AsyncIterator[Check]:
    sharing = await without_own_inbox(session)
    if not sharing:
        yield Check("sources", "each known source has an inbox of its own")
        return
    sharers, shared = shortened(sharing, 10), "one inbox and its window for message ids"
    known = f"{sharers} share {shared}" if len(sharing) > 1 else f"{sharers} shares {shared} with unknown sources"
    taken = len(topology.inbox_streams(await stream_names(session.client))) - 2
    full = taken >= topology.SOURCES_AT_MOST
    if full:
        gets = (
            "an active source gets the inbox of one that was silent for 10 minutes"
            if session.embedded
            else "this does not change"
        )
        text = (
            f"{known}, since all {taken} inboxes are used: {gets}. If some are not your systems, find the sender that "
            "invents sources, and give each system a user that may name its own source alone (SECURITY.md)"
        )
    elif session.embedded:
        text = f"{known}: `run intake` or `up` gives each its own"
    else:
        text = (
            f"{known}: put the output of `admin inbox routes` into the server's configuration (docs/operate/deploy.md)"
        )
    yield Check("sources", text, ok=not full)


async def _rejected(session: Session) -> AsyncIterator[Check]:
    info = await js_api(session.client, f"STREAM.INFO.{topology.REJECTED}")
    yield Check("rejected", f"{info['state']['messages']} kept; see `admin rejected list`")


CHECKS: tuple[Callable[[Session], AsyncIterator[Check]], ...] = (
    _server,
    certificate,
    durability,
    streams,
    store,
    clock,
    recorded_times,
    _directory,
    _disk,
    _indexes,
    _views,
    _plugins,
    _alarm,
    seal,
    _keys,
    _managers,
    _policy,
    _webhooks,
    _inbox,
    _sources,
    _rejected,
)
"""All checks on stored data, in the order of the output."""


async def checks_of(session: Session, heard: Mapping[str, RoleAnswers] = _NOTHING) -> list[Check]:
    """Run the checks on stored data; ``heard`` has the statuses of roles, which may run elsewhere."""
    found: list[Check] = []
    for check in CHECKS:
        if check is _views and _answered(heard, "projections"):
            continue  # the role's status has their positions
        if check is seal and not is_kept_here(session, heard, "seal", "seal"):
            found += _sealed_elsewhere(heard)
        else:
            found += await run_check(check.__name__.strip("_"), check(session))
    return found


def _answered(heard: Mapping[str, RoleAnswers], role: str) -> bool:
    return role in heard and bool(heard[role].statuses)


def _sealed_elsewhere(heard: Mapping[str, RoleAnswers]) -> list[Check]:
    """Return the positions of seal and archive on other machines."""
    return [
        Check(role, f"position {reading.position} on {status.host}")
        for role in ("seal", "archive")
        if _answered(heard, role)
        for status in heard[role].statuses
        for reading in status.readings
    ]
