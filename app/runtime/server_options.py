"""Connection options for a NATS server that the user operates, from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.settings import CONNECTION, SettingsError
from ledger.nats.connection_options import ConnectionOptionError, ConnectionOptions

if TYPE_CHECKING:
    from config.settings import Settings

_SERVER = {"tls_ca", "tls_cert", "tls_key", "tls_first"}


def server_options(settings: Settings) -> ConnectionOptions | None:
    """Return the options of the user's own server; None with the embedded server.

    Raises:
        SettingsError: a setting is invalid, alone or in combination.

    """
    values = {name: value for name in CONNECTION if (value := getattr(settings, f"nats_{name}"))}
    if settings.nats_url is None:
        if values:
            first = f"nats_{min(values)}"
            raise SettingsError(f"{first}: needs a NATS server of your own: name it in nats_url, or leave {first} out")
        return None
    return _options("nats", settings.nats_url, values)


def upstream_options(settings: Settings) -> ConnectionOptions | None:
    """Return the options with which a source reaches that server.

    Its URL may have credentials; otherwise they are those of the ledger.

    Raises:
        SettingsError: the URL is invalid.

    """
    own = server_options(settings)
    if own is None or settings.upstream_nats_url is None:
        return own
    values = {name: getattr(own, name) for name in _SERVER}
    found = _options("upstream_nats", settings.upstream_nats_url, values)
    if found.user is None and found.token is None:
        return _options("upstream_nats", settings.upstream_nats_url, {name: getattr(own, name) for name in CONNECTION})
    return found


def _options(prefix: str, url: str, values: dict[str, object]) -> ConnectionOptions:
    try:
        return ConnectionOptions.of(url, **values)
    except ConnectionOptionError as error:
        name = f"{prefix if error.option == 'url' else 'nats'}_{error.option}"
        reason = f"it needs nats_{error.needs}, too" if error.needs else error.reason
        raise SettingsError(f"{name}: {reason}") from None
