"""Users of registered sources: on the embedded server with a file for each, for other servers as configuration."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from app.runtime.source_registration import read_registry
from config.nats_accounts import SourceUser, accounts_text, user_name
from ledger.errors import LedgerError
from ledger.files import read_bounded, write_private
from ledger.nats.connection_options import ConnectionOptions
from ledger.store.subject_tokens import token_of_source

if TYPE_CHECKING:
    from pathlib import Path

    from app.runtime.session import Session
    from domain.source_registry import Source, SourceRegistry
    from ledger.nats.embedded_server import EmbeddedServer

FOLDER = "sources"
_MOST_BYTES = 65_536
_NAME_BYTES = 200


def source_file(data_dir: Path, source: str) -> Path:
    """Return the file with the address and credentials of a source: its token and ``.json``; a long token is hashed."""
    token = token_of_source(source)
    if len(token) > _NAME_BYTES:
        token = f"{token[:64]}~{hashlib.sha256(token.encode()).hexdigest()[:24]}"
    return data_dir / FOLDER / f"{token}.json"


def source_options(data_dir: Path, source: str) -> ConnectionOptions:
    """Return the options of a registered source's user on the embedded server.

    Raises:
        LedgerError: the source has no file here.

    """
    path = source_file(data_dir, source)
    try:
        return ConnectionOptions.of(str(json.loads(read_bounded(path, _MOST_BYTES))["nats_url"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        message = f"{source} has no user in {data_dir}: see `admin sources list`, or name its server with --nats-url"
        raise LedgerError(message) from error


def configuration(registry: SourceRegistry) -> str:
    """Return the accounts of all active sources for a NATS server's configuration; passwords are variables."""
    active = [source for source in registry.all() if source.state == "active"]
    names = {source.name: re.sub(r"[^A-Z0-9]", "_", source.name.upper()) for source in active}
    count = Counter(names.values())
    users = []
    for source in active:
        name = names[source.name]
        if count[name] > 1:
            name += f"_{hashlib.sha256(source.name.encode()).hexdigest()[:8].upper()}"
        users.append(_user(source, f"$RESOLUTION_LEDGER_SOURCE_{name}_PASSWORD"))
    return accounts_text(users, _registered(registry))


async def update_users(session: Session) -> None:
    """Give each active source of the embedded server a user and its file, and take both from the others.

    The server loads the users without a restart. On a server of the operator's own nothing is changed.

    Raises:
        UnavailableError: the server does not answer, or refuses the users.

    """
    server = session.embedded_server
    if server is None:
        return
    registry, _ = await read_registry(session.log)
    await asyncio.to_thread(_update, server, session.data_dir, registry)


def _update(server: EmbeddedServer, data_dir: Path, registry: SourceRegistry) -> None:
    with server.source_lock():
        passwords: dict[str, str] = {}
        for source in registry.all():
            path = source_file(data_dir, source.name)
            if source.state != "active":
                path.unlink(missing_ok=True)
            else:
                passwords[source.name] = _password_in(path) or "p" + secrets.token_hex(20)
                (data_dir / FOLDER).mkdir(mode=0o700, exist_ok=True)
                write_private(path, _credentials(source, server.port, passwords[source.name]))
        users = [_user(one, json.dumps(passwords[one.name])) for one in registry.all() if one.name in passwords]
        server.set_accounts(accounts_text(users, _registered(registry)))


def _registered(registry: SourceRegistry) -> list[str]:
    return [token_of_source(source.name) for source in registry.all()]


def _user(source: Source, password: str) -> SourceUser:
    return SourceUser(token_of_source(source.name), password, source.rights.operations, bool(source.rights.types))


def _password_in(path: Path) -> str:
    """Return the password in a source's file; empty where there is none."""
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        return str(json.loads(read_bounded(path, _MOST_BYTES)).get("nats_password") or "")
    return ""


def _credentials(source: Source, port: int, password: str) -> str:
    user = user_name(token_of_source(source.name))
    document = {
        "nats_url": f"nats://{user}:{password}@127.0.0.1:{port}",
        "nats_user": user,
        "nats_password": password,
    }
    return json.dumps(document, indent=2) + "\n"
