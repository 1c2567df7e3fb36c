"""Settings: options of the command line, then ``RESOLUTION_LEDGER_*``, then a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    "nats_server": "The nats-server binary (2.12 or newer) that the embedded default runs.",
    "replicas": "Copies of each stream in a NATS cluster: 1, 3 or 5.",
    "allow_lazy_fsync": "Accept a server that acknowledges events before they are on disk.",
    "database_url": "PostgreSQL for views; not served by this version.",
}
"""One sentence for each setting, for ``--help`` and docs/operating.md."""


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
    if settings.database_url:
        message = "database_url: views on PostgreSQL are not served by this version; leave it out"
        raise SettingsError(message)
    return settings


def settings_as_options(settings: Settings) -> list[str]:
    """The same settings as options, for a child process."""
    options: list[str] = []
    for name, value in msgspec.structs.asdict(settings).items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            options.append(flag)
        elif value not in (None, False):
            options += [flag, str(value)]
    return options


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        message = f"the settings file {path} cannot be read: {error}"
        raise SettingsError(message) from None
