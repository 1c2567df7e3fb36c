"""Accounts of sources in a NATS server's configuration: one account and user for each, with its own subjects only.

A separate account keeps the answers of one source from the others, and the ledger from all of them. The permissions
name each operation, so that the server refuses what the profile does not allow.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from config import topology

if TYPE_CHECKING:
    from collections.abc import Iterable

INCLUDE = 'include "source-accounts.conf"'
"""The line of nats-server.conf that reads these accounts; it is behind `# ` where there are none."""
OPERATION_SUBJECTS = {
    "preview": "preview",
    "action": "action",
    "settle": "hold",
    "void": "hold",
    "reverse": "reversal",
    "request": "escalation",
    "withdraw": "escalation",
    "approve": "escalation",
    "deny": "escalation",
    "forward": "escalation",
    "review": "flag",
    "answer": "flag",
    "grant": "budget",
    "transfer": "budget",
    "policy": "policy",
}
"""Operation of a profile -> the last token of the subject of its requests."""
_OWN_SOURCES = ("cli", "dashboard", "ledger", "resolution-ledger", "signed-in")
_LISTENS = ("_INBOX.>", "resolution.views.*")
_NOTICES = f"{topology.ESCALATION_SUBJECT}.*"
_SERVICES = ("resolution.inbox", "resolution.decide", "resolution.read")
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SourceUser(NamedTuple):
    """A source's user: the source's token, its password or the variable that holds it, and its operations."""

    token: str
    password: str
    """A password in quotation marks, or a variable such as ``$CRM_PASSWORD``."""
    operations: frozenset[str]
    sends_facts: bool

    @property
    def name(self) -> str:
        """The user's name, unique on the server: `source-` and the token, or its hash where it has other letters."""
        return user_name(self.token)

    @property
    def notices(self) -> str:
        """The subject of the notifications that it hears: its own, or those of all sources for one that decides."""
        return _NOTICES if "approve" in self.operations else f"{topology.ESCALATION_SUBJECT}.{self.token}"

    def subjects(self) -> list[str]:
        """Return the subjects that it may publish to, operation by operation."""
        token = self.token
        names = dict.fromkeys(OPERATION_SUBJECTS[one] for one in OPERATION_SUBJECTS if one in self.operations)
        found = [f"{topology.INBOX_SUBJECT}.{token}"] if self.sends_facts else []
        found += [f"{topology.DECIDE_SUBJECT}.{token}.{name}" for name in names]
        found += [f"{topology.READ_SUBJECT}.{token}.{name}" for name in ("receipt", "check", "notifications")]
        if "brief" in self.operations:
            found.append(f"{topology.READ_SUBJECT}.{token}.brief")
        return found


def user_name(token: str) -> str:
    """Return the name of the user of the source with this token."""
    plain = _PLAIN.fullmatch(token) is not None
    return f"source-{token if plain else hashlib.sha256(token.encode()).hexdigest()[:24]}"


def accounts_text(users: Iterable[SourceUser], registered: Iterable[str]) -> str:
    """Return the accounts of these users, and the shared account without the tokens of ``registered`` sources."""
    denied = [
        subject
        for token in (*_OWN_SOURCES, *sorted(registered))
        for subject in (f"resolution.*.{token}", f"resolution.*.{token}.*")
    ]
    unheard = [f"{topology.ESCALATION_SUBJECT}.{token}" for token in (*_OWN_SOURCES, *sorted(registered))]
    shared = _account(
        "UPSTREAM",
        "upstream",
        "$RESOLUTION_LEDGER_UPSTREAM_PASSWORD",
        {"allow": ["resolution.inbox.*", "resolution.decide.*.*", "resolution.read.*.*"], "deny": denied},
        (f"{_SERVICES[0]}.*", f"{_SERVICES[1]}.*.*", f"{_SERVICES[2]}.*.*"),
        _NOTICES,
        unheard,
    )
    own = [
        _account(one.name, one.name, one.password, {"allow": one.subjects()}, one.subjects(), one.notices)
        for one in sorted(users, key=lambda one: one.name)
    ]
    return "\n".join((_HEAD, shared, *own))


_HEAD = "# Accounts of sources, written by the ledger: `resolution-ledger admin sources nats-config` prints them."


def _account(
    name: str,
    user: str,
    password: str,
    publish: dict[str, list[str]],
    services: Iterable[str],
    notices: str,
    unheard: Iterable[str] = (),
) -> str:
    listens: dict[str, list[str]] = {"allow": [*_LISTENS, notices]}
    if unheard:
        listens["deny"] = list(unheard)
    permissions = json.dumps({"publish": publish, "subscribe": listens}, indent=2).replace("\n", "\n    ")
    imports = [
        *(f"{{ service: {{ account: LEDGER, subject: {json.dumps(one)} }} }}" for one in services),
        *(f"{{ stream: {{ account: LEDGER, subject: {json.dumps(one)} }} }}" for one in (_LISTENS[1], notices)),
    ]
    return (
        f"{json.dumps(name)}: {{\n"
        f"  users: [ {{\n    user: {user}, password: {password}\n    permissions: {permissions}\n  }} ]\n"
        "  imports: [\n    " + "\n    ".join(imports) + "\n  ]\n}\n"
    )
