"""Removal of passwords in URLs from texts and log lines."""

from __future__ import annotations

import logging
import re

_LOGIN = re.compile(r"(?<=://)[^\s,'\"]*@")


def without_passwords(text: str) -> str:
    """Return a text in which ``nats://user:password@host`` is ``nats://***@host``."""
    return _LOGIN.sub("***@", text)


class RedactingFormatter(logging.Formatter):
    """A formatter whose lines, including tracebacks, show no password of a URL."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return without_passwords(super().format(record))
