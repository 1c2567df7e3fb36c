"""Routes of the embedded server: subjects that it maps to other subjects, kept in its configuration.

They are an account mapping in a file that the server's configuration includes. The server reads it again when its
system account asks it to; connections stay.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from ledger.errors import UnavailableError
from ledger.files import write_private
from ledger.nats.probe import request_once

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

_log = logging.getLogger(__name__)
_PREFIX = "mappings: "
INCLUDE = 'include "sources.conf"'
"""In the server's configuration behind a `# `, where there are no routes."""


def routes_text(routes: Mapping[str, str]) -> str:
    """Return the lines of a NATS server's configuration that map these subjects, for the account of the ledger."""
    return _PREFIX + json.dumps(dict(sorted(routes.items())), indent=2) + "\n"


class SourceRoutes:
    """The routes of one embedded server, in a file that several processes change in turn."""

    def __init__(self, path: Path, lock: Callable[[], AbstractContextManager[Any]]) -> None:
        self.path = path
        self._lock = lock
        self._port = 0
        self._passwords: Mapping[str, str] = {}

    def set_server(self, port: int, passwords: Mapping[str, str]) -> None:
        """Take note of where the server is, and of the passwords of its system user and of the operator's."""
        self._port, self._passwords = port, passwords

    def read(self) -> dict[str, str]:
        """Return the routes in the file; none where it cannot be read, since the intake then adds them again."""
        try:
            found: dict[str, str] = json.loads(self.path.read_text(encoding="utf-8").removeprefix(_PREFIX))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be read and is written anew: %s", self.path, error)
            return {}
        return found

    def prepare(self) -> None:
        """Make sure that there is a file for the server to include."""
        write_private(self.path, routes_text(self.read()))

    def add(self, routes: Mapping[str, str]) -> None:
        """Add routes to those that are there, and have the server read them.

        Raises:
            UnavailableError: the server does not answer, or does not take them.

        """
        self._change(lambda before: before | dict(routes))

    async def remove(self, subjects: Collection[str]) -> None:
        """Take routes away in a thread, and have the server read what is left; raises like ``add``."""
        await asyncio.to_thread(self._change, lambda before: {k: v for k, v in before.items() if k not in subjects})

    async def request_as_operator(self, subject: str, body: dict[str, Any] | None = None) -> None:
        """Make one request to the JetStream API as the server's operator.

        Raises:
            UnavailableError: the server does not answer, or refuses.

        """
        data = json.dumps(body).encode() if body is not None else b""
        operator = self._passwords["operator"]
        answer = await asyncio.to_thread(request_once, self._port, "operator", operator, f"$JS.API.{subject}", data)
        error = json.loads(answer).get("error") if answer else {"description": "no answer"}
        if error:
            message = f"{subject}: {error.get('description')}"
            raise UnavailableError(message)

    def _change(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        with self._lock():
            write_private(self.path, routes_text(change(self.read())))
            answer = request_once(
                self._port, "sys", self._passwords.get("sys", ""), "$SYS.REQ.SERVER.{server_id}.RELOAD"
            )
        error = json.loads(answer).get("error") if answer else {"description": "no answer"}
        if error:
            message = f"the server does not take the routes of {self.path}: {error.get('description')}"
            raise UnavailableError(message)
