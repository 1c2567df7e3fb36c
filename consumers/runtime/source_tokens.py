"""Tokens of sources in subjects, read in one way for inboxes, decisions, queries and our own commands."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from domain.commands import RequestError
from domain.ids import IdFault
from domain.sources import request_source_fault
from ledger.store.subject_tokens import id_of_token, is_source_token, source_of_token, token_of_source

_NOT_A_SOURCE = (
    "the token in the subject is not the token of a source: write the source's UTF-8 bytes, percent-encoded outside "
    "A-Za-z0-9_-:~"
)


class SourceToken(NamedTuple):
    """A token's source and validity.

    ``source`` is the token's source; for an invalid token, the source that earlier versions recorded under it.
    ``is_own``: it is the source's own token. ``fault`` is the reason why new messages under it are refused.
    """

    source: str
    is_own: bool
    fault: IdFault | None


@lru_cache(maxsize=1024)
def read_token(token: str) -> SourceToken:
    """Return the source of a token. Each source has one token, and its name is in canonical form."""
    if not is_source_token(token):
        return SourceToken(token, is_own=False, fault=IdFault("invalid", _NOT_A_SOURCE))
    source = source_of_token(token)
    own = token_of_source(source)
    if own == token:
        return SourceToken(source, is_own=True, fault=request_source_fault(source))
    return SourceToken(source, is_own=False, fault=_spelling_fault(token))


def _spelling_fault(token: str) -> IdFault:
    try:
        meant = id_of_token(token)
    except UnicodeDecodeError:
        return IdFault("invalid", _NOT_A_SOURCE)
    message = f"the token {token!r} is not in canonical form; the one token of the source {meant!r} is "
    return IdFault("id_not_canonical", message + token_of_source(meant))


def refuse_foreign(token: str) -> None:
    """Refuse a token that is not a source's own, since no request under it was ever answered.

    Raises:
        RequestError: the token is not a source's own; the message has the right one.

    """
    read = read_token(token)
    if read.fault is not None and not read.is_own:
        raise RequestError(read.fault.code, read.fault.message, "source")


def refuse(token: str) -> None:
    """Refuse a token under which new messages are not allowed.

    Raises:
        RequestError: it is such a token.

    """
    if (refusal := request_refusal(token)) is not None:
        raise refusal


def request_refusal(token: str) -> RequestError | None:
    """Return the refusal of requests under this token, or ``None``."""
    fault = read_token(token).fault
    return RequestError(fault.code, fault.message, "source") if fault else None
