"""A copy of a seal's key in the server, encrypted, so that the role `seal` can go on at another machine.

It holds the files of a seal that cannot be derived: the key, the verifiers and the rotations. Tiles follow from the
log, and the server's record has one of the last checkpoints, which the tiles must reach before anything is signed.

The copy is encrypted by AES-256-GCM with a key that scrypt (RFC 7914) derives from a secret of the settings. So
neither the server nor a backup of it can sign.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ledger.files import write_atomically, write_private
from ledger.store.log import Draft
from ledger.transparency.signed_notes import NoteError

if TYPE_CHECKING:
    from ledger.store.log import Log
    from ledger.transparency.sealer import SealFolder

SUBJECT = "seal.copy"
_BYTES_AT_MOST = 900_000


class _Encrypted(msgspec.Struct, frozen=True):
    """The stored copy."""

    salt: bytes
    nonce: bytes
    data: bytes


class SealCopy:
    """The copy of one ledger's seal."""

    def __init__(self, log: Log, secret: str) -> None:
        """``log`` is that of the seal's record; ``secret`` is a long random text."""
        self._log, self._secret = log, secret.encode()
        self._kept: dict[str, bytes] = {}

    async def keep(self, folder: SealFolder) -> None:
        """Store the files of a seal where they have changed since the last time.

        Raises:
            UnavailableError: the server does not answer.
            NoteError: they are too large.
        """
        files = folder.small_files()
        if files == self._kept:
            return
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        data = self._cipher(salt).encrypt(nonce, msgspec.msgpack.encode(files), SUBJECT.encode())
        body = msgspec.json.encode(_Encrypted(salt, nonce, data))
        if len(body) > _BYTES_AT_MOST:
            raise NoteError("the seal's keys and rotations are too large for a copy in the server")
        await self._log.append([Draft(SUBJECT, body)])
        self._kept = files

    async def restore(self, folder: SealFolder) -> bool:
        """Write the copied files into a folder without a seal; return whether it has just these files now.

        Raises:
            NoteError: the secret is not the one that it was made with, or the copy is damaged.
            UnavailableError: the server does not answer.
        """
        stored = await self._log.read_from_leader(SUBJECT)
        if stored is None:
            return False
        try:
            kept = msgspec.json.decode(stored.data, type=_Encrypted)
            data = self._cipher(kept.salt).decrypt(kept.nonce, kept.data, SUBJECT.encode())
            files = msgspec.msgpack.decode(data, type=dict[str, bytes])
        except (InvalidTag, msgspec.MsgspecError, ValueError) as error:
            message = "the copy of the seal's key in the server cannot be decrypted: seal_secret is another one"
            raise NoteError(message) from error
        self._kept = files
        if folder.is_begun:  # perhaps by an earlier attempt that was interrupted
            return folder.small_files() == files
        for name, content in sorted(files.items(), key=lambda file: file[0] == "key"):  # last, since it begins a seal
            if name == "key":
                write_private(folder.folder / name, content.decode())
            else:
                write_atomically(folder.folder / name, content)
        return True

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(self._secret))
