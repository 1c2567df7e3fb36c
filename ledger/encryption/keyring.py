"""Keys of persons: personal fields are encrypted with them, and are gone for ever once a key is destroyed.

A field is stored as one text, `sealed:1:<key id>:<base64>` (`sealed:2` and base85 where it is long), of the nonce and
what AES-256-GCM makes of the field's JSON. The nonce is made from the key, the field and where it stands, so that the
same event has the same form again. Keys are in a stream of their own (a NATS key-value bucket), never in the log.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.errors import ConflictError, LedgerError, jetstream_error
from ledger.store.batches import MAX_BATCH
from ledger.store.cloudevents import time_text
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledger.nats.client import LedgerClient

STREAM = "KV_ledger-keys"
PREFIX = "$KV.ledger-keys"
ENCRYPTED_FIELD = re.compile(rb'"sealed:([12]):([0-9a-f]{32}\.[0-9]+):([^"\\]+)"')
_ENTRY_NAME = re.compile(r"k\.[0-9a-f]{32}\.[0-9]{1,15}|[A-Za-z][A-Za-z0-9_=-]*(\.[A-Za-z0-9_=-]+)*", re.ASCII)
_NONCE_BYTES = 12
_LONG_BYTES = 8_192
"""What is longer stands in base85, which is slow and short; so the largest event stays below the stream's limit."""
_KEY_BYTES = 32
_FIRST, _LOG = "first", "LEDGER"
_CACHED = 100_000
_TRIES = 5


class KeyEntry(msgspec.Struct, omit_defaults=True):
    """What is kept of one key: whose it is, and the key itself (base64) until it was destroyed."""

    owner: str
    made: str
    key: str = ""
    destroyed: str = ""


class Key:
    """A key in use: its id, and what is derived from its 32 secret bytes for each use."""

    __slots__ = ("_aes", "_hash", "_nonce", "id")

    def __init__(self, key_id: str, secret: bytes) -> None:
        self.id = key_id
        self._aes = AESGCM(_derived(secret, b"encrypt"))
        self._nonce, self._hash = _derived(secret, b"nonce"), _derived(secret, b"hash")

    def seal(self, plain: bytes, context: str) -> str:
        """The stored form of a field's JSON; ``context`` is the event's name and the field's."""
        named = context.encode()
        nonce = hmac.digest(self._nonce, len(named).to_bytes(4) + named + plain, "sha256")[:_NONCE_BYTES]
        sealed = nonce + self._aes.encrypt(nonce, plain, self.id.encode())
        if len(sealed) > _LONG_BYTES:
            return f"sealed:2:{self.id}:{base64.b85encode(sealed).decode()}"
        return f"sealed:1:{self.id}:{base64.b64encode(sealed).decode()}"

    def hash_of(self, text: str) -> str:
        """A keyed hash: the same for the same text, and nothing to guess a text by (32 hex digits)."""
        return hmac.digest(self._hash, text.encode(), "sha256").hex()[:32]

    def open(self, version: bytes, encoded: bytes) -> bytes:
        """The field's JSON.

        Raises:
            InvalidTag: it was not sealed with this key.

        """
        data = base64.b85decode(encoded) if version == b"2" else base64.b64decode(encoded)
        return self._aes.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], self.id.encode())


def _derived(secret: bytes, use: bytes) -> bytes:
    """32 bytes for one use of a key (HMAC-SHA-256)."""
    return hmac.digest(secret, use, "sha256")


def owner_token(owner: str) -> str:
    """A short name for an owner, such as ``customer:C-9``."""
    return hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()


def _new_entry(owner: str, secret: bytes) -> KeyEntry:
    return KeyEntry(owner, time_text(datetime.now(UTC)), base64.b64encode(secret).decode())


def key_ids(sealed: Iterable[bytes]) -> set[str]:
    """Return the ids of the keys with which fields are sealed."""
    return {match[2].decode() for one in sealed if (match := ENCRYPTED_FIELD.fullmatch(one))}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def parse_backup(data: bytes) -> dict[str, Any]:
    """Read what a backup of keys holds, by name.

    Raises:
        ValueError: it is none; the text says where.

    """
    try:
        entries = msgspec.json.decode(data, type=dict[str, Any])
        for name, value in entries.items():
            if not _ENTRY_NAME.fullmatch(name):
                message = f"{name[:80]!r} is no name of an entry"
                raise ValueError(message)
            if name.startswith("k."):
                base64.b64decode(msgspec.convert(value, KeyEntry).key, validate=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    return entries


def _can_decrypt(key_id: str, field: re.Match[bytes], entry: KeyEntry) -> bool:
    """Return whether a field can be opened, or its key was destroyed."""
    try:
        return not entry.key or bool(Key(key_id, base64.b64decode(entry.key)).open(field[1], field[3]))
    except (InvalidTag, ValueError):
        return False


class Keyring:
    """The keys there are. ``watch`` hears when somebody destroys one; without it, nothing is remembered for long."""

    def __init__(self, door: Log) -> None:
        self._log = door
        self._current: dict[str, Key] = {}
        self._by_id: dict[str, Key | None] = {}
        self._first = 0

    @classmethod
    async def open(cls, client: LedgerClient) -> Keyring:
        """The keys of the ledger that this connection is for."""
        return cls(await Log.unstamped(client, STREAM))

    async def watch(self) -> None:
        """Forget what is remembered of a key as soon as it is destroyed anywhere."""

        def heard(subject: bytes, _reply: bytes, _headers: bytes, body: bytes) -> None:
            if b'"destroyed"' in body:  # one that is made changes nothing for anybody
                self._changed(subject.decode())

        await self._log.client.subscribe_raw(f"{PREFIX}.k.*.*", heard)

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
        number = await self._first_generation() if missing else 0
        first = await asyncio.gather(
            *(self._log.last(f"{PREFIX}.k.{owner_token(owner)}.{number}") for owner in missing)
        )
        new = [owner for owner, stored in zip(missing, first, strict=True) if stored is None]
        for owner, stored in zip(missing, first, strict=True):
            entry = msgspec.json.decode(stored.data, type=KeyEntry) if stored is not None else None
            if entry is not None and entry.key:  # a second one is made only when the first is destroyed
                self._current[owner] = Key(f"{owner_token(owner)}.{number}", base64.b64decode(entry.key))
        if number == 1:  # else a backup may have brought back an earlier key
            for at in range(0, len(new), MAX_BATCH):
                await self._make_together(new[at : at + MAX_BATCH])
        rest = [owner for owner in missing if owner not in self._current]
        self._current |= zip(rest, await asyncio.gather(*map(self._ensured, rest)), strict=True)
        found = {owner: self._current[owner] for owner in wanted}
        if len(self._current) > _CACHED:
            self._current.clear()
        return found

    async def _make_together(self, owners: list[str]) -> None:
        """First keys, in one batch; none, where another process makes one meanwhile: then they are made one by one."""
        made = {owner: secrets.token_bytes(_KEY_BYTES) for owner in owners}
        drafts = [
            Draft(f"{PREFIX}.k.{owner_token(owner)}.1", msgspec.json.encode(_new_entry(owner, secret)), 0)
            for owner, secret in made.items()
        ]
        with suppress(ConflictError):
            await self._log.append(drafts)
            self._current |= {owner: Key(f"{owner_token(owner)}.1", secret) for owner, secret in made.items()}

    async def _first_generation(self) -> int:
        """Return the number of each owner's first key in this bucket: 1, unless the bucket is younger than the log.

        Then it is the time of that moment: a key's id must never come back with another secret. It would hide that the
        first one is lost, and keep a backup from bringing it back.
        """
        if not self._first:
            name = f"{PREFIX}.{_FIRST}"
            bucket, log = [await js_api(self._log.client, f"STREAM.INFO.{stream}") for stream in (STREAM, _LOG)]
            for info in (bucket, log):
                if "error" in info:
                    raise jetstream_error(info["error"], "the keys of persons")
            late = log["state"]["last_seq"] and _moment(bucket["created"]) > _moment(log["state"]["first_ts"])
            if late and bucket["state"]["last_seq"] == 0:
                draft = Draft(name, msgspec.json.encode({"generation": int(datetime.now(UTC).timestamp())}), 0)
                with suppress(ConflictError):  # another process was quicker
                    await self._log.append([draft])
            found = await self._log.last(name)
            self._first = msgspec.json.decode(found.data)["generation"] if found is not None else 1
        return self._first

    async def _ensured(self, owner: str) -> Key:
        token = owner_token(owner)
        for _ in range(_TRIES):
            generations = await self._generations(token)
            last = max(generations, default=0)
            if last and generations[last][1].key:
                return Key(f"{token}.{last}", base64.b64decode(generations[last][1].key))
            number = max(last + 1, await self._first_generation())
            secret = secrets.token_bytes(_KEY_BYTES)
            entry = msgspec.json.encode(_new_entry(owner, secret))
            try:
                await self._log.append([Draft(f"{PREFIX}.k.{token}.{number}", entry, 0)])
            except ConflictError:
                continue  # another process made one
            return Key(f"{token}.{number}", secret)
        message = f"no key could be made for {owner.partition(':')[0]}: others keep making one; try again"
        raise LedgerError(message)

    async def _generations(self, token: str) -> dict[int, tuple[int, KeyEntry]]:
        """Generation -> position in the bucket, and what is kept."""
        found = await self._log.read_subject(f"{PREFIX}.k.{token}.*")
        return {
            int(one.subject.rpartition(".")[2]): (one.position, msgspec.json.decode(one.data, type=KeyEntry))
            for one in found
        }

    async def key_of_id(self, key_id: str) -> Key | None:
        """The key of this id; none where it was destroyed, or never was here."""
        if key_id not in self._by_id:
            found = await self._log.last(f"{PREFIX}.k.{key_id}")
            entry = msgspec.json.decode(found.data, type=KeyEntry) if found is not None else None
            known = entry is not None and entry.key
            self._by_id[key_id] = Key(key_id, base64.b64decode(entry.key)) if entry is not None and known else None
            if len(self._by_id) > _CACHED:
                self._by_id.clear()
        return self._by_id.get(key_id)

    async def decrypt_fields(self, data: bytes) -> bytes:
        """Stored bytes with their sealed fields opened, as far as the keys are there."""
        if b'"sealed:' not in data:
            return data
        opened: dict[bytes, bytes] = {}
        for match in ENCRYPTED_FIELD.finditer(data):
            key = await self.key_of_id(match[2].decode())
            if key is not None:
                try:
                    opened[match[0]] = key.open(match[1], match[3])
                except (InvalidTag, ValueError):
                    continue  # a text that only looks like a sealed one
        return ENCRYPTED_FIELD.sub(lambda match: opened.get(match[0], match[0]), data)

    async def has_destroyed_key(self, sealed: Iterable[bytes]) -> bool:
        """Return whether the key of one of these fields was destroyed; a lost key was not."""
        ids = {match[2].decode() for one in sealed if (match := ENCRYPTED_FIELD.fullmatch(one))}
        found = await asyncio.gather(*(self._log.last(f"{PREFIX}.k.{key_id}") for key_id in ids))
        return any(one is not None and not msgspec.json.decode(one.data, type=KeyEntry).key for one in found)

    async def lost(self, sealed: Iterable[bytes]) -> set[str]:
        """Return the ids of keys that sealed these fields and are gone: no trace is left, or a key that does not fit.

        Of a key that was destroyed its tombstone is left.
        """
        fields = {match[2].decode(): match for one in sealed if (match := ENCRYPTED_FIELD.fullmatch(one))}
        found = await asyncio.gather(*(self._log.last(f"{PREFIX}.k.{key_id}") for key_id in fields))
        return {
            key_id
            for (key_id, match), one in zip(fields.items(), found, strict=True)
            if one is None or not _can_decrypt(key_id, match, msgspec.json.decode(one.data, type=KeyEntry))
        }

    async def destroy(self, owner: str, made_before: str = "") -> int:
        """Destroy an owner's keys, only those made before a time where one is given; how many."""
        token, count = owner_token(owner), 0
        for generation, (position, entry) in (await self._generations(token)).items():
            if not entry.key or (made_before and entry.made >= made_before):
                continue
            # The server writes over what it deletes; the tombstone says that there was one.
            await self._delete(position)
            grave = KeyEntry(entry.owner, entry.made, destroyed=time_text(datetime.now(UTC)))
            await self._log.append([Draft(f"{PREFIX}.k.{token}.{generation}", msgspec.json.encode(grave))])
            self._changed(f"{PREFIX}.k.{token}.{generation}")
            count += 1
        return count

    async def _delete(self, position: int) -> None:
        answer = await js_api(self._log.client, f"STREAM.MSG.DELETE.{STREAM}", {"seq": position})
        if "error" in answer:
            message = f"a key could not be destroyed: {answer['error'].get('description')}"
            raise LedgerError(message)

    # ------------------------------------------------------------------ notes beside the keys

    async def note(self, name: str, value: Any) -> None:
        """Keep something beside the keys (``hold.<token>``, ``backup.<id>``); None takes it away."""
        await self._log.append([Draft(f"{PREFIX}.{name}", msgspec.json.encode(value))])

    async def notes(self, pattern: str) -> dict[str, Any]:
        """What is kept under such names."""
        found = await self._log.read_subject(f"{PREFIX}.{pattern}")
        values = {one.subject.removeprefix(f"{PREFIX}."): msgspec.json.decode(one.data) for one in found}
        return {name: value for name, value in values.items() if value is not None}

    async def backup(self) -> dict[str, Any]:
        """All that is here, by name, for a backup."""
        return await self.notes(">")

    async def restore(self, entries: dict[str, Any]) -> int:
        """Put back what a backup has and is not here; how much."""
        count = 0
        await self._first_generation()  # keys made since the backup may be lost for good
        for name, value in entries.items():
            if await self._log.last(f"{PREFIX}.{name}") is not None:
                continue
            try:
                await self._log.append([Draft(f"{PREFIX}.{name}", msgspec.json.encode(value), 0)])
            except ConflictError:
                continue
            count += 1
        return count
