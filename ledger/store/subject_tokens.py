"""Ids of any Unicode in subject tokens and back, and the tokens of sources."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote

_UNFIT_FOR_TOKEN = re.compile(r"[.*>\s]")


def token_of_id(identifier: str) -> str:
    """A subject token that holds any id: all but letters, digits and ``-_:~`` percent-encoded."""
    return quote(identifier, safe=":").replace(".", "%2E")


def id_of_token(token: str) -> str:
    """The id in a token made by ``token_of_id``."""
    return unquote(token, errors="strict")


@lru_cache(maxsize=4096)
def token_of_source(source: str) -> str:
    """Return a source's token outside the log, e.g. ``a%2Eb`` for ``a.b``; two sources never share one."""
    return token_of_id(source)


def source_of_token(token: str) -> str:
    """Return the source that a subject token names.

    A token of an earlier version, or of no version, is not what ``token_of_source`` makes; it names the source that
    is written like it.
    """
    try:
        source = unquote(token, errors="strict")
        return source if token_of_source(source) == token else token
    except UnicodeError:
        return token


@lru_cache(maxsize=4096)
def fact_token(source: str) -> str:
    """Return the token of a source's facts in the log: ``.``, ``*``, ``>`` and white space are ``_``.

    It stays as the first version made it, also where sources share one: the sequence of this one subject is what
    keeps two intakes, of whatever versions, from recording one event twice. Upstreams of earlier versions use it as
    their token, too.
    """
    return _UNFIT_FOR_TOKEN.sub("_", source)


NO_SOURCE = "%"
"""The token of messages whose subject names no source; no source's own token reads so."""
_WILDCARDS = {"*", ">"}
_TOKEN_BYTES = 2048  # more than the longest source takes, percent-encoded; the server takes lines of 4,096


def is_source_token(token: str) -> bool:
    """Return whether a subject's token can be a source's: visible characters, no surrogates or wildcards, not too long.

    A publisher may write a wildcard as a token; in a subject of ours it would then mean every source.
    """
    return token.isprintable() and token not in _WILDCARDS and 0 < len(token.encode()) <= _TOKEN_BYTES
