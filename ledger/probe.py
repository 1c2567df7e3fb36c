"""One request to a NATS server over a connection of its own, without an event loop."""

from __future__ import annotations

import json
import socket

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
