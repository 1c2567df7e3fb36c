"""Who may see what: tokens with roles, and what each role is shown.

Tokens are kept as hashes, in a file of the data directory that only its owner reads; they are shown once.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from ledger.errors import LedgerError
from ledger.server import write_private

if TYPE_CHECKING:
    from pathlib import Path

type Role = Literal["agent", "manager", "auditor", "operator"]
ROLES: tuple[Role, ...] = ("agent", "manager", "auditor", "operator")
"""Agents see themselves, managers their people and teams, auditors everything, operators everything."""


class Viewer(NamedTuple):
    """Somebody who looks: their role, and who they are where the role has a person."""

    name: str
    role: Role
    person_id: str | None = None

    @property
    def sees_everybody(self) -> bool:
        """Whether nothing is left out."""
        return self.role in ("auditor", "operator")


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token as it is kept."""

    name: str
    role: str
    sha256: str
    made: datetime
    person_id: str | None = None
    expires: datetime | None = None


class TokenError(LedgerError):
    """A token cannot be made or revoked; the text says why."""


class Tokens:
    """The tokens of a data directory; read again when another process changed them."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "server" / "tokens.json"
        self._seen = -1
        self._kept: list[Token] = []

    def all(self) -> list[Token]:
        """Every token, the oldest first."""
        try:
            changed = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            self._seen, self._kept = -1, []
            return []
        if changed != self._seen:
            self._kept = msgspec.json.decode(self._path.read_bytes(), type=list[Token])
            self._seen = changed
        return self._kept

    def make(self, name: str, role: Role, person_id: str | None, expires: datetime | None) -> str:
        """A new token; its text is known only here.

        Raises:
            TokenError: the name is taken, or a role that is a person's names none.

        """
        if any(one.name == name for one in self.all()):
            raise TokenError(f"there is a token named {name}: revoke it first, or take another name")
        if (role in ("agent", "manager")) != (person_id is not None):
            said = "names no person" if person_id else "is a person's: say whose"
            raise TokenError(f"person: a token for the role {role} {said}")
        text = f"rl-{role}-{secrets.token_urlsafe(32)}"
        token = Token(name=name, role=role, sha256=_hash(text), made=datetime.now(UTC), person_id=person_id,
                      expires=expires)  # fmt: skip
        self._write([*self.all(), token])
        return text

    def revoke(self, name: str) -> None:
        """Whoever bears it is known no more.

        Raises:
            TokenError: there is none of this name.

        """
        left = [one for one in self.all() if one.name != name]
        if len(left) == len(self.all()):
            raise TokenError(f"there is no token named {name}")
        self._write(left)

    def viewer(self, text: str) -> Viewer | None:
        """Who bears this token; nobody, where it is unknown or its time is over."""
        given, now = _hash(text), datetime.now(UTC)
        for one in self.all():
            if secrets.compare_digest(one.sha256, given) and (one.expires is None or now < one.expires):
                role = next(role for role in ROLES if role == one.role)
                return Viewer(one.name, role, one.person_id)
        return None

    def _write(self, tokens: list[Token]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._path, msgspec.json.encode(tokens).decode())
        self._seen = -1


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
