"""Contexts of the ``nats`` command line: files with the options of a connection, read as settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SETTINGS = {
    "url": "nats_url",
    "user": "nats_user",
    "password": "nats_password",
    "token": "nats_token",
    "creds": "nats_creds",
    "nkey": "nats_nkey",
    "cert": "nats_tls_cert",
    "key": "nats_tls_key",
    "ca": "nats_tls_ca",
    "tls_first": "nats_tls_first",
    "inbox_prefix": "nats_inbox_prefix",
}
_UNSUPPORTED = {
    "nsc": "name the credentials file itself in creds",
    "user_jwt": "name a credentials file in creds",
    "user_seed": "name a credentials file in creds",
    "socks_proxy": "connections go to the server without a proxy",
    "jetstream_domain": "connect to a server of that domain instead",
    "jetstream_api_prefix": "connect to the account that holds the streams instead",
    "windows_cert_store": "name the certificate's file in cert",
}
_DEFAULTS = {"jetstream_api_prefix": ("$JS.API", "$JS.API.")}
_DEFAULT_URL = "nats://127.0.0.1:4222"


class ContextError(ValueError):
    """An unusable context; the message gives the cause and the remedy."""


def read_context(name: str, environment: Mapping[str, str]) -> dict[str, object]:
    """Return the settings in the context with this name, or in the context file at this path.

    Raises:
        ContextError: the file is missing or invalid, or has an unsupported option.
    """
    path = _path(name, environment)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"there is no context {name!r}: {path} is missing; `nats context ls` lists the contexts"
        raise ContextError(message) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise ContextError(f"the context {path} cannot be read: {reason}") from None
    if not isinstance(content, dict):
        raise ContextError(f"the context {path} is not a JSON object")
    for field, instead in _UNSUPPORTED.items():
        if content.get(field) and content[field] not in _DEFAULTS.get(field, ()):
            raise ContextError(f"the context {path} has {field}, which is not supported: {instead}")
    for field in _SETTINGS:
        if not isinstance(content.get(field, ""), bool if field == "tls_first" and field in content else str):
            raise ContextError(f"the context {path} has a {field} of the wrong type")
    settings = {_SETTINGS[field]: value for field, value in content.items() if field in _SETTINGS and value}
    return {"nats_url": _DEFAULT_URL} | settings


def _path(name: str, environment: Mapping[str, str]) -> Path:
    if "/" in name or os.sep in name:
        return Path(name).expanduser()
    try:
        home = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except RuntimeError:
        raise ContextError("there is no home directory: name the context by the path of its file") from None
    return home / "nats" / "context" / f"{name}.json"
