"""Settings from options of the command line, then ``RESOLUTION_LEDGER_*``, then a TOML file."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from config.nats_context import ContextError, read_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "RESOLUTION_LEDGER_"
DEFAULT_FILE = Path("resolution-ledger.toml")


class SettingsError(ValueError):
    """An unusable setting; the message names it and its origin."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings, described in ``HELP``. Each is an option, an environment variable and a key of the TOML file."""

    data_dir: str = "./.resolution-ledger"
    nats_url: str | None = None
    nats_user: str | None = None
    nats_password: str | None = None
    nats_token: str | None = None
    nats_creds: str | None = None
    nats_nkey: str | None = None
    nats_tls_ca: str | None = None
    nats_tls_cert: str | None = None
    nats_tls_key: str | None = None
    nats_tls_first: bool = False
    nats_inbox_prefix: str | None = None
    nats_context: str | None = None
    upstream_nats_url: str | None = None
    nats_server: str | None = None
    replicas: int = 1
    allow_lazy_fsync: bool = False
    database_url: str | None = None
    webhooks_to_private: bool = False
    seal_secret: str | None = None
    smtp_url: str | None = None
    mail_from: str = "resolution-ledger@localhost"
    unregistered_sources: Literal["desk", "none"] | None = None
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: str | None = None
    oidc_employee_claim: str = "sub"
    oidc_employees: str | None = None
    oidc_groups_claim: str = "groups"
    oidc_auditors: str | None = None
    oidc_operators: str | None = None
    log_format: Literal["text", "json"] = "text"

    def __repr__(self) -> str:
        """Return the settings without passwords and tokens."""
        shown = {name: value for name, value in msgspec.structs.asdict(self).items() if value not in (None, False)}
        shown |= {name: "***" for name in SECRET if name in shown}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def admits_unregistered(self) -> bool:
        """True where sources that no operator registered may send facts and request actions."""
        return (self.unregistered_sources or ("desk" if self.nats_url is None else "none")) == "desk"

    @property
    def folder(self) -> Path:
        """The data directory."""
        return Path(self.data_dir)


HELP: dict[str, str] = {
    "data_dir": "Folder of the embedded server's data, and of indexes and views.",
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
    "nats_inbox_prefix": "Prefix of the subjects of answers, such as _INBOX_ledger. [default: _INBOX]",
    "nats_context": "A context of the `nats` command line, by name or file; other settings win over its own.",
    "upstream_nats_url": (
        "With --nats-url: the address for connection.json, with a user that may only publish and request. "
        "[default: --nats-url]"
    ),
    "nats_server": "The nats-server binary (2.12.4 or newer) that the embedded default runs.",
    "replicas": "Copies of each stream in a NATS cluster: 1, 3 or 5.",
    "allow_lazy_fsync": "Accept a server that acknowledges events before they are on disk.",
    "webhooks_to_private": "Allow webhooks to addresses inside the own network.",
    "seal_secret": (
        "A secret of 32 or more characters: the seal's key is kept in the NATS server, encrypted by it, so that "
        "`run seal` can go on at another machine. It has no option."
    ),
    "smtp_url": "The mail server of webhooks to mailto: addresses: smtp://user:password@host:587, or smtps://.",
    "mail_from": "The sender's address of these mails.",
    "unregistered_sources": (
        "What sources that no operator registered may do: `desk` (send facts, request actions) or `none`. "
        "[default: desk on the embedded server, none with --nats-url]"
    ),
    "oidc_issuer": "The OpenID provider by which people sign in on the page: its issuer, https://login.example.com.",
    "oidc_client_id": "The client id that the provider gave to the ledger.",
    "oidc_client_secret": "The client's secret: no option; a public client has none.",
    "oidc_employee_claim": "The claim that names the employee. [default: sub]",
    "oidc_employees": "A TOML file with the employee's id for each value of that claim. [default: the value is the id]",
    "oidc_groups_claim": "The claim that lists a person's groups. [default: groups]",
    "oidc_auditors": "The group whose members are auditors.",
    "oidc_operators": "The group whose members are operators.",
    "database_url": "PostgreSQL for views instead of SQLite: postgresql://user:password@host:5432/database.",
    "log_format": (
        "Log lines on standard error: `text`, or `json`, one object a line without personal data. [default: text]"
    ),
}
"""One sentence for each setting, for ``--help`` and docs/operate/connect.md."""

_SEAL_SECRET = 32
SECRET = (
    "nats_url",
    "upstream_nats_url",
    "database_url",
    "smtp_url",
    "nats_password",
    "nats_token",
    "oidc_client_secret",
    "seal_secret",
)
"""Settings that may hold a password: never on the command line of a child process."""
WITHOUT_OPTION = ("nats_password", "nats_token", "oidc_client_secret", "seal_secret")
"""Settings that are secrets: they have no option."""
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


def load_settings(options: Mapping[str, object], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Return the settings from their three places; the first place that has one wins.

    Raises:
        SettingsError: the file is missing or unreadable, or a value has the wrong type.
    """
    path = file or (Path(config_path) if (config_path := environment.get(f"{PREFIX}CONFIG")) else DEFAULT_FILE)
    merged: dict[str, object] = {}
    if path.exists():
        merged = _read_file(path)
        if isinstance(urls := merged.get("nats_url"), list):
            merged["nats_url"] = ",".join(map(str, urls))
    elif path != DEFAULT_FILE:
        raise SettingsError(f"the settings file {path} does not exist")
    found = {name: value for name in HELP if (value := environment.get(PREFIX + name.upper())) not in (None, "")}
    for layer in (found, {name: value for name, value in options.items() if value is not None}):
        merged = _merge(layer, merged)
    try:
        if context := merged.get("nats_context"):
            merged = _merge(merged, read_context(str(context), environment))
        settings = msgspec.convert(merged, Settings, strict=False)
    except ContextError as error:
        raise SettingsError(f"nats_context: {error}") from None
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {error}; known are {', '.join(HELP)}") from None
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if settings.replicas not in (1, 3, 5):
        raise SettingsError(f"replicas must be 1, 3 or 5, not {settings.replicas}")
    if settings.seal_secret is not None and len(settings.seal_secret) < _SEAL_SECRET:
        raise SettingsError(f"seal_secret needs {_SEAL_SECRET} or more characters: `openssl rand -hex 32` makes one")
    if settings.smtp_url and not re.match(r"smtps?://[^/?#]+$", settings.smtp_url):
        raise SettingsError("smtp_url has the form smtp://user:password@host:587, or smtps://host")
    if bool(settings.oidc_issuer) != bool(settings.oidc_client_id):
        raise SettingsError("oidc_issuer and oidc_client_id: set both, or neither")
    if settings.oidc_issuer and not re.match(r"https://|http://(localhost|127\.0\.0\.1)(:|/|$)", settings.oidc_issuer):
        raise SettingsError("oidc_issuer has the form https://login.example.com")
    if settings.database_url is not None and not re.match(r"postgres(ql)?://", settings.database_url):
        raise SettingsError("database_url has the form postgresql://user:password@host:5432/database")


def _merge(higher: Mapping[str, object], lower: Mapping[str, object]) -> dict[str, object]:
    """Return both, the higher ones winning. Credentials are taken from one of them, not mixed.

    Only user and password may come from both: the password has no option.
    """
    merged = dict(lower)
    logins = [name for name in _LOGIN if higher.get(name)]
    if logins or "@" in str(higher.get("nats_url", "")):
        partner = (
            {"nats_user": "nats_password", "nats_password": "nats_user"}.get(logins[0]) if len(logins) == 1 else None
        )
        merged = {name: value for name, value in lower.items() if name not in _LOGIN or name == partner}
        if isinstance(url := merged.get("nats_url"), str):
            merged["nats_url"] = ",".join(_URL_LOGIN.sub(r"\1", server_url) for server_url in url.split(","))
    return merged | dict(higher)


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
    """Return the settings with secrets as environment variables, for a child process without a settings file."""
    found = {PREFIX + name.upper(): getattr(settings, name) or "" for name in SECRET}
    return found | {f"{PREFIX}CONFIG": os.devnull}


def without_secrets(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Remove URLs with credentials from the arguments of a command line.

    Returns:
        The other arguments, and environment variables with the removed values.
    """
    flags = {"--" + name.replace("_", "-"): name for name in SECRET if name not in WITHOUT_OPTION}
    kept_words: list[tuple[str, list[str]]] = []
    values: dict[str, list[str]] = {}
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            kept_words.append(("", [word, *rest]))
            break
        flag, separator, value = word.partition("=")
        text = value if separator else next(rest, None) if flag in flags else None
        if flag not in flags or text is None:
            kept_words.append(("", [word]))
            continue
        kept_words.append((flags[flag], [word] if separator else [word, text]))
        values.setdefault(flags[flag], []).append(text)
    # All URLs of one cluster are joined; of another option, the last one counts.
    found = {
        name: ",".join(texts) if name == "nats_url" else texts[-1]
        for name, texts in values.items()
        if any("@" in text for text in texts)
    }
    words = [word for name, words in kept_words if name not in found for word in words]
    if "nats_url" in found:  # as an option it replaces the environment's login, so it does as a variable, too
        found |= dict.fromkeys(_LOGIN, "")
    return words, {PREFIX + name.upper(): text for name, text in found.items()}


def _read_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from None
