"""A copy of a seal's key in the server, encrypted, with which an operator goes on with the seal at another machine.

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

from ledger.errors import LedgerError
from ledger.files import write_atomically, write_private
from ledger.store.log import Draft
from ledger.transparency.sealer import TAKEN_OVER

if TYPE_CHECKING:
    from ledger.store.log import Log
    from ledger.transparency.sealer import SealFolder

SUBJECT = "seal.copy"
_BYTES_AT_MOST = 900_000


class SealCopyError(LedgerError):
    """The copy and the settings or the folder do not fit each other; the log and its seal are not in question."""


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
        self._kept: dict[str, bytes] | None = None
        self._position = 0

    async def keep(self, folder: SealFolder, *, replaces: bool = False) -> None:
        """Store the files of a seal where they have changed since the last time.

        A copy with keys that the folder does not have is replaced only with ``replaces``: the folder was left behind.

        Raises:
            SealCopyError: the server has the copy of a newer key, or of another secret; or the files are too large.
            ConflictError: another process has stored a copy meanwhile.
            UnavailableError: the server does not answer.
        """
        files = folder.small_files()
        if files == self._kept:
            return
        kept = {} if replaces else await self._read()
        if replaces:
            stored = await self._log.read_from_leader(SUBJECT)
            self._position = 0 if stored is None else stored.position
        if not files["verifiers"].startswith(kept.get("verifiers", b"")):
            raise SealCopyError(
                f"{folder.folder} was left behind: the copy of the seal's key in the server is newer. Seal at the "
                "machine that took the seal over, or move this folder away and run `resolution-ledger admin seal "
                "take-over`"
            )
        salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
        data = self._cipher(salt).encrypt(nonce, msgspec.msgpack.encode(files), SUBJECT.encode())
        body = msgspec.json.encode(_Encrypted(salt, nonce, data))
        if len(body) > _BYTES_AT_MOST:
            raise SealCopyError("the seal's keys and rotations are too large for a copy in the server")
        self._position = await self._log.append([Draft(SUBJECT, body, self._position)])
        self._kept = files

    async def take_over(self, folder: SealFolder) -> None:
        """Write the copied files into a folder that has no seal.

        Raises:
            SealCopyError: there is no copy, the secret is another one, or the folder has a seal.
            UnavailableError: the server does not answer.
        """
        files = await self._read()
        if not files:
            raise SealCopyError("the server has no copy of the seal's key: none was sealed with a seal_secret")
        if folder.is_begun and not folder.is_taken_over:
            raise SealCopyError(f"{folder.folder} holds a seal already: move it away first, if it was left behind")
        write_atomically(folder.folder / TAKEN_OVER, b"")
        for name, content in files.items():
            if name == "key":
                write_private(folder.folder / name, content.decode())
            else:
                write_atomically(folder.folder / name, content)

    async def _read(self) -> dict[str, bytes]:
        """Return the copied files; none without a copy."""
        stored = await self._log.read_from_leader(SUBJECT)
        self._position = 0 if stored is None else stored.position
        if stored is None:
            return {}
        try:
            kept = msgspec.json.decode(stored.data, type=_Encrypted)
            data = self._cipher(kept.salt).decrypt(kept.nonce, kept.data, SUBJECT.encode())
            return msgspec.msgpack.decode(data, type=dict[str, bytes])
        except (InvalidTag, msgspec.MsgspecError, ValueError) as error:
            message = "the copy of the seal's key in the server cannot be decrypted: seal_secret is another one"
            raise SealCopyError(message) from error

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(self._secret))
