"""Keys of persons: personal fields are encrypted with them, and are unreadable once a key is destroyed.

An encrypted field is stored as one string, `sealed:1:<key id>:<base64>` (`sealed:2` and base85 for long fields), of the
nonce and the AES-256-GCM ciphertext of the field's JSON. The nonce is derived from the key, the field and its context,
so that the same event is encrypted to the same bytes again. Keys are in a separate stream (a NATS key-value bucket),
never in the log.
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
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.errors import ConflictError, LedgerError, jetstream_error
from ledger.store.atomic_batches import MAX_BATCH
from ledger.store.cloudevents import time_text
from ledger.store.json_text import JsonObject
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ledger.nats.client import LedgerClient

STREAM = "KV_ledger-keys"
PREFIX = "$KV.ledger-keys"
ENCRYPTED_FIELD = re.compile(rb'"sealed:([12]):([0-9a-f]{32}\.[0-9]+):([^"\\]+)"')
_ENTRY_NAME = re.compile(r"k\.[0-9a-f]{32}\.[0-9]{1,15}|[A-Za-z][A-Za-z0-9_=-]*(\.[A-Za-z0-9_=-]+)*", re.ASCII)
_NONCE_BYTES = 12
_LONG_BYTES = 8_192
"""Longer fields use base85, which is slower and shorter, so that the largest event fits the stream's limit."""
_KEY_BYTES = 32
_FIRST, _LOG = "first", "LEDGER"
_CACHED = 50_000
"""Keys of one cache, of about 500 bytes each."""
_TRIES = 5


class KeyEntry(msgspec.Struct, omit_defaults=True):
    """A stored key: its owner, and the key itself (base64) until it is destroyed."""

    owner: str
    made: str
    key: str = ""
    destroyed: str = ""


class Key:
    """A key in use: its id, its 32 secret bytes, and the keys derived from them for encryption.

    It keeps no cipher: that takes 2.5 KB of memory for each person, and a microsecond to make.
    """

    __slots__ = ("_cipher", "_nonce", "_secret", "id")

    def __init__(self, key_id: str, secret: bytes) -> None:
        self.id = key_id
        self._secret = secret
        self._cipher, self._nonce = _derived(secret, b"encrypt"), _derived(secret, b"nonce")

    def encrypt(self, plain: bytes, context: str) -> str:
        """Return the stored form of a field's JSON; ``context`` is the event's source and id with the field's name."""
        encoded_context = context.encode()
        nonce = hmac.digest(self._nonce, len(encoded_context).to_bytes(4) + encoded_context + plain, "sha256")[
            :_NONCE_BYTES
        ]
        ciphertext = nonce + AESGCM(self._cipher).encrypt(nonce, plain, self.id.encode())
        if len(ciphertext) > _LONG_BYTES:
            return f"sealed:2:{self.id}:{base64.b85encode(ciphertext).decode()}"
        return f"sealed:1:{self.id}:{base64.b64encode(ciphertext).decode()}"

    def hash_of(self, text: str) -> str:
        """Return a keyed hash (32 hex digits): equal for equal texts, and useless for guessing a text."""
        return hmac.digest(_derived(self._secret, b"hash"), text.encode(), "sha256").hex()[:32]

    def open(self, version: bytes, encoded: bytes) -> bytes:
        """Return the field's JSON.

        Raises:
            InvalidTag: it was not encrypted with this key.
        """
        data = base64.b85decode(encoded) if version == b"2" else base64.b64decode(encoded)
        return AESGCM(self._cipher).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], self.id.encode())


def _derived(secret: bytes, use: bytes) -> bytes:
    """Return 32 bytes for one use of a key (HMAC-SHA-256)."""
    return hmac.digest(secret, use, "sha256")


def owner_token(owner: str) -> str:
    """Return the subject token of an owner, such as ``customer:C-9``."""
    return hashlib.blake2b(owner.encode(), digest_size=16).hexdigest()


def _new_entry(owner: str, secret: bytes) -> KeyEntry:
    return KeyEntry(owner, time_text(datetime.now(UTC)), base64.b64encode(secret).decode())


def key_ids(fields: Iterable[bytes]) -> set[str]:
    """Return the ids of the keys with which fields are encrypted."""
    return {match[2].decode() for field in fields if (match := ENCRYPTED_FIELD.fullmatch(field))}


def parse_backup(data: bytes) -> JsonObject:
    """Return the entries of a backup of keys, by name.

    Raises:
        ValueError: it is not a backup; the message says where.
    """
    try:
        entries = msgspec.json.decode(data, type=JsonObject)
        for name, value in entries.items():
            if not _ENTRY_NAME.fullmatch(name):
                raise ValueError(f"{name[:80]!r} is not a name of an entry")
            if name.startswith("k."):
                base64.b64decode(msgspec.convert(value, KeyEntry).key, validate=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    return entries


def _can_decrypt(key_id: str, field: re.Match[bytes], entry: KeyEntry) -> bool:
    """Return whether a field can be decrypted, or its key was destroyed."""
    try:
        return not entry.key or bool(Key(key_id, base64.b64decode(entry.key)).open(field[1], field[3]))
    except (InvalidTag, ValueError):
        return False


class Keyring:
    """The keys of the ledger. Without ``watch``, cached keys may have been destroyed by another process."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._current: dict[str, Key] = {}
        self._by_id: dict[str, Key | None] = {}
        self._first_number = 0

    @classmethod
    async def open(cls, client: LedgerClient) -> Keyring:
        """Open the keyring of this connection's ledger."""
        return cls(await Log.unstamped(client, STREAM))

    async def watch(self) -> None:
        """Drop a cached key as soon as any process destroys it."""

        def on_message(subject: bytes, _reply: bytes, _headers: bytes, body: bytes) -> None:
            if b'"destroyed"' in body:  # a new key invalidates no cache
                self._drop_cached(subject.decode())

        await self._log.client.subscribe_raw(f"{PREFIX}.k.*.*", on_message)

    def _drop_cached(self, subject: str) -> None:
        _, _, _, token, generation = subject.split(".")
        self._by_id.pop(f"{token}.{generation}", None)
        for owner in [owner for owner, key in self._current.items() if key.id.startswith(token)]:
            del self._current[owner]

    async def ensure(self, owners: Iterable[str]) -> dict[str, Key]:
        """Return a key for each owner; create it if there is none, or if the last one was destroyed.

        Raises:
            UnavailableError: the server does not answer.
        """
        wanted = set(owners)
        if missing := wanted - self._current.keys():
            await self._load(missing)
        found = {owner: self._current[owner] for owner in wanted}
        if len(self._current) > _CACHED:
            self._current.clear()
        return found

    async def has_key(self, owner: str) -> bool:
        """Return whether an owner has a key, without creating one."""
        return any(entry.key for _, entry in (await self._generations(owner_token(owner))).values())

    async def _load(self, owners: set[str]) -> None:
        """Cache the key of each owner."""
        generation = await self._first_generation()
        first_ids = {owner: f"{owner_token(owner)}.{generation}" for owner in owners}
        stored = await self._entries(first_ids.values())
        without_first = [owner for owner, key_id in first_ids.items() if key_id not in stored]
        for owner, key_id in first_ids.items():
            if key_id in stored and stored[key_id].key:  # a second key exists only after the first is destroyed
                self._current[owner] = Key(key_id, base64.b64decode(stored[key_id].key))
        if generation == 1:  # otherwise a backup may have restored an earlier key
            for start in range(0, len(without_first), MAX_BATCH):
                await self._create_together(without_first[start : start + MAX_BATCH])
        remaining = [owner for owner in owners if owner not in self._current]
        self._current |= zip(remaining, await asyncio.gather(*map(self._ensure_one, remaining)), strict=True)

    async def _entries(self, key_ids: Iterable[str]) -> dict[str, KeyEntry]:
        """Return the stored keys with these ids, also destroyed ones."""
        found = await self._log.last_of_each([f"{PREFIX}.k.{key_id}" for key_id in key_ids])
        return {
            subject.removeprefix(f"{PREFIX}.k."): msgspec.json.decode(message.data, type=KeyEntry)
            for subject, message in found.items()
        }

    async def _create_together(self, owners: list[str]) -> None:
        """Create first keys in one batch, or none if another process creates one of them meanwhile."""
        made = {owner: secrets.token_bytes(_KEY_BYTES) for owner in owners}
        drafts = [
            Draft(f"{PREFIX}.k.{owner_token(owner)}.1", msgspec.json.encode(_new_entry(owner, secret)), 0)
            for owner, secret in made.items()
        ]
        with suppress(ConflictError):
            await self._log.append(drafts)
            self._current |= {owner: Key(f"{owner_token(owner)}.1", secret) for owner, secret in made.items()}

    async def _first_generation(self) -> int:
        """Return the generation of each owner's first key: 1, unless the bucket is younger than the log.

        Then it is the time at which this is found. A key's id must never be reused with another secret: that would hide
        the loss of the first one, and keep a backup from restoring it.
        """
        if not self._first_number:
            name = f"{PREFIX}.{_FIRST}"
            bucket, log = [await js_api(self._log.client, f"STREAM.INFO.{stream}") for stream in (STREAM, _LOG)]
            for info in (bucket, log):
                if "error" in info:
                    raise jetstream_error(info["error"], "the keys of persons")
            created, first = (datetime.fromisoformat(text) for text in (bucket["created"], log["state"]["first_ts"]))
            is_younger = log["state"]["last_seq"] and created > first
            if is_younger and bucket["state"]["last_seq"] == 0:
                draft = Draft(name, msgspec.json.encode({"generation": int(datetime.now(UTC).timestamp())}), 0)
                with suppress(ConflictError):  # another process wrote it first
                    await self._log.append([draft])
            found = await self._log.last(name)
            self._first_number = msgspec.json.decode(found.data)["generation"] if found is not None else 1
        return self._first_number

    async def _ensure_one(self, owner: str) -> Key:
        token = owner_token(owner)
        for _ in range(_TRIES):
            generations = await self._generations(token)
            last = max(generations, default=0)
            if last and generations[last][1].key:
                return Key(f"{token}.{last}", base64.b64decode(generations[last][1].key))
            generation = max(last + 1, await self._first_generation())
            secret = secrets.token_bytes(_KEY_BYTES)
            entry = msgspec.json.encode(_new_entry(owner, secret))
            try:
                await self._log.append([Draft(f"{PREFIX}.k.{token}.{generation}", entry, 0)])
            except ConflictError:
                continue  # another process created one
            return Key(f"{token}.{generation}", secret)
        message = f"no key could be created for {owner.partition(':')[0]}: other processes keep creating one; try again"
        raise LedgerError(message)

    async def _generations(self, token: str) -> dict[int, tuple[int, KeyEntry]]:
        """Return position in the bucket and entry, by generation."""
        found = await self._log.read_subject(f"{PREFIX}.k.{token}.*")
        return {
            int(message.subject.rpartition(".")[2]): (
                message.position,
                msgspec.json.decode(message.data, type=KeyEntry),
            )
            for message in found
        }

    async def key_of_id(self, key_id: str) -> Key | None:
        """Return the key with this id; None if it was destroyed, or never existed here."""
        return (await self._keys_of_ids({key_id}))[key_id]

    async def _keys_of_ids(self, wanted: set[str]) -> dict[str, Key | None]:
        """Return the keys with these ids; a thousand that are not cached cost one request."""
        found = {key_id: self._by_id[key_id] for key_id in wanted & self._by_id.keys()}
        if missing := sorted(wanted - found.keys()):
            stored = await self._entries(missing)
            for key_id in missing:
                entry = stored.get(key_id)
                is_usable = entry is not None and entry.key
                found[key_id] = Key(key_id, base64.b64decode(entry.key)) if entry is not None and is_usable else None
            if len(self._by_id) + len(missing) > _CACHED:
                self._by_id.clear()
            self._by_id |= {key_id: found[key_id] for key_id in missing}
        return found

    async def decrypt_fields(self, data: bytes) -> bytes:
        """Return stored bytes with their encrypted fields decrypted, if their keys exist."""
        if b'"sealed:' not in data:
            return data
        opened: dict[bytes, bytes] = {}
        keys = await self._keys_of_ids({match[2].decode() for match in ENCRYPTED_FIELD.finditer(data)})
        for match in ENCRYPTED_FIELD.finditer(data):
            key = keys[match[2].decode()]
            if key is not None:
                try:
                    opened[match[0]] = key.open(match[1], match[3])
                except (InvalidTag, ValueError):
                    continue  # a string that only looks like an encrypted field
        return ENCRYPTED_FIELD.sub(lambda match: opened.get(match[0], match[0]), data)

    async def has_destroyed_key(self, fields: Iterable[bytes]) -> bool:
        """Return whether the key of one of these fields was destroyed; a lost key was not."""
        return any(not entry.key for entry in (await self._entries(key_ids(fields))).values())

    async def lost(self, fields: Iterable[bytes]) -> set[str]:
        """Return the ids of keys of these fields that are lost: there is no entry, or a key that does not fit.

        A destroyed key leaves a tombstone and is not lost.
        """
        matches = {match[2].decode(): match for field in fields if (match := ENCRYPTED_FIELD.fullmatch(field))}
        found = await self._entries(matches)
        return {
            key_id
            for key_id, match in matches.items()
            if key_id not in found or not _can_decrypt(key_id, match, found[key_id])
        }

    async def destroy(self, owner: str, made_before: str = "") -> int:
        """Destroy an owner's keys, optionally only those made before a time; return their number."""
        token, count = owner_token(owner), 0
        for generation, (position, entry) in (await self._generations(token)).items():
            if not entry.key or (made_before and entry.made >= made_before):
                continue
            # The server overwrites the deleted message; the tombstone shows that there was a key.
            await self._delete(position)
            tombstone = KeyEntry(entry.owner, entry.made, destroyed=time_text(datetime.now(UTC)))
            await self._log.append([Draft(f"{PREFIX}.k.{token}.{generation}", msgspec.json.encode(tombstone))])
            self._drop_cached(f"{PREFIX}.k.{token}.{generation}")
            count += 1
        return count

    async def _delete(self, position: int) -> None:
        answer = await js_api(self._log.client, f"STREAM.MSG.DELETE.{STREAM}", {"seq": position})
        if "error" in answer:
            raise LedgerError(f"a key could not be destroyed: {answer['error'].get('description')}")

    async def note(self, name: str, value: Mapping[str, str] | None) -> None:
        """Store a value beside the keys (``hold.<token>``, ``backup.<id>``); None removes it."""
        await self._log.append([Draft(f"{PREFIX}.{name}", msgspec.json.encode(value))])

    async def notes(self, pattern: str) -> dict[str, dict[str, str]]:
        """Return the values whose names match a pattern."""
        found = await self._log.read_subject(f"{PREFIX}.{pattern}")
        values: dict[str, dict[str, str] | None] = {
            message.subject.removeprefix(f"{PREFIX}."): msgspec.json.decode(message.data) for message in found
        }
        return {name: value for name, value in values.items() if value is not None}

    async def backup(self) -> JsonObject:
        """Return all keys and values by name, for a backup."""
        return {**await self.notes(">")}

    async def restore(self, entries: JsonObject) -> int:
        """Store the entries of a backup that are missing here; return their number."""
        count = 0
        await self._first_generation()  # keys made since the backup may be lost
        for name, value in entries.items():
            if await self._log.last(f"{PREFIX}.{name}") is not None:
                continue
            try:
                await self._log.append([Draft(f"{PREFIX}.{name}", msgspec.json.encode(value), 0)])
            except ConflictError:
                continue
            count += 1
        return count
