"""Reasons for which a NATS server refuses a connection, with the remedy of each."""

from __future__ import annotations

import ssl

import nats.errors

_LOGIN = "it refuses the user and password, token, credentials or nkey: check them, and the server's list of users"
_CLIENT = "it refuses the client's certificate in nats_tls_cert: use one of an authority that the server trusts"
_FIRST = "it does not begin with TLS: remove nats_tls_first"
_LIMIT = "the {}'s limit of connections is reached: end some, or raise it"
_OF_SERVER = {
    "authorization violation": _LOGIN,
    "account authentication expired": "the account has expired: ask its operator to renew it",
    "user authentication expired": "the credentials have expired: renew them",
    "user authentication revoked": "the credentials were revoked: generate new ones",
    "maximum connections exceeded": _LIMIT.format("server"),
    "maximum account active connections exceeded": _LIMIT.format("account"),
}
"""The server's error messages, which are its protocol: an ``-ERR`` line has no code beside them."""
_OF_TLS = {
    "CERTIFICATE_REQUIRED": "it requires a client's certificate: set nats_tls_cert and nats_tls_key",
    "BAD_CERTIFICATE": _CLIENT,
    "UNKNOWN_CA": _CLIENT,
    "CERTIFICATE_EXPIRED": _CLIENT,
    "WRONG_VERSION_NUMBER": _FIRST,
    "RECORD_LAYER_FAILURE": _FIRST,
}
"""OpenSSL's names of reasons, without the version of the protocol before an alert."""


class RefusalError(nats.errors.Error):
    """A reason of our own not to use a connection; a retry cannot remove it."""


class NoTlsError(RefusalError):
    """The server offers no TLS."""

    def __init__(self) -> None:
        super().__init__(
            "the server has no TLS, which a tls:// address, nats_tls_ca, nats_tls_cert and nats_tls_first require"
        )


class CredentialsFileError(RefusalError):
    """The file of credentials cannot be read, perhaps because it is being replaced."""

    def __init__(self) -> None:
        super().__init__("the file in nats_creds or nats_nkey is damaged: write it again")


def refusal_reason(error: Exception) -> str:
    """Return the sentence for an error that a retry cannot fix; empty for every other error."""
    if isinstance(error, RefusalError):
        return str(error)
    if isinstance(error, nats.errors.AuthorizationError):
        return _LOGIN
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        return f"its certificate is not accepted ({why}): check nats_tls_ca, and the host's name in nats_url"
    if isinstance(error, ssl.SSLError):
        return _OF_TLS.get((error.reason or "").rpartition("_ALERT_")[2], "")
    message = str(error).lower().removeprefix("nats: ").strip("' ")
    return _OF_SERVER.get(message, "") if isinstance(error, nats.errors.Error) else ""
