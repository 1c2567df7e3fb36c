"""JetStream streams and consumers: creation, and verification against their declarations without silent repair."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import nats.errors

from ledger.errors import (
    DriftError,
    LazyFsyncError,
    LedgerError,
    LostEventsError,
    MissingStreamsError,
    UnavailableError,
    jetstream_error,
    reason_of,
)
from ledger.nats.server_version import OLDEST_SERVER, OLDEST_SERVER_TEXT
from ledger.store.api_types import StreamConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from nats.aio.msg import Msg

    from ledger.nats.client import LedgerClient
    from ledger.store.api_types import ApiAnswer
    from ledger.store.json_text import Json, JsonObject

    type Declared = Mapping[str, Json]
    """The declaration of a stream or a consumer: a part of its configuration."""

_log = logging.getLogger(__name__)
API_TIMEOUT_SECONDS = 10
_NOT_FOUND = 10059
_NAME_IN_USE = 10058
_NO_FIELDS: Mapping[str, Collection[str]] = MappingProxyType({})
REPLICAS_FIELD: Final = "num_replicas"
_READ_REQUESTS = re.compile(r"^(?:INFO|(?:STREAM|CONSUMER)\.(?:INFO|NAMES|LIST)|STREAM\.MSG\.GET)\b")
_AGAIN_SECONDS = 0.5


async def js_api(client: LedgerClient, subject: str, body: Mapping[str, Json] | None = None) -> ApiAnswer:
    """Send one request to the JetStream API; errors are in the answer's ``error``.

    A request that only reads is repeated twice a second, and its first answer counts: without a leader no server
    answers, and the next leader never receives the earlier requests.

    Raises:
        UnavailableError: no answer in time.
    """
    data = json.dumps(body).encode() if body is not None else b""
    again = _AGAIN_SECONDS if _READ_REQUESTS.search(subject) else API_TIMEOUT_SECONDS
    try:
        answer = await _first_answer(client, f"$JS.API.{subject}", data, again)
    except (nats.errors.Error, OSError) as error:
        raise UnavailableError(f"JetStream gave no answer to {subject}: {reason_of(error)}") from error
    parsed: ApiAnswer = json.loads(answer.data)
    return parsed


async def _first_answer(client: LedgerClient, subject: str, data: bytes, again_seconds: float) -> Msg:
    requests: set[asyncio.Task[Msg]] = set()
    deadline = time.monotonic() + API_TIMEOUT_SECONDS
    try:
        while (seconds_left := deadline - time.monotonic()) > 0:
            requests.add(asyncio.create_task(client.request(subject, data, timeout=seconds_left)))
            done, requests = await asyncio.wait(
                requests, timeout=min(again_seconds, seconds_left), return_when="FIRST_COMPLETED"
            )
            if done:
                return done.pop().result()
        raise nats.errors.TimeoutError
    finally:
        for task in requests:
            task.cancel()


async def ensure_stream(
    client: LedgerClient, wanted: Declared, ignored: Collection[str] = (), *, creates: bool = True
) -> ApiAnswer:
    """Create a missing stream, or verify every declared field of an existing one except ``ignored``.

    Raises:
        MissingStreamsError: it is missing, and ``creates`` is false.
        DriftError: a field differs from its declaration.
        UnavailableError: no answer, or the server cannot create it.
    """
    name = str(wanted["name"])
    info = await js_api(client, f"STREAM.INFO.{name}")
    if info.get("error", {}).get("err_code") == _NOT_FOUND:
        if not creates:
            raise MissingStreamsError([name])
        info = await js_api(client, f"STREAM.CREATE.{name}", wanted)
        if info.get("error", {}).get("err_code") == _NAME_IN_USE:  # another process created it
            info = await js_api(client, f"STREAM.INFO.{name}")
    if "error" in info:
        raise jetstream_error(info["error"], f"stream {name} cannot be used")
    for field, value, found in differing_fields(info["config"], wanted):
        if field not in ignored:
            raise DriftError(name, field, value, found)
    return info


async def verify_streams(
    client: LedgerClient, wanted: Sequence[Declared], ignored: Mapping[str, Collection[str]] = _NO_FIELDS
) -> None:
    """Check that streams exist as declared, and create none; ``ignored`` has fields by stream.

    The number of replicas is not checked: it may exceed this process's setting, or be lower temporarily.

    Raises:
        MissingStreamsError: some do not exist.
        DriftError: a field differs from its declaration.
        LedgerError: the server does not answer, or refuses.
    """
    configs = await asyncio.gather(*(stream_config(client, str(declared["name"])) for declared in wanted))
    if missing := [str(declared["name"]) for declared, config in zip(wanted, configs, strict=True) if config is None]:
        raise MissingStreamsError(missing)
    for declared, config in zip(wanted, configs, strict=True):
        name = str(declared["name"])
        for field, value, found in differing_fields(config or {}, declared):
            if field != REPLICAS_FIELD and field not in ignored.get(name, ()):
                raise DriftError(name, field, value, found)


def differing_fields(config: Mapping[str, Json], wanted: Declared) -> Iterator[tuple[str, Json, Json]]:
    """Yield each declared field that differs in a stream's configuration: its name, the declared and the found value.

    More replicas than declared are not a difference.
    """
    for field, value in wanted.items():
        found = _field_of(config, field)
        more_replicas = isinstance(found, int) and isinstance(value, int) and field == REPLICAS_FIELD and found > value
        if found != value and not more_replicas:
            yield field, value, found


_ABSENT: JsonObject = {
    "max_age": 0,
    "deny_delete": False,
    "deny_purge": False,
    "sealed": False,
    "placement": None,
    "allow_atomic": False,
    "allow_rollup_hdrs": False,
    "discard_new_per_subject": False,
}
"""Defaults that the server leaves out of its answer."""


def _field_of(config: Mapping[str, Json], field: str) -> Json:
    return config.get(field, _ABSENT.get(field))


async def stream_config(client: LedgerClient, name: str) -> StreamConfig | None:
    """Return a stream's configuration, None if there is no such stream.

    Raises:
        LedgerError: the server does not answer, or refuses.
    """
    info = await js_api(client, f"STREAM.INFO.{name}")
    if info.get("error", {}).get("err_code") == _NOT_FOUND:
        return None
    if "error" in info:
        raise jetstream_error(info["error"], name)
    return info["config"]


def has_fields(config: Mapping[str, Json], fields: Mapping[str, Json]) -> bool:
    """Return whether a stream's configuration has all these values."""
    return all(_field_of(config, field) == value for field, value in fields.items())


async def update_stream(client: LedgerClient, wanted: Declared, metadata: dict[str, str]) -> None:
    """Update a stream to its declaration, and add ``metadata``; other fields are kept.

    Raises:
        LedgerError: the server refuses, or the connection's user may not update streams.
    """
    name = wanted["name"]
    config = await stream_config(client, str(name)) or StreamConfig()
    changed = {**config, **wanted, "metadata": config.get("metadata", {}) | metadata}
    answer = await js_api(client, f"STREAM.UPDATE.{name}", changed)
    if "error" in answer:
        raise jetstream_error(answer["error"], f"stream {name} cannot be updated")


async def stream_names(client: LedgerClient, subject: str = "") -> list[str]:
    """Return the names of all streams, or of those whose subjects match ``subject``.

    Raises:
        LedgerError: the server does not answer, or refuses.
    """
    names: list[str] = []
    while True:
        request: JsonObject = {"offset": len(names)} | ({"subject": subject} if subject else {})
        answer = await js_api(client, "STREAM.NAMES", request)
        if "error" in answer:
            raise jetstream_error(answer["error"], "streams cannot be listed")
        page = [name for name in answer.get("streams") or [] if isinstance(name, str)]
        names += page
        if not page or len(names) >= answer["total"]:
            return names


async def filled_streams(client: LedgerClient) -> list[str]:
    """Return the names of all streams that hold a message.

    Raises:
        LedgerError: the server does not answer, or refuses.
    """
    names: list[str] = []
    listed = 0
    while True:
        answer = await js_api(client, "STREAM.LIST", {"offset": listed})
        if "error" in answer:
            raise jetstream_error(answer["error"], "streams cannot be listed")
        page = [info for info in answer.get("streams") or [] if not isinstance(info, str)]
        listed += len(page)
        names += [info["config"]["name"] for info in page if info["state"]["messages"]]
        if not page or listed >= answer["total"]:
            return names


async def stream_storing(client: LedgerClient, subject: str) -> str:
    """Return the name of the stream that stores a subject, after the server's mappings; empty if none does.

    Nothing is stored: the message expects another stream, and the stream that refuses it answers with its name.

    Raises:
        UnavailableError: no answer in time.
    """
    try:
        answer = await client.request(subject, b"", timeout=API_TIMEOUT_SECONDS, headers={"Nats-Expected-Stream": "-"})
    except nats.errors.NoRespondersError:
        return ""
    except (nats.errors.Error, OSError) as error:
        raise UnavailableError(f"JetStream gave no answer to {subject}: {reason_of(error)}") from error
    return str(json.loads(answer.data).get("stream", ""))


async def ensure_consumer(client: LedgerClient, stream: str, wanted: Declared) -> ApiAnswer:
    """Create a durable consumer, or verify an existing one; return the server's information on it.

    Raises:
        DriftError: it differs from its declaration.
    """
    name = wanted["durable_name"]
    answer = await js_api(
        client,
        f"CONSUMER.DURABLE.CREATE.{stream}.{name}",
        {"stream_name": stream, "config": wanted, "action": "create"},
    )
    if "error" in answer:
        answer = await js_api(client, f"CONSUMER.INFO.{stream}.{name}")
    if "error" in answer:
        raise UnavailableError(f"consumer {stream}/{name} cannot be used: {answer['error'].get('description')}")
    for field, value in wanted.items():
        if (found := answer["config"].get(field)) != value:
            raise DriftError(f"{stream}/{name}", field, value, found)
    return answer


async def server_problem(client: LedgerClient) -> str:
    """Return the problem that the server reports on its own health; empty if there is none."""
    try:
        answer = await client.request("$SYS.REQ.SERVER.PING.HEALTHZ", b"", timeout=5)
        health = json.loads(answer.data)["data"]
    except (nats.errors.Error, TimeoutError, KeyError, ValueError):
        return ""
    return "" if health.get("status") == "ok" else str(health.get("error") or health.get("status"))


async def verify_server(client: LedgerClient, *, allow_lazy_fsync: bool) -> None:
    """Check that the server is new enough and writes to disk before it acknowledges.

    The account must import ``$SYS.REQ.SERVER.PING.VARZ`` from the system account, as in the ledger's configuration of
    the server.

    Raises:
        LedgerError: the server is older than 2.12.4.
        LazyFsyncError: it acknowledges before it has written, or does not say, and that is not allowed.
    """
    verify_version(client)
    synced = await syncs_always(client)
    if synced:
        return
    problem = "acknowledges events before they are on disk"
    if synced is None:
        problem = "does not say whether it writes events to disk before it acknowledges them"
    advice = "set `jetstream { sync_interval: always }` and the accounts of config/nats/nats-server.conf"
    if not allow_lazy_fsync:
        raise LazyFsyncError(f"the NATS server {problem}: {advice}, or accept losing events with --allow-lazy-fsync")
    _log.warning("EVENTS CAN BE LOST IN A POWER FAILURE: the NATS server %s; %s", problem, advice)


def verify_version(client: LedgerClient) -> None:
    """Check that the server takes atomic batches with several expected sequences.

    Raises:
        LedgerError: it is older than 2.12.4.
    """
    version = client.connected_server_version
    if (version.major, version.minor, version.patch) < OLDEST_SERVER:
        raise LedgerError(
            f"nats-server {version} does not take the ledger's batches; run {OLDEST_SERVER_TEXT} or newer"
        )


async def syncs_always(client: LedgerClient) -> bool | None:
    """Return whether the server writes to disk before it acknowledges; None if this account may not know."""
    try:
        answer = await client.request("$SYS.REQ.SERVER.PING.VARZ", b"", timeout=2)
        return bool(json.loads(answer.data)["data"]["jetstream"]["config"].get("sync_always"))
    except (nats.errors.Error, TimeoutError, KeyError, ValueError):
        return None


RETIRED_UNTIL = "resolution-ledger-retired-until"
"""Metadata of a stream: the last position that has left it; the archive has it."""
RETIRED_DIGEST = "resolution-ledger-retired-digest"
"""Metadata of a stream: the digest of that event, by which the archive of another ledger is noticed."""


_REMADE = (
    "the events of {} up to position {} were retired while this process ran: start it again, with a copy of the "
    "archive in its data directory"
)


class Retired(NamedTuple):
    """The events that have left a stream: the last position (0: nothing) and that event's digest.

    ``names`` is the beginning of the stored subjects, and ``taken_at`` the beginning of the subjects on which the
    server takes new events: it changes with each retirement, so that the server takes nothing of an older process.
    """

    until: int = 0
    digest: str = ""
    names: bytes = b""
    taken_at: bytes = b""

    def published(self, subject: bytes) -> bytes:
        """Return the subject on which the server takes an event with a subject."""
        if not self.names:
            return subject
        if not subject.startswith(self.names):
            raise ValueError(f"{subject!r} is no subject of this stream")
        return self.taken_at + subject[len(self.names) :]


NOTHING_RETIRED = Retired()


class StreamRemadeError(LostEventsError):
    """Old events have left the stream since this process opened it, which ends the process."""

    def __init__(self, stream: str, until: int) -> None:
        super().__init__("events were retired", until)
        self.args = (_REMADE.format(stream, until),)


def retired_in(config: StreamConfig | None) -> Retired:
    """Return the events that have left a stream, as its configuration names them; none for a missing stream."""
    metadata = (config or {}).get("metadata") or {}
    until = int(metadata.get(RETIRED_UNTIL, 0))
    if not until:
        return NOTHING_RETIRED
    transform = (config or {}).get("subject_transform") or {}
    names, taken_at = (transform.get(one, "").removesuffix(">").encode() for one in ("dest", "src"))
    return Retired(until, metadata.get(RETIRED_DIGEST, ""), names, taken_at)
