"""Encoding of ids of any Unicode as subject tokens, and the tokens of sources."""

from __future__ import annotations

import re
from functools import lru_cache, wraps
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORT_CHARACTERS = 256
_UNFIT_FOR_TOKEN = re.compile(r"[.*>\s]")


def token_of_id(identifier: str) -> str:
    """Return the subject token of an id: all but letters, digits and ``-_:~`` is percent-encoded."""
    return quote(identifier, safe=":").replace(".", "%2E")


def id_of_token(token: str) -> str:
    """Return the id in a token made by ``token_of_id``."""
    return unquote(token, errors="strict")


def cached_if_short[T](function: Callable[[str], T]) -> Callable[[str], T]:
    """Cache the results for texts of at most 256 characters; a sender may invent thousands of longer ones."""
    cached = lru_cache(maxsize=4096)(function)

    @wraps(function)
    def call(text: str) -> T:
        return cached(text) if len(text) <= _SHORT_CHARACTERS else function(text)

    return call


@cached_if_short
def token_of_source(source: str) -> str:
    """Return a source's token outside the log, e.g. ``a%2Eb`` for ``a.b``; two sources never share one."""
    return token_of_id(source)


def source_of_token(token: str) -> str:
    """Return the source that a subject token names.

    A token that ``token_of_source`` does not produce, such as one of an earlier version, is returned as the source.
    """
    try:
        source = unquote(token, errors="strict")
        return source if token_of_source(source) == token else token
    except UnicodeError:
        return token


@cached_if_short
def fact_token(source: str) -> str:
    """Return the token of a source's facts in the log: ``.``, ``*``, ``>`` and white space become ``_``.

    It is the same as in the first version, even if sources share one: the sequence of this one subject keeps two
    intakes of any versions from recording one event twice. Upstreams of earlier versions use it as their token, too.
    """
    return _UNFIT_FOR_TOKEN.sub("_", source)


NO_SOURCE = "%"
"""The token of messages whose subject names no source; no source has this token."""
_WILDCARDS = {"*", ">"}
_TOKEN_BYTES = 2048  # the longest source needs less, percent-encoded; the server accepts lines of 4,096


@cached_if_short
def is_source_token(token: str) -> bool:
    """Return whether a subject's token can be a source's: printable characters, no wildcard, not too long.

    A publisher may send a wildcard as a token; in a subject of the ledger it would match every source.
    """
    return token.isprintable() and token not in _WILDCARDS and 0 < len(token.encode()) <= _TOKEN_BYTES
