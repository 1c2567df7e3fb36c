"""Settings: options of the command line, then ``RESOLUTION_LEDGER_*``, then a TOML file."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from config.nats_context import ContextError, read_context

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
    """A real NATS server instead of the embedded one; several of a cluster with a comma between."""
    nats_user: str | None = None
    """The user at that server, beside ``nats_password``."""
    nats_password: str | None = None
    """That user's password."""
    nats_token: str | None = None
    """A token instead of user and password."""
    nats_creds: str | None = None
    """A credentials file (user JWT and seed)."""
    nats_nkey: str | None = None
    """A file that holds a user's nkey seed."""
    nats_tls_ca: str | None = None
    """The authority (PEM) that signed the server's certificate, instead of the system's authorities."""
    nats_tls_cert: str | None = None
    """A client certificate (PEM) for servers that ask for one."""
    nats_tls_key: str | None = None
    """The certificate's key (PEM)."""
    nats_tls_first: bool = False
    """Begin with TLS, before the server says anything."""
    nats_inbox_prefix: str | None = None
    """What the subjects of answers begin with, instead of ``_INBOX``."""
    nats_context: str | None = None
    """A context of the ``nats`` command line, from which settings that are not given are taken."""
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

    def __repr__(self) -> str:
        """Return the settings without passwords and tokens."""
        shown = {name: value for name, value in msgspec.structs.asdict(self).items() if value not in (None, False)}
        shown |= {name: "***" for name in SECRET if name in shown}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def folder(self) -> Path:
        """The data directory."""
        return Path(self.data_dir)


HELP: dict[str, str] = {
    "data_dir": "Folder of all that the embedded default stores, and of indexes and views.",
    "nats_url": (
        "A real NATS server instead of the embedded one: nats://user:password@host:4222. Several of a cluster: "
        "repeated, or with commas between."
    ),
    "nats_user": "With --nats-url: the user, whose password is in nats_password.",
    "nats_password": "The user's password: no option, since other users can read command lines.",
    "nats_token": "A token instead of user and password: no option either.",
    "nats_creds": "A credentials file, with a user's JWT and seed.",
    "nats_nkey": "A file that holds a user's nkey seed.",
    "nats_tls_ca": "The authority (PEM) that signed the server's certificate, instead of the system's.",
    "nats_tls_cert": "A client certificate (PEM, with its chain), for a server that asks for one.",
    "nats_tls_key": "That certificate's key (PEM, without a passphrase).",
    "nats_tls_first": "Begin with TLS, for a server with `handshake_first`.",
    "nats_inbox_prefix": "What the subjects of answers begin with, such as _INBOX_ledger. [default: _INBOX]",
    "nats_context": "A context of the `nats` command line, by name or file; other settings win over its own.",
    "upstream_nats_url": (
        "With --nats-url: the address for connection.json, with a user that may only publish and ask. "
        "[default: --nats-url]"
    ),
    "nats_server": "The nats-server binary (2.12 or newer) that the embedded default runs.",
    "replicas": "Copies of each stream in a NATS cluster: 1, 3 or 5.",
    "allow_lazy_fsync": "Accept a server that acknowledges events before they are on disk.",
    "database_url": "PostgreSQL for views; not served by this version.",
}
"""One sentence for each setting, for ``--help`` and docs/operate/connect.md."""

SECRET = ("nats_url", "upstream_nats_url", "database_url", "nats_password", "nats_token")
"""Settings that may hold a password: never on the command line of a process that we start."""
WITHOUT_OPTION = ("nats_password", "nats_token")
"""Settings that are nothing but a secret: they have no option."""
CONNECTION = (
    "user",
    "password",
    "token",
    "creds",
    "nkey",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "tls_first",
    "inbox_prefix",
)
"""Settings of a connection beside its URL, without their ``nats_``."""
_URL_LOGIN = re.compile(r"^(\s*\w+://)?.*@")
_LOGIN = tuple(f"nats_{name}" for name in ("user", "password", "token", "creds", "nkey"))


def load_settings(options: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Settings from their three places, the first that has one winning.

    Raises:
        SettingsError: the file is missing or unreadable, or a value has the wrong type.

    """
    path = file or (Path(named) if (named := environment.get(f"{PREFIX}CONFIG")) else DEFAULT_FILE)
    merged: dict[str, Any] = {}
    if path.exists():
        merged = _read_file(path)
        if isinstance(urls := merged.get("nats_url"), list):
            merged["nats_url"] = ",".join(map(str, urls))
    elif path != DEFAULT_FILE:
        message = f"the settings file {path} is not there"
        raise SettingsError(message)
    found = {name: value for name in HELP if (value := environment.get(PREFIX + name.upper())) not in (None, "")}
    for layer in (found, {name: value for name, value in options.items() if value is not None}):
        merged = _merge(layer, merged)
    try:
        if context := merged.get("nats_context"):
            merged = _merge(merged, read_context(str(context), environment))
        settings = msgspec.convert(merged, Settings, strict=False)
    except ContextError as error:
        message = f"nats_context: {error}"
        raise SettingsError(message) from None
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


def _merge(higher: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, where the higher ones win. Who connects is taken from one of them, not mixed.

    User and password may come from two of them: the password has no option.
    """
    left = dict(lower)
    given = [name for name in _LOGIN if higher.get(name)]
    if given or "@" in str(higher.get("nats_url", "")):
        beside = {"nats_user": "nats_password", "nats_password": "nats_user"}.get(given[0]) if len(given) == 1 else None
        left = {name: value for name, value in lower.items() if name not in _LOGIN or name == beside}
        if isinstance(url := left.get("nats_url"), str):
            left["nats_url"] = ",".join(_URL_LOGIN.sub(r"\1", one) for one in url.split(","))
    return left | dict(higher)


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
    flags = {"--" + name.replace("_", "-"): name for name in SECRET if name not in WITHOUT_OPTION}
    left: list[tuple[str, list[str]]] = []
    values: dict[str, list[str]] = {}
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            left.append(("", [word, *rest]))
            break
        flag, given, value = word.partition("=")
        text = value if given else next(rest, None) if flag in flags else None
        if flag not in flags or text is None:
            left.append(("", [word]))
            continue
        left.append((flags[flag], [word] if given else [word, text]))
        values.setdefault(flags[flag], []).append(text)
    # All URLs of one cluster go together; of another option, the last one counts.
    found = {
        name: ",".join(texts) if name == "nats_url" else texts[-1]
        for name, texts in values.items()
        if any("@" in text for text in texts)
    }
    words = [word for name, words in left if name not in found for word in words]
    if "nats_url" in found:  # as an option it replaces the environment's login, so it does as a variable, too
        found |= dict.fromkeys(_LOGIN, "")
    return words, {PREFIX + name.upper(): text for name, text in found.items()}


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        message = f"the settings file {path} cannot be read: {error}"
        raise SettingsError(message) from None
