"""A guard of tests without the mark `integration`: they can start no process and open no connection."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PROCESSES = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"}
_CONNECTIONS = {"socket.connect"}
"""Audit events of the interpreter that lead out of this process."""


class Isolation:
    """An audit hook that can be switched on; each refused event is kept in ``attempts``."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self._on = False
        sys.addaudithook(self._hook)  # for the life of the process: Python cannot remove one

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """Refuse processes, and connections of the main thread, meanwhile."""
        self.attempts.clear()
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self._on or not self._leads_out(event):
            return
        self.attempts.append(f"{event}{arguments!r:.200}")
        raise RuntimeError(f"{event} in a test without the mark `integration`: {arguments!r:.200}")

    @staticmethod
    def _leads_out(event: str) -> bool:
        # A connection of another thread may belong to an earlier test: its library still reconnects.
        main = threading.current_thread() is threading.main_thread()
        return event in _PROCESSES or (main and event in _CONNECTIONS)
