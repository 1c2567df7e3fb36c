"""Why a NATS server and a client do not come together, in a sentence that says what to do."""

from __future__ import annotations

import ssl

NO_TLS = "the server speaks no TLS, which a tls:// address, nats_tls_ca, nats_tls_cert and nats_tls_first ask for"
_LOGIN = "it refuses the user and password, token, credentials or nkey: check them, and the server's list of users"
_CLIENT = "it refuses the client's certificate in nats_tls_cert: it needs one of an authority that it knows"
_FIRST = "it does not begin with TLS: leave nats_tls_first out"
_SENTENCES = {
    "authorization violation": _LOGIN,
    "account authentication expired": "the account has expired: its operator renews it",
    "authentication expired": "the credentials have expired: renew them",
    "authentication revoked": "the credentials were revoked: generate new ones",
    "connections exceeded": "it has as many connections as it or the account may have: end some, or raise the limit",
    "certificate required": "it asks for a client's certificate: name nats_tls_cert and nats_tls_key",
    "bad certificate": _CLIENT,
    "unknown ca": _CLIENT,
    "certificate expired": _CLIENT,
    "wrong version number": _FIRST,
    "record layer failure": _FIRST,
    "speaks no tls": NO_TLS,
    "credentials cannot be read": "the file in nats_creds or nats_nkey is broken: write it anew",
}


def refusal_reason(error: Exception) -> str:
    """Return the sentence for an error that trying again does not mend; empty for every other error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        return f"its certificate is not accepted ({why}): compare nats_tls_ca, and the host's name in nats_url"
    text = str(error).lower().replace("_", " ")
    return next((sentence for words, sentence in _SENTENCES.items() if words in text), "")
