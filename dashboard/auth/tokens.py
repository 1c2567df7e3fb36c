"""Tokens with roles, kept as hashes in a file of the data directory that only its owner can read."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from ledger.errors import LedgerError
from ledger.files import write_private

if TYPE_CHECKING:
    from pathlib import Path

type Role = Literal["agent", "manager", "auditor", "operator", "source"]
ROLES: tuple[Role, ...] = ("agent", "manager", "auditor", "operator")
"""Agents see their own data, managers that of their people and teams, auditors and operators all data.

A token with the role `source` sees none of it: its bearer is a system, which publishes events and asks for decisions.
"""


class Principal(NamedTuple):
    """The bearer of a token: its name, its role, and the employee (agents, managers) or the system (sources)."""

    name: str
    role: Role
    person_id: str | None = None
    source: str | None = None

    @property
    def sees_everybody(self) -> bool:
        """This principal sees all data."""
        return self.role in ("auditor", "operator")


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token in the file."""

    name: str
    role: Role
    sha256: str
    made: datetime
    person_id: str | None = None
    source: str | None = None
    expires: datetime | None = None


class TokenError(LedgerError):
    """A token that cannot be made or revoked; the message says why."""


class Tokens:
    """The tokens of a data directory; the file is read again after another process has changed it."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "server" / "tokens.json"
        self._file_state: tuple[int, ...] = ()
        self._tokens: dict[str, Token] = {}

    def all(self) -> list[Token]:
        """Return every token, the oldest first.

        Raises:
            TokenError: the file is damaged.

        """
        return list(self._by_digest().values())

    def _by_digest(self) -> dict[str, Token]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._file_state, self._tokens = (), {}
            return {}
        changed = status.st_mtime_ns, status.st_ino, status.st_size  # two changes may share a time stamp
        if changed != self._file_state:
            try:
                read = msgspec.json.decode(self._path.read_bytes(), type=list[Token])
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                message = f"{self._path} is damaged ({error}): restore it, or remove it and make the tokens again"
                raise TokenError(message) from None
            self._tokens = {one.sha256: one for one in read}
            self._file_state = changed
        return self._tokens

    def make(
        self, name: str, role: Role, person_id: str | None, expires: datetime | None, source: str | None = None
    ) -> str:
        """Return the text of a new token; the text is not stored. ``source``: the system, for the role `source`.

        Raises:
            TokenError: the name is taken, or the person or the source does not fit the role.

        """
        if any(one.name == name for one in self.all()):
            raise TokenError(f"a token named {name} exists: revoke it first, or choose another name")
        if (role in ("agent", "manager")) != (person_id is not None):
            fault = "takes no person" if person_id else "needs an employee's id"
            raise TokenError(f"person: the role {role} {fault}")
        if (role == "source") != (source is not None):
            raise TokenError(f"source: the role {role} {'takes no source' if source else 'needs a source'}")
        text = f"rl-{role}-{secrets.token_urlsafe(32)}"
        token = Token(
            name=name,
            role=role,
            sha256=digest_of(text),
            made=datetime.now(UTC),
            person_id=person_id,
            source=source,
            expires=expires,
        )
        self._write([*self.all(), token])
        return text

    def revoke(self, name: str) -> None:
        """Remove a token, so that its bearer is no longer authenticated.

        Raises:
            TokenError: no token has this name.

        """
        left = [one for one in self.all() if one.name != name]
        if len(left) == len(self.all()):
            raise TokenError(f"there is no token named {name}")
        self._write(left)

    def viewer(self, text: str) -> Principal | None:
        """Return the bearer of a token's text; none if it is unknown or has expired."""
        return self.viewer_of(digest_of(text))

    def viewer_of(self, digest: str) -> Principal | None:
        """Return the bearer of the token with a SHA-256; none if it is unknown, revoked or expired.

        Only digests are compared. A caller cannot choose them, so the time that this takes reveals nothing about a
        token.
        """
        found, now = self._by_digest().get(digest), datetime.now(UTC)
        if found is None or (found.expires is not None and now >= found.expires):
            return None
        return Principal(found.name, found.role, found.person_id, found.source)

    def _write(self, tokens: list[Token]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._path, msgspec.json.encode(tokens).decode())
        self._file_state = ()


def digest_of(text: str) -> str:
    """Return the SHA-256 of a token's text, which may hold surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
