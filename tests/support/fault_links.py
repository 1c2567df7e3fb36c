"""TCP proxies between one process and its servers, which can stall or cut every connection, and file systems to fill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

_CHUNK_BYTES = 1 << 16


class Link:
    """The network between one process and the servers: one proxy a server, on ports of this machine."""

    def __init__(self, ports: list[int]) -> None:
        self._targets = ports
        self._listeners: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_cut = False
        self.url = ""
        """The addresses of the proxies, separated by commas."""

    async def open(self) -> None:
        """Listen."""
        for target in self._targets:
            listener = await asyncio.start_server(partial(self._serve, target), "127.0.0.1", 0)
            self._listeners.append(listener)
        ports = [listener.sockets[0].getsockname()[1] for listener in self._listeners]
        self.url = ",".join(f"nats://127.0.0.1:{port}" for port in ports)

    def stall(self) -> None:
        """Deliver nothing in either direction until ``heal``; connections stay open."""
        self._flowing.clear()

    def cut(self) -> None:
        """Drop all connections, and refuse new ones until ``heal``."""
        self._is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def heal(self) -> None:
        """Deliver again, also what was delayed."""
        self._is_cut = False
        self._flowing.set()

    async def close(self) -> None:
        """End everything."""
        self.cut()
        for listener in self._listeners:
            listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)
        beyond: asyncio.StreamWriter | None = None
        try:
            answers, beyond = await asyncio.open_connection("127.0.0.1", port)
            self._writers.add(beyond)
            tasks = {asyncio.create_task(self._pump(*pair)) for pair in ((reader, beyond), (answers, writer))}
            self._tasks |= tasks
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks -= tasks
        except OSError:
            pass  # the server is away: so is the connection
        finally:
            for one in (writer, beyond):
                if one is not None:
                    one.transport.abort()
                    self._writers.discard(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()


class Disk:
    """A small file system in memory, mounted on a folder; it needs root."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        self.is_mounted = (
            bool(shutil.which("mount")) and not subprocess.run(words, check=False, capture_output=True).returncode
        )

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            room = os.statvfs(self.folder)
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_bsize)
            file.seek(0, os.SEEK_END)
            while True:
                file.write(b"x" * 4096)

    def free(self) -> None:
        """Make room again."""
        (self.folder / "filler").unlink(missing_ok=True)

    def unmount(self) -> None:
        """Remove the file system."""
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)
