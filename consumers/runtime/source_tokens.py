"""Tokens of sources in subjects, as every door reads them: the inbox, requests, readings and our own commands."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from domain.commands import RequestError
from domain.ids import IdFault
from domain.sources import request_source_fault
from ledger.store.subject_tokens import id_of_token, is_source_token, source_of_token, token_of_source

_NOT_A_SOURCE = (
    "the token in the subject is no source's: it is the source's UTF-8 bytes, those outside A-Za-z0-9_-:~ "
    "percent-encoded"
)


class SourceToken(NamedTuple):
    """A token as it is read.

    ``source`` is its source; of a token that is not the one of a source, it is the source that earlier versions
    recorded under it. ``is_own`` says that it is this source's own token. ``fault`` says why nothing new may come
    under it.
    """

    source: str
    is_own: bool
    fault: IdFault | None


@lru_cache(maxsize=4096)
def read_token(token: str) -> SourceToken:
    """Return the source of a token: one source has one token, and its name is in canonical form."""
    if not is_source_token(token):
        return SourceToken(token, is_own=False, fault=IdFault("invalid", _NOT_A_SOURCE))
    source = source_of_token(token)
    own = token_of_source(source)
    if own == token:
        return SourceToken(source, is_own=True, fault=request_source_fault(source))
    return SourceToken(source, is_own=False, fault=_wrongly_written(token))


def _wrongly_written(token: str) -> IdFault:
    try:
        meant = id_of_token(token)
    except UnicodeDecodeError:
        return IdFault("invalid", _NOT_A_SOURCE)
    message = f"the token {token!r} is not in canonical form; the one token of the source {meant!r} is "
    return IdFault("id_not_canonical", message + token_of_source(meant))


def refuse_foreign(token: str) -> None:
    """Refuse a token that is not a source's own: nothing was ever answered under its right name.

    Raises:
        RequestError: it is not; the message has the right one.

    """
    read = read_token(token)
    if read.fault is not None and not read.is_own:
        raise RequestError(read.fault.code, read.fault.message, "source")


def refuse(token: str) -> None:
    """Refuse a token under which nothing new may come.

    Raises:
        RequestError: it is such a token.

    """
    if (refusal := request_refusal(token)) is not None:
        raise refusal


def request_refusal(token: str) -> RequestError | None:
    """Return why a request under this token is refused, None where it is not."""
    fault = read_token(token).fault
    return RequestError(fault.code, fault.message, "source") if fault else None
