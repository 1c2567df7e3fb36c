"""Retirement of a stream's old messages: the stream is made again without them, by way of a copy.

Mirrors keep sequences, times and bytes. Each step can be repeated. Every state but the first and the last has the
mark `RETIRING` in the metadata of the stream or of the copy, so that an interrupted retirement is noticed and goes on:

    LEDGER open                        nothing was done
    LEDGER fenced                      it takes no message, since it has another subject
    LEDGER fenced,  COPY a mirror      the copy is being made
    LEDGER fenced,  COPY sealed        the copy is complete; it holds a subject, so that no process makes
                                       an empty LEDGER
    no LEDGER,      COPY sealed
    LEDGER a mirror, COPY sealed       the stream is being made again
    LEDGER a mirror, no COPY
    LEDGER open                        done: its metadata says what has left it
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ledger.errors import LedgerError, UnavailableError, jetstream_error
from ledger.store.atomic_batches import MAX_BATCH
from ledger.store.log import Log
from ledger.store.streams import RETIRED_DIGEST, RETIRED_UNTIL, js_api, stream_config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ledger.nats.client import LedgerClient
    from ledger.store.api_types import ApiAnswer, StreamConfig
    from ledger.store.log import Recorded

RETIRING = "resolution-ledger-retiring"
"""Metadata of the stream and of its copy: the retirement that is not complete."""
COPY = "_KEPT"
"""The ending of the copy's name."""
_BEFORE = "resolution-ledger-retiring-before"
"""Metadata of a fenced stream: the fields by which it took messages."""
_NO_STREAM = 10059
_POLL_SECONDS, _SETTLED_SECONDS, _STALLED_SECONDS, _ELECTION_SECONDS = 0.1, 1.0, 60.0, 20.0
_NOT_OF_A_MIRROR = ("subjects", "subject_transform", "republish", "allow_atomic", "duplicate_window", "first_seq")


class Retirement(NamedTuple):
    """The events that leave a stream: the last position, its digest, and the configuration of the stream afterwards."""

    until: int
    digest: str
    config: dict[str, Any]


class UnfinishedRetirementError(LedgerError):
    """A retirement was interrupted, or goes on now; until it is complete the stream is used by nothing else."""

    def __init__(self, stream: str, until: int) -> None:
        super().__init__(
            f"the events of {stream} up to position {until} are being retired, or that was interrupted: run "
            "`resolution-ledger admin archive --retire-before` again, which goes on"
        )


async def unfinished_retirement(client: LedgerClient, stream: str) -> Retirement | None:
    """Return the retirement of a stream that is not complete; ``None`` if there is none.

    Raises:
        LedgerError: the server does not answer, or refuses.
    """
    config = await stream_config(client, stream)
    return _retirement_in(config if config is not None else await stream_config(client, stream + COPY))


def _retirement_in(config: StreamConfig | None) -> Retirement | None:
    told = ((config or {}).get("metadata") or {}).get(RETIRING)
    return None if told is None else Retirement(*json.loads(told))


class StreamRetirement:
    """Makes a stream again without its old messages. ``client`` is the operator's connection."""

    def __init__(
        self,
        client: LedgerClient,
        stream: str,
        subject: str,
        require_archive: Callable[[Retirement], Awaitable[None]],
        progressed: Callable[[int, int], None],
    ) -> None:
        """``subject`` is one of the declared stream that is not used: the complete copy holds it.

        So the server refuses an empty stream, and a publisher is told that no stream takes its event, and waits. A copy
        with all subjects would refuse the event for good.
        ``require_archive`` raises ``LedgerError`` where the archive lacks the events that leave.
        """
        self._subject = subject
        self._client, self._stream, self._copy = client, stream, stream + COPY
        self._require_archive, self._progressed = require_archive, progressed

    async def begin(self, until: int, digest: str, taken: dict[str, Any]) -> None:
        """Fence the stream: from now on it takes no message, of any process.

        ``taken`` are the fields of its configuration by which it takes messages afterwards.

        Raises:
            LedgerError: something else reads or copies the stream, or the server refuses.
        """
        copy = await self._info_or_none(self._copy)
        if copy is not None and not copy["config"].get("sealed"):  # an earlier command gave up
            await self._delete(self._copy, copy)
        await self._require_unbound()
        config = (await self._info(self._stream))["config"]
        if _retirement_in(config) is not None:
            raise LedgerError(f"another command retires events of {self._stream}: let it end, or run this again")
        metadata = _metadata_of(config) | {RETIRED_UNTIL: str(until), RETIRED_DIGEST: digest}
        before = {name: value for name, value in config.items() if name in {"subjects", "subject_transform"}}
        mark = json.dumps(Retirement(until, digest, {**config, **taken, "metadata": metadata}))
        fenced: dict[str, Any] = {name: value for name, value in config.items() if name != "subject_transform"}
        fenced["subjects"] = [f"retiring.{self._stream}"]
        fenced["metadata"] = _metadata_of(config) | {RETIRING: mark, _BEFORE: json.dumps(before)}
        await self._change("STREAM.UPDATE", self._stream, fenced)

    async def go_on(self) -> None:
        """Do all that is left; a stream that still has every message is opened again after an error.

        Raises:
            LedgerError: the server refuses or does not answer, a copy differs, or the archive lacks events.
        """
        try:
            while await self._step():
                pass
        except LedgerError as error:
            if await self._undo():
                raise LedgerError(f"nothing was retired, and {self._stream} takes events again: {error}") from error
            raise

    async def _step(self) -> bool:
        """Do the next step; return False if there is none."""
        there, copy = await self._info_or_none(self._stream), await self._info_or_none(self._copy)
        retirement = _retirement_in((there or copy or {}).get("config"))
        if retirement is None:
            if there is None or copy is not None:
                raise LedgerError(f"{self._stream} and {self._copy} are not as a retirement leaves them: keep both")
            return False
        if there is not None and not there["config"].get("mirror"):
            await self._step_before_deletion(retirement, there, copy)
        elif there is None:
            if copy is None or not copy["config"].get("sealed"):
                raise LedgerError(f"{self._stream} is gone, and {self._copy} is not complete: keep the server's folder")
            await self._change("STREAM.CREATE", self._stream, _mirror(retirement, self._stream, self._copy))
        elif copy is not None:
            await self._require_same(self._copy, self._stream, retirement)
            await self._delete(self._copy, copy)
        else:
            await self._change("STREAM.UPDATE", self._stream, retirement.config)
        return True

    async def _step_before_deletion(self, retirement: Retirement, there: ApiAnswer, copy: ApiAnswer | None) -> None:
        """Do the next step while the stream still has every message."""
        if copy is None:
            await self._settle()
            await self._require_archive(retirement)
            mirror = _mirror(retirement, self._copy, self._stream) | {
                "mirror": {"name": self._stream, "opt_start_seq": retirement.until + 1}
            }
            await self._change("STREAM.CREATE", self._copy, mirror)
        elif copy["config"].get("sealed"):
            if copy["state"]["last_seq"] > there["state"]["last_seq"]:
                raise LedgerError(f"{self._stream} lost events after they were copied: keep it and {self._copy}")
            if copy["state"]["last_seq"] < there["state"]["last_seq"]:
                raise LedgerError(
                    f"{self._stream} took a message after it was fenced: see what it is, delete {self._copy} (not "
                    f"{self._stream}) as the operator, and run this again"
                )
            await self._require_archive(retirement)
            await self._require_complete(self._copy, there["state"]["last_seq"])
            await self._delete(self._stream, there)
        else:
            await self._require_same(self._stream, self._copy, retirement)
            sealed = {name: value for name, value in copy["config"].items() if name != "mirror"}
            afterwards = str(retirement.config["subjects"][0]).removesuffix(">") + "retiring"  # not before it is gone
            subjects = [self._subject, afterwards]
            await self._change("STREAM.UPDATE", self._copy, {**sealed, "subjects": subjects, "sealed": True})

    async def _undo(self) -> bool:
        """Open the stream again if it still has every message; return whether it is open.

        Behind a sealed copy it stays fenced, since its deletion may have been requested.
        """
        try:
            there = await self._info_or_none(self._stream)
            metadata = {} if there is None else there["config"].get("metadata") or {}
            if there is None or there["config"].get("mirror") or _BEFORE not in metadata:
                return False
            copy = await self._info_or_none(self._copy)
            if copy is not None and copy["config"].get("sealed"):
                return False
            if copy is not None:
                await self._delete(self._copy, copy)
            opened = {**there["config"], **json.loads(metadata[_BEFORE]), "metadata": _metadata_of(there["config"])}
            await self._change("STREAM.UPDATE", self._stream, opened)
        except LedgerError:
            return False
        return True

    async def _require_same(self, source: str, copy: str, retirement: Retirement) -> None:
        """Wait until a copy is complete on each of its servers; compare all its messages with the source's."""
        state = (await self._info(source))["state"]
        last = state["last_seq"]
        await self._require_complete(copy, last)
        of_source, of_copy = await Log.unstamped(self._client, source), await Log.unstamped(self._client, copy)
        position, count = retirement.until, 0
        while position < last:
            expected = await self._batch(of_source, position)
            found = await self._batch(of_copy, position)
            if expected != found:
                raise LedgerError(f"{copy} differs from {source} after position {position}")
            count += len(expected)
            position = expected[-1].position if expected else last
            self._progressed(position - retirement.until, last - retirement.until)
        stored = (await self._info(copy))["state"]
        if stored["messages"] != count or stored["first_seq"] <= retirement.until:
            raise LedgerError(f"{copy} has {stored['messages']:,} messages where {source} has {count:,}")
        for sequence in (stored["first_seq"], stored["last_seq"]):
            if await self._time_of(source, sequence) != await self._time_of(copy, sequence):
                raise LedgerError(f"{copy} differs from {source} at position {sequence}")

    async def _time_of(self, stream: str, sequence: int) -> str:
        """Return when the server stored a message."""
        answer = await js_api(self._client, f"STREAM.MSG.GET.{stream}", {"seq": sequence})
        if "error" in answer:
            raise jetstream_error(answer["error"], f"{stream} cannot be read")
        return answer["message"]["time"]

    async def _batch(self, log: Log, after: int) -> list[Recorded]:
        """Return the next messages, as the leader has them: a replica that is behind would answer with fewer."""
        deadline = time.monotonic() + _STALLED_SECONDS
        while True:
            found, is_complete = await log.read_batch(">", after, MAX_BATCH)
            if not is_complete or (found and found[-1].position == await log.last_position()):
                return found
            if time.monotonic() > deadline:
                raise UnavailableError(f"{log.stream} cannot be read to its end")
            await asyncio.sleep(_POLL_SECONDS)

    async def _require_complete(self, stream: str, last: int) -> None:
        """Wait until a stream has its last message on each of its servers.

        Raises:
            UnavailableError: nothing arrives for a minute.
        """
        before, deadline = -1, time.monotonic() + _STALLED_SECONDS
        while True:
            info = await self._info(stream)
            replicas = (info.get("cluster") or {}).get("replicas") or []
            behind = [one for one in replicas if not one.get("current") or one.get("offline") or one.get("lag")]
            reached = info["state"]["last_seq"]
            if reached == last and not behind and len(replicas) >= info["config"]["num_replicas"] - 1:
                return
            if reached != before:
                before, deadline = reached, time.monotonic() + _STALLED_SECONDS
            if reached > last or time.monotonic() > deadline:
                names = "".join(f", behind: {one['name']}" for one in behind)
                raise UnavailableError(f"{stream} has reached position {reached:,} instead of {last:,}{names}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _settle(self) -> None:
        """Wait until a fenced stream stands still: messages that it took before may still be stored."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < _SETTLED_SECONDS:
            state = (await self._info(self._stream))["state"]
            if state["last_seq"] != last:
                last, since = state["last_seq"], time.monotonic()
            await asyncio.sleep(_POLL_SECONDS)

    async def _require_unbound(self) -> None:
        """Refuse a stream that a durable consumer or another stream reads: both would end with it.

        Raises:
            LedgerError: a durable consumer, or a stream that copies it.
        """
        names = (await js_api(self._client, f"CONSUMER.NAMES.{self._stream}")).get("consumers") or []
        infos = [await js_api(self._client, f"CONSUMER.INFO.{self._stream}.{name}") for name in names]
        configs: list[Any] = [info.get("config", {}) for info in infos]
        bound = [f"consumer {config['durable_name']}" for config in configs if config.get("durable_name")]
        offset, total = 0, 1
        while offset < total:
            answer = await js_api(self._client, "STREAM.LIST", {"offset": offset})
            if "error" in answer:
                raise jetstream_error(answer["error"], "the streams cannot be listed")
            streams: list[Any] = answer.get("streams") or []
            for config in (one["config"] for one in streams):
                sources = [config.get("mirror") or {}, *(config.get("sources") or [])]
                if self._stream in {source.get("name") for source in sources}:
                    bound.append(f"stream {config['name']}")
            offset, total = offset + max(1, len(streams)), answer.get("total", 0)
        if bound:
            raise LedgerError(
                f"{', '.join(bound)} would end with {self._stream}, which is made again: delete it, and create it "
                "again afterwards, from the position that it had reached"
            )

    async def _delete(self, stream: str, seen: ApiAnswer) -> None:
        """Delete a stream, unless it is another one than was seen, or in another state.

        A process that was suspended meanwhile would delete the work of the command that went on.
        """
        there = await self._info(stream)
        if (there["created"], there["config"]) != (seen["created"], seen["config"]):
            raise LedgerError(f"{stream} was changed by another command: run this again")
        await self._change("STREAM.DELETE", stream)

    async def _change(self, request: str, stream: str, body: dict[str, Any] | None = None) -> None:
        what = f"{request}.{stream}"
        try:
            answer = await js_api(self._client, what, body)
        except UnavailableError as error:
            advice = "if the server runs: only the operator may do that, so name that user in --nats-url"
            raise UnavailableError(f"{error}; {advice}") from error
        if "error" in answer:
            raise jetstream_error(answer["error"], what)

    async def _info(self, stream: str) -> ApiAnswer:
        info = await self._info_or_none(stream)
        if info is None:
            raise UnavailableError(f"the server does not show stream {stream}")
        return info

    async def _info_or_none(self, stream: str) -> ApiAnswer | None:
        deadline = time.monotonic() + _ELECTION_SECONDS
        while True:
            info = await js_api(self._client, f"STREAM.INFO.{stream}")
            if info.get("error", {}).get("err_code") == _NO_STREAM:
                return None
            if "error" not in info:
                return info
            if time.monotonic() > deadline:
                raise jetstream_error(info["error"], stream)
            await asyncio.sleep(_POLL_SECONDS)  # the servers of a new stream elect their leader


def _metadata_of(config: StreamConfig) -> dict[str, str]:
    """Return a stream's metadata without the server's own and without the marks of a retirement."""
    metadata = config.get("metadata") or {}
    ours = {name: value for name, value in metadata.items() if not name.startswith("_nats.")}
    return {name: value for name, value in ours.items() if name not in {RETIRING, _BEFORE}}


def _mirror(retirement: Retirement, name: str, source: str) -> dict[str, Any]:
    """Return the configuration of a mirror, with the mark of the retirement."""
    config = {field: value for field, value in retirement.config.items() if field not in _NOT_OF_A_MIRROR}
    metadata = retirement.config["metadata"] | {RETIRING: json.dumps(retirement)}
    return {**config, "name": name, "mirror": {"name": source}, "metadata": metadata}
