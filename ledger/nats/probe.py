"""Requests to a NATS server on this machine without an event loop, and the choice of its port."""

from __future__ import annotations

import json
import socket
from contextlib import suppress

from ledger.errors import ServerStartError

_SECONDS = 2


def request_once(port: int, user: str, password: str, subject: str, body: bytes = b"") -> bytes | None:
    """Return the answer of a server on this machine; None if it is not running, or refuses.

    ``{server_id}`` in the subject is replaced by the server's own id.
    """
    login = {"user": user, "pass": password, "verbose": False, "pedantic": False, "lang": "probe", "version": "1"}
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
            connection.settimeout(_SECONDS)
            file = connection.makefile("rwb")
            kind, _, info = file.readline().partition(b" ")
            if kind != b"INFO":
                return None
            target = subject.replace("{server_id}", json.loads(info)["server_id"])
            file.write(b"CONNECT %b\r\nSUB _probe 1\r\n" % json.dumps(login).encode())
            file.write(b"PUB %b _probe %d\r\n%b\r\nPING\r\n" % (target.encode(), len(body), body))
            file.flush()
            for _ in range(4):
                line = file.readline()
                if line.startswith(b"MSG _probe"):
                    return file.read(int(line.split()[-1]))
                if not line or line.startswith(b"-ERR"):
                    return None
    except (OSError, ValueError, KeyError):
        return None
    return None


def choose_port(previous: int) -> int:
    """Return the server's previous port, so that its clients find it again, or a free port if it is in use."""
    for candidate in (previous, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
            port: int = probe.getsockname()[1]
            return port
    raise ServerStartError("no port is free on 127.0.0.1")
