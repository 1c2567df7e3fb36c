"""The fuzzer: hostile input by the three doors of a running `up` (inbox, requests, HTTP), then what must still hold.

By hand: `.venv/bin/python -m tests.support.fuzzer --minutes 60`. A failure names the seed; with `--seed` and `--first` and
`--inputs` the same bytes are sent again. Half of the inputs are a warm-up: memory is compared with what it was then.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from consumers.rejections import RejectedEntry
from consumers.seal.archive_service import archive_of
from ledger.encryption.keyring import Keyring
from ledger.nats.client import LedgerClient, connect
from ledger.store.log import Log
from ledger.store.subject_tokens import NO_SOURCE, is_source_token
from tests.support.builders import event, gbp
from tests.support.environment import ROOT, clean_environment
from tests.support.fuzz_inputs import Input, make_input
from tests.support.organisations import BASIC_POLICY
from tests.support.raw_nats import RawNats
from tests.support.up_process import operator_url

GROWTH_KIB = 50 * 1024
_PROCESSES = {"up", "projections", "guard", "seal archive webhooks", "dashboard"}
_TOGETHER = 200
_CONNECTIONS = 16
_ANSWER_SECONDS = 15.0
_HTTP_SECONDS = 5.0
_DRAIN_SECONDS = 120.0
_NEVER_SERVED = {b"", b"*", b">", b"dashboard", b"ledger"}
"""Tokens of a subject under which the server refuses an upstream's message, or no service listens."""


class Running:
    """An `up` with its processes; its output goes to a file."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.log = data_dir.with_suffix(".log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "up", "--port", "0", "--data-dir", str(data_dir)],
                cwd=ROOT,
                env=clean_environment(),
                stdout=output,
                stderr=output,
            )

    async def connection(self) -> dict[str, Any]:
        """The document of connection.json, as soon as it is there."""
        path = self.data_dir / "connection.json"
        for _ in range(600):
            if path.exists():
                document: dict[str, Any] = json.loads(path.read_text())
                return document
            await asyncio.sleep(0.1)
        raise AssertionError(self.log.read_text(errors="replace")[-3000:])

    def processes(self) -> dict[str, tuple[int, int]]:
        """Our processes, without the NATS server: what each runs, its id and its memory (RSS) in KiB."""
        parents: dict[int, list[int]] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError, IndexError):
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    parents.setdefault(parent, []).append(int(folder.name))
        found: dict[str, tuple[int, int]] = {}
        for pid in (self.process.pid, *parents.get(self.process.pid, [])):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if (name := _role_of(words)) is None:
                    continue
                status = Path(f"/proc/{pid}/status").read_text()
                found[name] = pid, int(status.partition("VmRSS:")[2].split()[0])
        return found

    def stop(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def _role_of(words: list[bytes]) -> str | None:
    """Return the role of a process of ours by its command line, e.g. ``guard``; ``None`` for another process."""
    if b"up" in words:
        return "up"
    if not any(word.endswith(b"resolution_ledger/__main__.py") for word in words):
        return None
    roles = words[words.index(b"run") + 1 :]
    return b" ".join(roles[: next(at for at, word in enumerate(roles) if word.startswith(b"-"))]).decode()


class Fuzzer:
    """Sends inputs, remembers what was acknowledged, and what must not have happened."""

    def __init__(self, seed: int, up: Running) -> None:
        self.seed = seed
        self.up = up
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.acknowledged: dict[tuple[str, int], bytes] = {}
        """Where each message stands, by stream and sequence; and its source's token."""
        self.url = self.http_host = self.http_token = ""
        self._address = 0

    def fault(self, number: int, text: str) -> None:
        """Note what must not happen."""
        self.counts["fault"] += 1
        if len(self.faults) < 20:
            self.faults.append(f"input {number} (--seed {self.seed} --first {number} --inputs 1): {text}")

    async def open(self) -> None:
        """Wait for `up`; a policy and an agent."""
        found = await self.up.connection()
        self.url, self.http_token = found["nats_url"], found["http_token"]
        self.http_host = urlsplit(found["http_url"]).netloc
        async with RawNats(operator_url(self.up.data_dir)) as raw:
            policy = {"request_id": "policy-1", "policy": BASIC_POLICY, "published_by": "owner"}
            assert b'"done"' in await raw.answer(b"resolution.operate.owner.policy", json.dumps(policy).encode())

    async def send(self, first: int, number: int) -> None:
        """Send these inputs."""
        async with AsyncExitStack() as stack:
            raw = await stack.enter_async_context(RawNats(self.url))
            for begin in range(first, first + number, _TOGETHER):
                numbers = range(begin, min(begin + _TOGETHER, first + number))
                inputs = {one: make_input(self.seed, one, self.http_token, self.http_host) for one in numbers}
                if raw.closed.is_set():
                    self.counts["reconnected"] += 1
                    raw = await stack.enter_async_context(RawNats(self.url))
                await asyncio.gather(self._messages(raw, inputs), self._others(inputs))

    async def _messages(self, raw: RawNats, inputs: dict[int, Input]) -> None:
        asked = {
            number: raw.ask(one.subject, one.body, one.headers)
            for number, one in inputs.items()
            if one.door in ("inbox", "request")
        }
        if asked:
            ended: asyncio.Future[Any] = asyncio.ensure_future(raw.closed.wait())
            everything: asyncio.Future[Any] = asyncio.ensure_future(_all_answers(asked, inputs))
            waits: set[asyncio.Future[Any]] = {ended, everything}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
        for number, answer in asked.items():
            door = inputs[number].door
            if answer.done():
                self._answered(number, inputs[number], answer.result())
            else:
                self.counts[f"{door}: no answer"] += 1
                if (
                    door == "request"
                    and not raw.closed.is_set()
                    and not raw.errors
                    and _must_be_answered(inputs[number])
                ):
                    self.fault(number, f"no answer to {inputs[number].subject!r}")
        raw.errors.clear()

    def _answered(self, number: int, one: Input, answer: bytes) -> None:
        door = one.door
        body = answer.rpartition(b"\r\n\r\n")[2] if answer.startswith(b"NATS/1.0") else answer
        try:
            document = json.loads(body)
        except ValueError:
            self.counts[f"{door}: nobody there" if b"503" in answer[:12] else f"{door}: odd answer"] += 1
            return
        if door == "inbox":
            taken = "seq" in document and "error" not in document
            if taken and not document.get("duplicate"):
                self.acknowledged[document["stream"], document["seq"]] = one.subject.rpartition(b".")[2]
            self.counts["inbox: acknowledged" if taken else "inbox: refused"] += 1
            return
        error = document.get("error") or {}
        self.counts[f"request: {document.get('outcome') or document.get('status') or 'other'}"] += 1
        if error.get("code") == "internal":
            self.fault(number, f"an error of ours: {body[:300]!r}")

    async def _others(self, inputs: dict[int, Input]) -> None:
        gate = asyncio.Semaphore(_CONNECTIONS)

        async def send(number: int, one: Input) -> None:
            async with gate:
                await (self._http(number, one.raw) if one.door == "http" else self._protocol(one.raw))

        await asyncio.gather(*(send(number, one) for number, one in inputs.items() if one.door in ("http", "protocol")))

    async def _protocol(self, data: bytes) -> None:
        self.counts["protocol"] += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            async with RawNats(self.url) as raw:
                raw.write(data)
                await raw.flush(0.2)

    async def _http(self, number: int, data: bytes) -> None:
        host, _, port = self.http_host.rpartition(":")
        self._address = self._address % 250 + 2  # wrong logins count against an address
        answer = b""
        try:
            reader, writer = await asyncio.open_connection(host, int(port), local_addr=(f"127.0.0.{self._address}", 0))
            writer.write(data)
            with suppress(TimeoutError):
                answer = await asyncio.wait_for(reader.read(65536), 1.0)
            writer.close()
        except OSError:
            self.counts["http: connection ended"] += 1
            return
        status = answer[9:12].decode(errors="replace") if answer.startswith(b"HTTP/1.") else "none"
        self.counts[f"http: {status}"] += 1
        if status.startswith("5") and status != "503":
            self.fault(number, f"HTTP {status} to {data[:200]!r}: {answer[-200:]!r}")


async def _all_answers(asked: dict[int, asyncio.Future[bytes]], inputs: dict[int, Input]) -> None:
    """Wait for answers: long where one must come, briefly where the server may swallow the message."""
    needed = {answer for number, answer in asked.items() if _must_be_answered(inputs[number])}
    if needed:
        await asyncio.wait(needed, timeout=_ANSWER_SECONDS)
    if others := set(asked.values()) - needed:
        await asyncio.wait(others, timeout=1)


def _must_be_answered(one: Input) -> bool:
    """Return whether a message reaches a service: its subject has no wildcard, empty token, lost CR or reserved source."""
    tokens = one.subject.split(b".")
    return not one.headers and not any(token in _NEVER_SERVED or b"\r" in token for token in tokens)


@asynccontextmanager
async def _operator(fuzzer: Fuzzer) -> AsyncIterator[LedgerClient]:
    """Connect as the operator, who may look at everything."""
    passwords = json.loads((fuzzer.up.data_dir / "server" / "passwords.json").read_text())
    at = urlsplit(fuzzer.url)
    client = await connect(f"nats://operator:{passwords['operator']}@{at.hostname}:{at.port}", "fuzzer")
    try:
        yield client
    finally:
        await client.close()


async def _archived(fuzzer: Fuzzer) -> None:
    """Wait until the archive, the last of all roles, has what is recorded by now."""
    async with _operator(fuzzer) as client:
        end = await (await Log.open(client, "LEDGER")).last_position()
    for _ in range(int(_DRAIN_SECONDS * 5)):
        if archive_of(fuzzer.up.data_dir).last_position >= end:
            break
        await asyncio.sleep(0.2)


async def check(fuzzer: Fuzzer, before: dict[str, tuple[int, int]]) -> list[str]:
    """What does not hold after the last input."""
    wrong = await _goes_on(fuzzer)
    async with _operator(fuzzer) as client:
        wrong += await _is_accounted_for(fuzzer, client)
    after = fuzzer.up.processes()
    if before.keys() != _PROCESSES:
        wrong.append(f"the processes are {sorted(before)}, not {sorted(_PROCESSES)}")
    for name, (pid, memory) in before.items():
        found = after.get(name)
        if found is None or found[0] != pid:
            wrong.append(f"the process of {name!r} ended")
        elif found[1] - memory > GROWTH_KIB:
            wrong.append(f"{name!r} has {(found[1] - memory) >> 10} MiB more than after the warm-up")
    memory_text = ", ".join(
        f"{name} {(before[name][1]) >> 10} -> {kib >> 10}" for name, (_, kib) in after.items() if name in before
    )
    print("memory, MiB:", memory_text)
    return wrong


async def _goes_on(fuzzer: Fuzzer) -> list[str]:
    """A fact, a decision and a report pass."""
    tag = secrets.token_hex(4)
    async with RawNats(fuzzer.url) as raw:

        async def ask(subject: str, document: dict[str, Any]) -> dict[str, Any]:
            answer: dict[str, Any] = {}
            for _ in range(3):  # who gets no answer asks again
                with suppress(TimeoutError):
                    body = await raw.answer(subject.encode(), json.dumps(document).encode())
                    answer = json.loads(body.rpartition(b"\r\n\r\n")[2])
                    break
            return answer

        now = datetime.now(UTC).isoformat(timespec="seconds")  # an input may have published a policy
        policy = {
            "request_id": f"policy-{tag}",
            "policy": BASIC_POLICY | {"effective_from": now},
            "published_by": "owner",
        }
        async with RawNats(operator_url(fuzzer.up.data_dir)) as operator:
            body = await operator.answer(b"resolution.operate.owner.policy", json.dumps(policy).encode())
        said = json.loads(body.rpartition(b"\r\n\r\n")[2])
        if said.get("outcome") != "done":
            return [f"no policy can be published: {said}"]
        agent = event(f"join-{tag}", "employee.joined", "hr", employee_id=f"A-{tag}", role="agent", team_ids=["t-1"])
        await ask("resolution.inbox.hr", agent)
        recorded: dict[str, Any] = {}
        deadline = time.monotonic() + _DRAIN_SECONDS
        while recorded.get("status") != "recorded" and time.monotonic() < deadline:
            recorded = await ask("resolution.read.hr.receipt", {"id": agent["id"]})
            await asyncio.sleep(0.1)
        if recorded.get("status") != "recorded":
            return [f"a fact is not recorded: {recorded}"]
        request = {
            "request_id": f"r-{tag}",
            "agent_id": f"A-{tag}",
            "kind": "refund",
            "amount": gbp("1.00"),
            "reason": "late",
        }
        taken = await ask("resolution.decide.hr.action", request)
        if taken.get("outcome") != "taken":
            return [f"a decision does not pass: {taken}"]
    report = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable,
            "-m",
            "app",
            "report",
            "balances",
            "--json",
            "--holder",
            f"agent:A-{tag}",
            "--data-dir",
            str(fuzzer.up.data_dir),
        ],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if report.returncode != 0 or '"1.00"' not in report.stdout:
        return [f"a report does not pass: {report.stdout[-500:]} {report.stderr[-500:]}"]
    return []


async def _is_accounted_for(fuzzer: Fuzzer, client: LedgerClient) -> list[str]:
    """Everything acknowledged is recorded or rejected visibly: by its receipt, asked for as the acknowledgement names it."""
    rejections = await _rejections(client)
    wrong = [f"rejected as an error of ours: {entry.message}" for entry in rejections if entry.code == "internal"][:10]
    statuses: Counter[str] = Counter()
    lost: list[tuple[str, int]] = []
    places = sorted(place for place, token in fuzzer.acknowledged.items() if _may_ask(token))
    unasked = len(fuzzer.acknowledged) - len(places)
    if sum(not _may_ask(entry.original_subject.rpartition(b".")[2]) for entry in rejections) < unasked:
        wrong.append(f"not all of {unasked} messages of subjects that no source has are rejected")
    deadline = time.monotonic() + _DRAIN_SECONDS
    while places:
        pending: list[tuple[str, int]] = []
        for begin in range(0, len(places), _TOGETHER):
            part = places[begin : begin + _TOGETHER]
            for place, status in zip(part, await _receipts(client, fuzzer, part), strict=True):
                if status == "pending":
                    pending.append(place)
                    continue
                statuses[status] += 1
                if status not in ("recorded", "rejected", "duplicate"):
                    lost.append(place)
                    wrong.append(f"{place} of {fuzzer.acknowledged[place]!r}: {status}") if len(lost) < 5 else None
        places = pending
        if time.monotonic() > deadline:
            lost += pending
            break
    print("acknowledged:", len(fuzzer.acknowledged), dict(statuses), "rejected in all:", len(rejections))
    if lost:
        wrong.append(f"{len(lost)} acknowledged messages are neither recorded nor rejected, e.g. {lost[:5]}")
    return wrong


def _may_ask(token: bytes) -> bool:
    """Return whether receipts by place are answered under this token."""
    return token.isascii() and is_source_token(token.decode()) and token != NO_SOURCE.encode()


async def _receipts(client: LedgerClient, fuzzer: Fuzzer, places: list[tuple[str, int]]) -> list[str]:
    async def one(stream: str, sequence: int) -> str:
        token = fuzzer.acknowledged[stream, sequence].decode()
        body = json.dumps({"stream": stream, "seq": sequence}).encode()
        answer = json.loads((await client.request(f"resolution.read.{token}.receipt", body, timeout=60)).data)
        return str(answer.get("status") or answer)

    return list(await asyncio.gather(*(one(*place) for place in places)))


async def _rejections(client: LedgerClient) -> list[RejectedEntry]:
    log, keys = await Log.open(client, "REJECTED"), await Keyring.open(client)
    found: list[RejectedEntry] = []
    async for batch in log.subject_batches("rejected.>"):
        found += [msgspec.json.decode(await keys.decrypt_fields(one.data), type=RejectedEntry) for one in batch]
        for entry in found[-len(batch) :]:
            base64.b64decode(entry.data, validate=True)
    return found


async def fuzz(seed: int, inputs: int, *, minutes: float = 0, first: int = 0) -> list[str]:
    """Fuzz; return what does not hold."""
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        up = Running(Path(folder) / "data")
        try:
            fuzzer = Fuzzer(seed, up)
            await fuzzer.open()
            at, begun, before = first, time.monotonic(), up.processes()
            half_size, half_seconds = inputs // 2, minutes * 30
            for half in (1, 2):
                ends, size = begun + half * half_seconds, at + half_size if half == 1 else first + inputs
                while at < size or time.monotonic() < ends:
                    step = min(2000, size - at) if at < size else 2000
                    await fuzzer.send(at, step)
                    at += step
                await _archived(fuzzer)  # each role has done what it does, so that memory can be compared
                if half == 1:
                    before = up.processes()
                    print(f"warm-up of {at - first} inputs: {time.monotonic() - begun:.0f} s", flush=True)
            print(
                f"{at - first} inputs: {time.monotonic() - begun:.0f} s",
                dict(sorted(fuzzer.counts.items())),
                flush=True,
            )
            wrong = [*fuzzer.faults, *await check(fuzzer, before)]
        finally:
            status = up.stop()
        if status != 0:
            wrong.append(f"`up` ended with status {status}")
        if wrong:
            print(up.log.read_text(errors="replace")[-5000:])
        return wrong


def main() -> None:
    """Fuzz as the options say; exit 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**9), help="the same seed makes the same inputs"
    )
    parser.add_argument("--inputs", type=int, default=20_000, help="at least so many")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--minutes", type=float, default=0, help="at least so long")
    found = parser.parse_args()
    wrong = asyncio.run(fuzz(found.seed, found.inputs, minutes=found.minutes, first=found.first))
    print("\n".join(wrong) or "everything holds")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
