"""Plain nats-servers with JetStream, without the accounts and configuration of the ledger."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from ledger.nats.embedded_server import find_binary


def free_ports(number: int) -> list[int]:
    """Return so many local ports that are free."""
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_for_port(port: int, log: Path, timeout_seconds: float = 20) -> None:
    """Wait until a server listens on a local port; raises AssertionError with the end of its log."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(log.read_text()[-2000:])


class Server:
    """A nats-server with JetStream that syncs always; a context in which it runs."""

    def __init__(self, folder: Path, config: str = "", port: int = 0, jetstream: str | None = None) -> None:
        """``config`` is added to the configuration; ``jetstream`` replaces its section on JetStream."""
        self.port = port or free_ports(1)[0]
        self._folder = folder
        self._config = config
        ours = f'jetstream {{ store_dir: "{folder}", sync_interval: always }}'
        self._jetstream = ours if jetstream is None else jetstream
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the server's address, without credentials."""
        return f"nats://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "server.conf"
        path.write_text(f'port: {self.port}\nhost: "127.0.0.1"\n{self._jetstream}\n{self._config}\n')
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([find_binary(None), "-c", path], stdout=log, stderr=log)
        wait_for_port(self.port, self._folder / "server.log")

    def send(self, number: signal.Signals) -> None:
        """Send the server a signal: SIGSTOP, SIGCONT."""
        assert self._process
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_seconds: float = 20) -> None:
        """End the server and wait until it has ended; do nothing where it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(timeout_seconds)


class Cluster:
    """Three nats-servers, each with JetStream."""

    def __init__(self, folder: Path, config: str = "", *, advertises: bool = True) -> None:
        """``advertises``: the servers tell clients each other's addresses."""
        ports = free_ports(6)
        names = f"name: c, no_advertise: {json.dumps(not advertises)}"
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[3:])
        self.servers = [
            Server(
                folder / f"n{number}",
                f'server_name: n{number}\ncluster {{ {names}, listen: "127.0.0.1:{ports[3 + number]}", routes: [{routes}] }}\n{config}',
                ports[number],
            )
            for number in range(3)
        ]

    @property
    def url(self) -> str:
        """Return the addresses of all three, separated by commas."""
        return ",".join(server.url for server in self.servers)

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for server in self.servers:
            server.stop()
