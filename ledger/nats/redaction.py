"""Texts without the passwords that URLs in them carry."""

from __future__ import annotations

import logging
import re

_LOGIN = re.compile(r"(?<=://)[^\s,'\"]*@")


def without_passwords(text: str) -> str:
    """Return a text in which ``nats://user:password@host`` reads ``nats://***@host``."""
    return _LOGIN.sub("***@", text)


class RedactingFormatter(logging.Formatter):
    """A formatter whose lines, tracebacks included, show no password of a URL."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return without_passwords(super().format(record))
