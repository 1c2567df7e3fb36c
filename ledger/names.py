"""Ids of any Unicode in subject tokens and back, and the one token of a source."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

_UNFIT_FOR_TOKEN = re.compile(r"[.*>\s]")


def token_of_id(identifier: str) -> str:
    """A subject token that holds any id: all but letters, digits and ``-_:~`` percent-encoded."""
    return quote(identifier, safe=":").replace(".", "%2E")


def id_of_token(token: str) -> str:
    """The id in a token made by ``token_of_id``."""
    return unquote(token, errors="strict")


def token_of_source(source: str) -> str:
    """A source's token: ``.``, ``*``, ``>`` and white space become ``_`` (contract: Subjects)."""
    return _UNFIT_FOR_TOKEN.sub("_", source)
