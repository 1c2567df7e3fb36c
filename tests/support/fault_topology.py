"""A ledger as it is operated: one NATS server or three, and each role in a process of its own that is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Self

from app.runtime.session import Session
from benchmarks.versions import Version, present
from config import topology as streams
from config.settings import load_settings
from ledger.errors import LedgerError
from ledger.store.log import Log
from ledger.store.streams import js_api
from tests.support.fault_links import Disk, Link
from tests.support.fault_schedules import PROCESSES
from tests.support.nats_servers import Cluster, Server
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

_SERVER_MEGABYTES, _ROLE_MEGABYTES = 192, 128
_LAME_DUCK = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "2s"\n'
"""The server accepts no shorter duration."""
_LAME_DUCK_SECONDS, _END_SECONDS, _READY_SECONDS = 60.0, 40.0, 60.0
_RESTART_SECONDS = 0.5


class RoleProcess:
    """One process with one role, started again whenever it ends."""

    def __init__(self, name: str, folder: Path, options: list[str], version: Version) -> None:
        self.name, self.version = name, version
        self.role = name.partition("-")[0]
        self.log = folder.parent / f"{name}.log"
        self.ends: list[str] = []
        """A line for each end of the process that no fault caused."""
        self._options = [*options, "--data-dir", str(folder)]
        self._process: asyncio.subprocess.Process | None = None
        self._expects_end = self._stopping = False
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._from = 0
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The number of the process; 0 before its first start."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it, and keep it running."""
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await self._may_run.wait()
            self._from = self.log.stat().st_size if self.log.exists() else 0
            self._expects_end = False
            with self.log.open("ab") as log:
                words = self.version.command("run", self.role, *self._options)
                environment = self.version.environment()
                self._process = await asyncio.create_subprocess_exec(*words, stdout=log, stderr=log, env=environment)
            status = await self._process.wait()
            if self._stopping:
                return
            if not self._expects_end:
                last = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
                self.ends.append(f"{self.name} ended by itself with status {status}: {last}")
                await asyncio.sleep(_RESTART_SECONDS)

    async def end(self, number: signal.Signals, seconds: float = 0.0, version: Version | None = None) -> None:
        """End it by a signal; start it, or another version of it, after so many seconds."""
        self._may_run.clear()
        self._expects_end = True
        self.send(number)
        if self._process is not None:
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        self.version = version or self.version
        await asyncio.sleep(seconds)
        self._from = self.log.stat().st_size
        self._may_run.set()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens while it does not run."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def until_ready(self) -> None:
        """Wait until the process runs its role."""

        async def text() -> str:
            return self.log.read_bytes()[self._from :].decode(errors="replace")

        await eventually(text, lambda text: f"{self.role} runs" in text, _READY_SECONDS, passing=(OSError,))

    async def stop(self) -> None:
        """End it for good, as a supervisor does."""
        self._stopping = True
        self._may_run.set()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), _END_SECONDS)
            except TimeoutError:
                self.ends.append(f"{self.name} does not end within {_END_SECONDS:.0f} s of SIGTERM")
                self.send(signal.SIGKILL)
                await self._process.wait()
        if self._keeping is not None:
            self._keeping.cancel()


class Topology:
    """A context in which a ledger runs, with means to disturb each of its processes.

    Attributes:
        session: an operator's connections, straight to the servers.
        processes: the roles' processes by name.
        links: the network of each process.

    """

    session: Session

    def __init__(self, folder: Path, servers: int, version: Version | None = None) -> None:
        """``version`` is that of the roles at the start, and of the command that makes the streams."""
        self.folder, self.version = folder, version or present()
        self.processes: dict[str, RoleProcess] = {}
        self.links: dict[str, Link] = {}
        self.disks: dict[str, Disk] = {}
        self._stack = AsyncExitStack()
        for name in [*PROCESSES, *(f"nats/n{number}" for number in range(servers))]:
            disk = Disk(folder / name, _SERVER_MEGABYTES if "/" in name else _ROLE_MEGABYTES)
            self.disks[name.rpartition("/")[2]] = disk
            self._stack.callback(disk.unmount)
        if servers == 1:
            self.servers = [Server(folder / "nats" / "n0")]
        else:
            self.servers = Cluster(folder / "nats", _LAME_DUCK, advertises=False).servers

    @property
    def url(self) -> str:
        """The addresses of all servers."""
        return ",".join(server.url for server in self.servers)

    async def __aenter__(self) -> Self:
        for server in self.servers:
            self._stack.callback(server.stop)
            await asyncio.to_thread(server.start)
        options = {"replicas": len(self.servers), "allow_lazy_fsync": True, "unregistered_sources": "desk"}
        words = [word for name, value in options.items() for word in self._words(name, value)]
        await self._create(self.version, words)
        if self.version != present():
            await self._create(present(), words)  # adds the streams that are new, beside the earlier version
        settings = load_settings({"data_dir": str(self.folder / "operator"), "nats_url": self.url, **options}, {})
        opened = partial(Session(settings, creates=False).__aenter__)
        self.session = await eventually(opened, lambda _: True, 60, passing=(LedgerError,), every_seconds=0.2)
        self._stack.push_async_callback(self.session.close)
        for name in PROCESSES:
            self.links[name] = Link([server.port for server in self.servers])
            await self.links[name].open()
            self._stack.push_async_callback(self.links[name].close)
            named = [*words, "--nats-url", self.links[name].url]
            self.processes[name] = RoleProcess(name, self.folder / name, named, self.version)
            self.processes[name].start()
        self._stack.push_async_callback(self._stop_all)
        await asyncio.gather(*(process.until_ready() for process in self.processes.values()))
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    @staticmethod
    def _words(name: str, value: object) -> list[str]:
        option = f"--{name.replace('_', '-')}"
        return [option] if value is True else [option, str(value)]

    async def _create(self, version: Version, words: list[str]) -> None:
        """Make the streams with the command of a version, as soon as the cluster has a leader."""
        command = version.command(
            "admin", "init", *words, "--nats-url", self.url, "--data-dir", str(self.folder / "init")
        )

        async def status() -> str:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=version.environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            text, _ = await process.communicate()
            return text.decode() if process.returncode else ""

        await eventually(status, lambda text: not text, 60, every_seconds=0.2)

    async def _stop_all(self) -> None:
        for link in self.links.values():
            link.heal()
        await asyncio.gather(*(process.stop() for process in self.processes.values()))

    async def leader(self) -> int:
        """Return the number of the server that leads the stream `LEDGER`, once all copies are current."""
        if len(self.servers) == 1:
            return 0
        while True:
            with contextlib.suppress(LedgerError):
                cluster = (await js_api(self.session.client, f"STREAM.INFO.{streams.LEDGER}")).get("cluster", {})
                copies = cluster.get("replicas", ())
                if cluster.get("leader") and all(one.get("current") and not one.get("offline") for one in copies):
                    return int(cluster["leader"][1:])
            await asyncio.sleep(0.1)

    async def decider_at_work(self) -> str | None:
        """Return the name of the decider that has the lease; none where that is not known, as in an earlier version."""
        with contextlib.suppress(LedgerError, ValueError, KeyError, IndexError):
            log = await Log.unstamped(self.session.client, streams.LEASES)
            newest = await log.read_from_leader("$KV.ledger-leases.decisions")
            pid = int(json.loads(newest.data)["holder"].split("/")[-2]) if newest is not None else 0
            return next((name for name, one in self.processes.items() if one.pid == pid), None)
        return None

    async def server_of(self, target: str) -> int:
        """Return the number of a server that is now a schedule's target: `server`, `leader` or `follower`."""
        leader = await self.leader()
        return leader if target != "follower" else (leader + 1) % len(self.servers)

    async def lame_duck(self, number: int) -> None:
        """Stop a server as an operator does: it hands its streams over, then its clients, and ends."""
        await asyncio.to_thread(self.servers[number].stop, signal.SIGUSR2, _LAME_DUCK_SECONDS)

    async def step_down(self) -> None:
        """Let the leader of `LEDGER` hand over."""
        await js_api(self.session.client, f"STREAM.LEADER.STEPDOWN.{streams.LEDGER}")

    def ends(self) -> list[str]:
        """Return the ends of processes that no fault caused."""
        return [line for process in self.processes.values() for line in process.ends]
