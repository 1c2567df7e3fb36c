"""Settings: options of the command line, then ``RESOLUTION_LEDGER_*``, then a TOML file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "RESOLUTION_LEDGER_"
DEFAULT_FILE = Path("resolution-ledger.toml")


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it and where it came from."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. Each is an option, an environment variable and a key of the TOML file."""

    data_dir: str = "./.resolution-ledger"
    """Folder of all that the embedded default stores, and of indexes and views."""
    nats_url: str | None = None
    """A real NATS server instead of the embedded one, with user and password."""
    upstream_nats_url: str | None = None
    """On a server of the user's own: the address in ``connection.json``, which ``publish`` and ``decide`` use, too."""
    nats_server: str | None = None
    """The nats-server binary (2.12 or newer) that the embedded default runs."""
    replicas: int = 1
    """Copies of each stream in a NATS cluster: 1, 3 or 5."""
    allow_lazy_fsync: bool = False
    """Accept a server that acknowledges events before they are on disk."""
    database_url: str | None = None
    """PostgreSQL for views; not served by this version."""

    @property
    def folder(self) -> Path:
        """The data directory."""
        return Path(self.data_dir)


HELP: dict[str, str] = {
    "data_dir": "Folder of all that the embedded default stores, and of indexes and views.",
    "nats_url": "A real NATS server instead of the embedded one: nats://user:password@host:4222.",
    "upstream_nats_url": (
        "With --nats-url: the address for connection.json, with a user that may only publish and ask. "
        "[default: --nats-url]"
    ),
    "nats_server": "The nats-server binary (2.12 or newer) that the embedded default runs.",
    "replicas": "Copies of each stream in a NATS cluster: 1, 3 or 5.",
    "allow_lazy_fsync": "Accept a server that acknowledges events before they are on disk.",
    "database_url": "PostgreSQL for views; not served by this version.",
}
"""One sentence for each setting, for ``--help`` and docs/operating.md."""

SECRET = ("nats_url", "upstream_nats_url", "database_url")
"""Settings that may hold a password: never on the command line of a process that we start."""


def load_settings(options: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Settings from their three places, the first that has one winning.

    Raises:
        SettingsError: the file is missing or unreadable, or a value has the wrong type.

    """
    path = file or (Path(named) if (named := environment.get(f"{PREFIX}CONFIG")) else DEFAULT_FILE)
    merged: dict[str, Any] = {}
    if path.exists():
        merged |= _file(path)
    elif path != DEFAULT_FILE:
        message = f"the settings file {path} is not there"
        raise SettingsError(message)
    for name in HELP:
        if (value := environment.get(PREFIX + name.upper())) not in (None, ""):
            merged[name] = value
    merged |= {name: value for name, value in options.items() if value is not None}
    try:
        settings = msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        message = f"settings: {error}; known are {', '.join(HELP)}"
        raise SettingsError(message) from None
    if settings.replicas not in (1, 3, 5):
        message = f"replicas must be 1, 3 or 5, not {settings.replicas}"
        raise SettingsError(message)
    for name in ("nats_url", "upstream_nats_url"):
        _check_addresses(name, getattr(settings, name))
    if settings.database_url:
        message = "database_url: views on PostgreSQL are not served by this version; leave it out"
        raise SettingsError(message)
    return settings


def _check_addresses(name: str, text: str | None) -> None:
    """Refuse addresses that cannot be read, without repeating the password in them."""
    for one in (text or "").split(","):
        try:
            parts = urlsplit(one if "://" in one else f"nats://{one}")
            readable = text is None or (parts.hostname and parts.port != 0 and "@" not in parts.path)
        except ValueError:
            readable = False
        if not readable:
            message = (
                f"{name}: the address cannot be read. It looks like nats://user:password@host:4222, several with "
                "commas between them; a password with one of / ? # [ ] @ : cannot stand in it"
            )
            raise SettingsError(message)


def settings_as_options(settings: Settings) -> list[str]:
    """Return the settings without secrets as options, for a child process: every user may read command lines."""
    options: list[str] = []
    for name, value in msgspec.structs.asdict(settings).items():
        flag = "--" + name.replace("_", "-")
        if name in SECRET:
            continue
        if value is True:
            options.append(flag)
        elif value not in (None, False):
            options += [flag, str(value)]
    return options


def settings_as_environment(settings: Settings) -> dict[str, str]:
    """Return the settings with secrets as environment variables, for a child process; it reads no file of settings."""
    found = {PREFIX + name.upper(): getattr(settings, name) or "" for name in SECRET}
    return found | {f"{PREFIX}CONFIG": os.devnull}


def without_secrets(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take URLs with credentials out of the arguments of a command line.

    Returns:
        The other arguments, and the environment variables that say the same as those taken out.

    """
    flags = {"--" + name.replace("_", "-"): PREFIX + name.upper() for name in SECRET}
    left: list[str] = []
    found: dict[str, str] = {}
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            left += [word, *rest]
            break
        flag, given, value = word.partition("=")
        if flag not in flags:
            left.append(word)
            continue
        text = value if given else next(rest, None)
        if text is not None and "@" in text:
            found[flags[flag]] = text
        else:
            left += [word] if given or text is None else [word, text]
            found.pop(flags[flag], None)  # a later option wins over one that was taken out
    return left, found


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        message = f"the settings file {path} cannot be read: {error}"
        raise SettingsError(message) from None
