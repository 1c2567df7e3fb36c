"""Ports of this machine: one request to the NATS server at one, without an event loop; a free one for it."""

from __future__ import annotations

import json
import socket
from contextlib import suppress

from ledger.errors import ServerStartError

_SECONDS = 2


def request_once(port: int, user: str, password: str, subject: str, body: bytes = b"") -> bytes | None:
    """Return the answer of a server on this machine; nothing where it is not there, or refuses.

    ``{server_id}`` in the subject is the server's own.
    """
    login = {"user": user, "pass": password, "verbose": False, "pedantic": False, "lang": "probe", "version": "1"}
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
            connection.settimeout(_SECONDS)
            file = connection.makefile("rwb")
            kind, _, info = file.readline().partition(b" ")
            if kind != b"INFO":
                return None
            to = subject.replace("{server_id}", json.loads(info)["server_id"])
            file.write(b"CONNECT %b\r\nSUB _probe 1\r\n" % json.dumps(login).encode())
            file.write(b"PUB %b _probe %d\r\n%b\r\nPING\r\n" % (to.encode(), len(body), body))
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


def choose_port(before: int) -> int:
    """Return the port that a server had before, so that its clients find it again; another where that is taken."""
    for wanted in (before, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            port: int = probe.getsockname()[1]
            return port
    message = "no port is free on 127.0.0.1"
    raise ServerStartError(message)
