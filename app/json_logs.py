"""Log lines as JSON objects, for programs that collect them; they hold no personal data.

Of an error, only its type and the places in the code are logged, and of an incident only its kind: their texts may
quote the input. Lines of other packages are reduced to their constant part.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from traceback import extract_tb
from typing import TYPE_CHECKING

from domain.serialization import encode
from ledger import traces
from ledger.nats.redaction import without_passwords
from ledger.store.cloudevents import time_text

if TYPE_CHECKING:
    from types import TracebackType

    from domain.serialization import JsonObject

OUR_PACKAGES = frozenset(("app", "config", "consumers", "dashboard", "domain", "ledger", "projections"))
_log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object a line."""

    def __init__(self, role: str) -> None:
        """``role`` names the roles of this process, or its command."""
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        message = getattr(record, "incident", None) or _message_of(record)
        line: JsonObject = {
            "time": time_text(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "role": self._role,
            "message": without_passwords(message),
        }
        if traces.spans is not None:
            line |= traces.spans.current_ids()
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            line["stack"] = [f"{at.filename}:{at.lineno} {at.name}" for at in extract_tb(record.exc_info[2])]
        return encode(line).decode()


def _message_of(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] in OUR_PACKAGES:
        return record.getMessage()
    return str(record.msg).partition("\n")[0]


def use_json_logs(role: str) -> None:
    """Write all log lines of this process as JSON; uncaught errors and Python's warnings, too."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter(role))
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_error


def are_in_use() -> bool:
    """Return whether log lines are JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def _log_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("the process ends after an error of ours", exc_info=(kind, error, trace))
