"""Routes of the embedded server: mappings from subjects to other subjects, kept in its configuration.

They are an account mapping in a file that the server's configuration includes. The server reloads it at a request of
its system account; connections are kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

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
"""The configuration has this line behind `# ` while there are no routes."""


def routes_text(routes: Mapping[str, str]) -> str:
    """Return the lines of a NATS server's configuration that map these subjects, for the ledger's account."""
    return _PREFIX + json.dumps(dict(sorted(routes.items())), indent=2) + "\n"


class SourceRoutes:
    """The routes of one embedded server, in a file that several processes change in turn."""

    def __init__(self, path: Path, lock: Callable[[], AbstractContextManager[object]]) -> None:
        self.path = path
        self._lock = lock
        self._port = 0
        self._passwords: Mapping[str, str] = {}

    def set_server(self, port: int, passwords: Mapping[str, str]) -> None:
        """Set the server's port, and the passwords of its system user and its operator."""
        self._port, self._passwords = port, passwords

    def read(self) -> dict[str, str]:
        """Return the routes in the file; none if it is unreadable, since the intake then adds them again."""
        try:
            found: dict[str, str] = json.loads(self.path.read_text(encoding="utf-8").removeprefix(_PREFIX))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be read and is written again: %s", self.path, error)
            return {}
        return found

    def prepare(self) -> None:
        """Make sure that the included file exists."""
        write_private(self.path, routes_text(self.read()))

    def add(self, routes: Mapping[str, str]) -> None:
        """Add routes, and let the server reload them.

        Raises:
            UnavailableError: the server does not answer, or refuses them.
        """
        self._change(lambda routes_before: routes_before | dict(routes))

    async def remove(self, subjects: Collection[str]) -> None:
        """Remove routes in a thread, and let the server reload the others; raises like ``add``."""
        await asyncio.to_thread(
            self._change,
            lambda routes: {subject: target for subject, target in routes.items() if subject not in subjects},
        )

    async def request_as_operator(self, subject: str, body: Mapping[str, object] | None = None) -> None:
        """Send one request to the JetStream API as the server's operator.

        Raises:
            UnavailableError: the server does not answer, or refuses.
        """
        data = json.dumps(body).encode() if body is not None else b""
        operator = self._passwords["operator"]
        answer = await asyncio.to_thread(request_once, self._port, "operator", operator, f"$JS.API.{subject}", data)
        error = json.loads(answer).get("error") if answer else {"description": "no answer"}
        if error:
            raise UnavailableError(f"{subject}: {error.get('description')}")

    def _change(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        with self._lock():
            write_private(self.path, routes_text(change(self.read())))
            self.reload(self.path)

    def reload(self, changed: Path) -> None:
        """Let the server read its configuration again, of which this file was changed; connections are kept.

        Raises:
            UnavailableError: the server does not answer, or refuses it.
        """
        answer = request_once(self._port, "sys", self._passwords.get("sys", ""), "$SYS.REQ.SERVER.{server_id}.RELOAD")
        error = json.loads(answer).get("error") if answer else {"description": "no answer"}
        if error:
            raise UnavailableError(f"the server refuses {changed}: {error.get('description')}")
