"""The streams of a ledger: missing ones are created, and copies are added where there are too few."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from config import topology
from ledger.errors import LedgerError, RefusedError, UnavailableError, jetstream_error
from ledger.store.streams import REPLICAS_FIELD, ensure_stream, js_api, retired_in, stream_config, stream_names

if TYPE_CHECKING:
    from collections.abc import Collection

    from ledger.errors import ApiError
    from ledger.nats.client import LedgerClient

TOLERATED_FIELDS = {topology.INBOX: ("duplicate_window",)}
"""Declared fields that may differ; `admin doctor` checks them."""


class PreparedStream(NamedTuple):
    """A stream after `admin init`: its name, its copies, and ``created``, ``raised`` or empty if unchanged."""

    stream: str
    copies: int
    done: str


async def create_streams(client: LedgerClient, copies: int) -> list[str]:
    """Create the missing streams of a ledger with at least as many copies as its log has; verify the others.

    Returns the names of the created streams.

    Raises:
        DriftError: a stream exists with another configuration.
        LedgerError: the server cannot create a stream.

    """
    before = set(await stream_names(client))
    config = await stream_config(client, topology.LEDGER)
    copies, retired = max(copies, (config or {}).get(REPLICAS_FIELD, 0)), retired_in(config).until
    streams = topology.stream_configs(copies, retired)
    for stream in streams:
        passed_over = (REPLICAS_FIELD, *TOLERATED_FIELDS.get(stream["name"], ()))
        try:
            is_whole = stream["name"] != topology.LEDGER or not retired  # otherwise it is never made without its events
            await ensure_stream(client, stream, passed_over, creates=is_whole)
        except (UnavailableError, RefusedError) as error:
            if copies == 1:
                raise
            raise type(error)(f"{error}. {_room_advice(copies)}") from error
    return [stream["name"] for stream in streams if stream["name"] not in before]


async def copies_of(client: LedgerClient, stream: str) -> int:
    """Return the number of copies of a stream; 0 if it does not exist."""
    return int((await stream_config(client, stream) or {}).get(REPLICAS_FIELD, 0))


async def raise_copies(operator: LedgerClient, copies: int, created: Collection[str]) -> list[PreparedStream]:
    """Give every stream and consumer of the ledger and of its sources at least this many copies.

    Copies are never removed. ``created`` names the streams that were created just now.

    Raises:
        LedgerError: the server cannot place so many copies, or the connection's user may not change streams.

    """
    names = [stream["name"] for stream in topology.stream_configs()]
    names += [name for name in topology.inbox_streams(await stream_names(operator)) if name not in names]
    states: list[PreparedStream] = []
    for name in names:
        there = await copies_of(operator, name)
        if there < copies:
            await _raise_stream(operator, name, copies)
        await _raise_consumers(operator, name, max(copies, there))
        done = "created" if name in created else "raised" if there < copies else ""
        states.append(PreparedStream(name, max(copies, there), done))
    return states


async def _raise_stream(operator: LedgerClient, name: str, copies: int) -> None:
    config = await stream_config(operator, name)
    try:
        answer = await js_api(operator, f"STREAM.UPDATE.{name}", (config or {}) | {REPLICAS_FIELD: copies})
    except UnavailableError as error:
        raise LedgerError(
            f"stream {name} could not be given {copies} copies: {error}. Only the operator may change streams: name "
            "the operator's user and password in --nats-url"
        ) from error
    if "error" in answer:
        raise _placement_error(answer["error"], f"stream {name}", copies)


async def _raise_consumers(operator: LedgerClient, stream: str, copies: int) -> None:
    """Give durable consumers as many copies as their stream; other consumers follow their stream."""
    answer = await js_api(operator, f"CONSUMER.NAMES.{stream}")
    infos = await asyncio.gather(
        *(js_api(operator, f"CONSUMER.INFO.{stream}.{name}") for name in answer.get("consumers") or ())
    )
    for config in (info["config"] for info in infos if "config" in info):
        name = config.get("durable_name")
        if name and 0 < config.get(REPLICAS_FIELD, 0) < copies:
            body = {"stream_name": stream, "config": config | {REPLICAS_FIELD: copies}, "action": "update"}
            subject = f"CONSUMER.DURABLE.CREATE.{stream}.{name}"
            until = time.monotonic() + _TIMEOUT_SECONDS
            while (answer := await js_api(operator, subject, body)).get("error", {}).get(
                "err_code"
            ) == _MORE_THAN_STREAM:
                if time.monotonic() > until:
                    break
                await asyncio.sleep(_RETRY_SECONDS)  # the stream's own copies are not complete yet
            if "error" in answer:
                raise _placement_error(answer["error"], f"consumer {stream}/{name}", copies)


def _placement_error(error: ApiError, resource: str, copies: int) -> LedgerError:
    text = f"{resource} could not be given {copies} copies"
    if error.get("err_code") in _NO_PLACEMENT:
        return LedgerError(f"{text}: {error.get('description')}. {_room_advice(copies)}")
    return jetstream_error(error, text)


def _room_advice(copies: int) -> str:
    return (
        f"{copies} copies need {copies} or more NATS servers in one cluster, each with room for one: when they run, "
        "run `resolution-ledger admin init` again"
    )


_MORE_THAN_STREAM = 10126
_TIMEOUT_SECONDS, _RETRY_SECONDS = 20.0, 0.2
_NO_PLACEMENT = frozenset((10005, 10074))
"""Error codes: no suitable peers for placement; several copies on a server outside a cluster."""
