"""Keys of persons: personal fields are encrypted with them, and are gone for ever once a key is destroyed.

A field is stored as one text, `sealed:1:<key id>:<base85>`, of the nonce and what AES-256-GCM makes of the field's
JSON. The nonce is made from the key, the field and where it stands, so that the same event has the same form again.
Keys are kept in a stream of their own (a NATS key-value bucket), never in the log.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.cloudevents import time_text
from ledger.errors import ConflictError, LedgerError
from ledger.log import Draft, Log
from ledger.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledger.connection import LedgerClient

STREAM = "KV_ledger-keys"
PREFIX = "$KV.ledger-keys"
SEALED = re.compile(rb'"sealed:1:([0-9a-f]{32}\.[0-9]+):([^"\\]+)"')
_NONCE_BYTES = 12
_KEY_BYTES = 32
_CACHED = 100_000
_TRIES = 5


class Entry(msgspec.Struct, omit_defaults=True):
    """What is kept of one key: whose it is, and the key itself (base64) until it was destroyed."""

    owner: str
    made: str
    key: str = ""
    destroyed: str = ""


class Key(NamedTuple):
    """A key in use: its id, and 32 secret bytes."""

    id: str
    secret: bytes

    def seal(self, plain: bytes, context: str) -> str:
        """The stored form of a field's JSON; ``context`` is the event's name and the field's."""
        nonce = _derived(self.secret, b"nonce", context.encode(), plain)[:_NONCE_BYTES]
        encrypted = AESGCM(_derived(self.secret, b"encrypt")).encrypt(nonce, plain, self.id.encode())
        return f"sealed:1:{self.id}:{base64.b85encode(nonce + encrypted).decode()}"

    def hash_of(self, text: str) -> str:
        """A keyed hash: the same for the same text, and nothing to guess a text by (32 hex digits)."""
        return _derived(self.secret, b"hash", text.encode()).hex()[:32]

    def open(self, encoded: bytes) -> bytes:
        """The field's JSON.

        Raises:
            InvalidTag: it was not sealed with this key.

        """
        data = base64.b85decode(encoded)
        aes = AESGCM(_derived(self.secret, b"encrypt"))
        return aes.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], self.id.encode())


def _derived(secret: bytes, use: bytes, *parts: bytes) -> bytes:
    """32 bytes for one use of a key (HMAC-SHA-256 over lengths and parts)."""
    text = b"".join([len(part).to_bytes(4) + part for part in (use, *parts)])
    return hmac.digest(secret, text, hashlib.sha256)


def token_of(owner: str) -> str:
    """A short name for an owner, such as ``customer:C-9``."""
    return hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()


class Keys:
    """The keys there are. ``watch`` hears when somebody destroys one; without it, nothing is remembered for long."""

    def __init__(self, door: Log) -> None:
        self._door = door
        self._current: dict[str, Key] = {}
        self._by_id: dict[str, Key | None] = {}

    @classmethod
    async def open(cls, client: LedgerClient) -> Keys:
        """The keys of the ledger that this connection is for."""
        return cls(await Log.door(client, STREAM))

    async def watch(self) -> None:
        """Forget what is remembered of a key as soon as it is destroyed anywhere."""
        await self._door.client.pour(f"{PREFIX}.k.*.*", lambda subject, *_: self._changed(subject.decode()))

    def _changed(self, subject: str) -> None:
        _, _, _, token, generation = subject.split(".")
        self._by_id.pop(f"{token}.{generation}", None)
        for owner in [owner for owner, key in self._current.items() if key.id.startswith(token)]:
            del self._current[owner]

    async def ensure(self, owners: Iterable[str]) -> dict[str, Key]:
        """A key for each owner, made where there is none, or where the last one was destroyed.

        Raises:
            UnavailableError: the server is away.

        """
        wanted = set(owners)
        missing = [owner for owner in wanted if owner not in self._current]
        for owner, key in zip(missing, await asyncio.gather(*map(self._ensured, missing)), strict=True):
            self._current[owner] = key
        found = {owner: self._current[owner] for owner in wanted}
        if len(self._current) > _CACHED:
            self._current.clear()
        return found

    async def _ensured(self, owner: str) -> Key:
        token = token_of(owner)
        for _ in range(_TRIES):
            generations = await self._generations(token)
            last = max(generations, default=0)
            if last and generations[last][1].key:
                return Key(f"{token}.{last}", base64.b64decode(generations[last][1].key))
            secret = secrets.token_bytes(_KEY_BYTES)
            entry = Entry(owner, time_text(datetime.now(UTC)), base64.b64encode(secret).decode())
            try:
                await self._door.append([Draft(f"{PREFIX}.k.{token}.{last + 1}", msgspec.json.encode(entry), 0)])
            except ConflictError:
                continue  # another process made one
            return Key(f"{token}.{last + 1}", secret)
        message = f"no key could be made for {owner.partition(':')[0]}: others keep making one; try again"
        raise LedgerError(message)

    async def _generations(self, token: str) -> dict[int, tuple[int, Entry]]:
        """Generation -> position in the bucket, and what is kept."""
        found = await self._door.read_subject(f"{PREFIX}.k.{token}.*")
        return {
            int(one.subject.rpartition(".")[2]): (one.position, msgspec.json.decode(one.data, type=Entry))
            for one in found
        }

    async def by_id(self, key_id: str) -> Key | None:
        """The key of this id; none where it was destroyed, or never was here."""
        if key_id not in self._by_id:
            found = await self._door.last(f"{PREFIX}.k.{key_id}")
            entry = msgspec.json.decode(found.data, type=Entry) if found is not None else None
            known = entry is not None and entry.key
            self._by_id[key_id] = Key(key_id, base64.b64decode(entry.key)) if entry is not None and known else None
            if len(self._by_id) > _CACHED:
                self._by_id.clear()
        return self._by_id.get(key_id)

    async def reveal(self, data: bytes) -> bytes:
        """Stored bytes with their sealed fields opened, as far as the keys are there."""
        if b'"sealed:1:' not in data:
            return data
        opened: dict[bytes, bytes] = {}
        for match in SEALED.finditer(data):
            key = await self.by_id(match[1].decode())
            if key is not None:
                try:
                    opened[match[0]] = key.open(match[2])
                except (InvalidTag, ValueError):
                    continue  # a text that only looks like a sealed one
        return SEALED.sub(lambda match: opened.get(match[0], match[0]), data)

    async def destroyed(self, data: bytes) -> bool:
        """Whether stored bytes have a sealed field whose key is gone."""
        return any([await self.by_id(match[1].decode()) is None for match in SEALED.finditer(data)])

    async def destroy(self, owner: str, made_before: str = "") -> int:
        """Destroy an owner's keys, only those made before a time where one is given; how many."""
        token, count = token_of(owner), 0
        for generation, (position, entry) in (await self._generations(token)).items():
            if not entry.key or (made_before and entry.made >= made_before):
                continue
            # The server writes over what it deletes; the tombstone says that there was one.
            await self._delete(position)
            grave = Entry(entry.owner, entry.made, destroyed=time_text(datetime.now(UTC)))
            await self._door.append([Draft(f"{PREFIX}.k.{token}.{generation}", msgspec.json.encode(grave))])
            self._changed(f"{PREFIX}.k.{token}.{generation}")
            count += 1
        return count

    async def _delete(self, position: int) -> None:
        answer = await js_api(self._door.client, f"STREAM.MSG.DELETE.{STREAM}", {"seq": position})
        if "error" in answer:
            message = f"a key could not be destroyed: {answer['error'].get('description')}"
            raise LedgerError(message)

    # ------------------------------------------------------------------ notes beside the keys

    async def note(self, name: str, value: Any) -> None:
        """Keep something beside the keys (``hold.<token>``, ``backup.<id>``); None takes it away."""
        await self._door.append([Draft(f"{PREFIX}.{name}", msgspec.json.encode(value))])

    async def notes(self, pattern: str) -> dict[str, Any]:
        """What is kept under such names."""
        found = await self._door.read_subject(f"{PREFIX}.{pattern}")
        values = {one.subject.removeprefix(f"{PREFIX}."): msgspec.json.decode(one.data) for one in found}
        return {name: value for name, value in values.items() if value is not None}

    async def everything(self) -> dict[str, Any]:
        """All that is here, by name, for a backup."""
        return await self.notes(">")

    async def put_back(self, entries: dict[str, Any]) -> int:
        """Put back what a backup has and is not here; how much."""
        count = 0
        for name, value in entries.items():
            if await self._door.last(f"{PREFIX}.{name}") is not None:
                continue
            try:
                await self._door.append([Draft(f"{PREFIX}.{name}", msgspec.json.encode(value), 0)])
            except ConflictError:
                continue
            count += 1
        return count
