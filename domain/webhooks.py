"""Webhooks: subscriptions of other systems to events and notifications."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from domain.serialization import FieldError, Instant

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

type BodyFormat = Literal["cloudevents", "slack", "teams", "text"]
FORMATS: tuple[BodyFormat, ...] = get_args(BodyFormat.__value__)
ESCALATION_STEP = "resolution.notification.escalation.v1"
"""A step of an escalation, as the source that filed it is told over NATS."""
THIN_BUDGET = "resolution.notification.budget_thin.v1"
"""A budget has less left than ``THIN_SHARE`` of what was granted."""
NOTIFICATIONS = frozenset((ESCALATION_STEP, THIN_BUDGET))
THIN_SHARE = 0.2
_MOST_TYPES = 50
_MOST_CHARACTERS = 2000
_PLAIN = re.compile("[!-~]+")
_ADDRESS = re.compile(r"[^@\s,;:<>\"]+@[^@\s,;:<>\"]+\.[^@\s,;:<>\"]+", re.ASCII)


class Webhook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A subscription: an address, and the events and notifications that are sent there.

    ``types`` are full type names, or families such as ``resolution.case.*``. ``source`` limits it to events that this
    source sent or requested. ``after`` and ``notices_after`` are the last position of the log and of the notifications
    before it was made: nothing earlier is sent.
    """

    id: str
    url: str
    types: tuple[str, ...]
    secret: str
    """The signing secret of Standard Webhooks, ``whsec_`` and base64."""
    made_by: str
    made: Instant
    format: BodyFormat = "cloudevents"
    source: str | None = None
    personal: bool = False
    """Personal fields are sent as well, and the names in flags and cases."""
    after: int = 0
    notices_after: int = 0

    def wants(self, name: str) -> bool:
        """Return whether a type is subscribed to."""
        return any(name == one or (one[-2:] == ".*" and name.startswith(one[:-1])) for one in self.types)


def check_webhook(url: str, types: Sequence[str], body: BodyFormat, known: Collection[str]) -> None:
    """Check a requested subscription; ``known`` are the types of recorded events.

    Raises:
        FieldError: a field is invalid.

    """
    if fault := _address_fault(url, body):
        raise FieldError(fault, "url")
    if not 0 < len(types) <= _MOST_TYPES:
        raise FieldError(f"name 1 to {_MOST_TYPES} types", "types")
    for name in types:
        family = name[-2:] == ".*" and any(one.startswith(name[:-1]) for one in (*known, *NOTIFICATIONS))
        if not family and name not in known and name not in NOTIFICATIONS:
            raise FieldError(f"no event or notification has the type {name[:100]}", "types")


def _address_fault(url: str, body: BodyFormat) -> str:
    if len(url) > _MOST_CHARACTERS or not _PLAIN.fullmatch(url):
        return f"an address has at most {_MOST_CHARACTERS} characters of ASCII, without white space"
    if url.startswith("mailto:"):
        form = "" if _ADDRESS.fullmatch(url.removeprefix("mailto:")) else "an e-mail address: mailto:name@example.com"
        return form or ("" if body == "text" else "e-mail needs the format text")
    try:
        parts = urlsplit(url)
        complete = parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        return f"not an address: {error}"
    if not complete:
        return "an address has the form https://host/path, http://host/path or mailto:name@example.com"
    return "leave out user and password" if "@" in parts.netloc else ""
