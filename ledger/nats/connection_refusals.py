"""Sentences that explain why a NATS server refuses a connection, and what to do."""

from __future__ import annotations

import ssl

NO_TLS = "the server has no TLS, which a tls:// address, nats_tls_ca, nats_tls_cert and nats_tls_first require"
_LOGIN = "it refuses the user and password, token, credentials or nkey: check them, and the server's list of users"
_CLIENT = "it refuses the client's certificate in nats_tls_cert: use one of an authority that the server trusts"
_FIRST = "it does not begin with TLS: remove nats_tls_first"
_SENTENCES = {
    "authorization violation": _LOGIN,
    "account authentication expired": "the account has expired: ask its operator to renew it",
    "authentication expired": "the credentials have expired: renew them",
    "authentication revoked": "the credentials were revoked: generate new ones",
    "connections exceeded": "the server's or the account's limit of connections is reached: end some, or raise it",
    "certificate required": "it requires a client's certificate: set nats_tls_cert and nats_tls_key",
    "bad certificate": _CLIENT,
    "unknown ca": _CLIENT,
    "certificate expired": _CLIENT,
    "wrong version number": _FIRST,
    "record layer failure": _FIRST,
    "has no tls": NO_TLS,
    "credentials cannot be read": "the file in nats_creds or nats_nkey is damaged: write it again",
}


def refusal_reason(error: Exception) -> str:
    """Return the sentence for an error that a retry cannot fix; empty for every other error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        return f"its certificate is not accepted ({why}): check nats_tls_ca, and the host's name in nats_url"
    text = str(error).lower().replace("_", " ")
    return next((sentence for words, sentence in _SENTENCES.items() if words in text), "")
