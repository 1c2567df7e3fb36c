"""Signed notes and checkpoints as C2SP defines them (https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint)."""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ED25519 = b"\x01"
_DASH = "\N{EM DASH} "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class NoteError(LedgerError, ValueError):
    """A note, a checkpoint or a key that cannot be read, or that no trusted key has signed."""


class Verifier(NamedTuple):
    """A name and its Ed25519 public key, 32 bytes."""

    name: str
    key: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that identify the key in a signature."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.key).digest()[:4]

    def text(self) -> str:
        """Return the verifier as auditors store it: ``name+id+key``."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.key).decode()}"

    @classmethod
    def read(cls, text: str) -> Verifier:
        """Return the verifier in a text.

        Raises:
            NoteError: it is not a verifier key of Ed25519.
        """
        try:
            name, key_id, key = text.strip().split("+", 2)
            data = base64.b64decode(key, validate=True)
        except (ValueError, binascii.Error):
            data = name = key_id = ""  # type: ignore[assignment]
        if not name or len(data) != 33 or data[:1] != _ED25519:  # noqa: PLR2004 - a byte for the kind, 32 for the key
            raise NoteError(f"{text.strip()[:80]!r} is not a verifier key: its form is name+id+key, on one line")
        found = cls(name, data[1:])
        if found.key_id.hex() != key_id:
            raise NoteError(f"the verifier key of {name} does not match its id {key_id}: copy it again")
        return found

    def accepts(self, text: bytes, signature: bytes) -> bool:
        """Return whether a signature of this text was made with this key."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, text)
        except InvalidSignature:
            return False
        return True


class Signer(NamedTuple):
    """A name and its Ed25519 seed, 32 bytes."""

    name: str
    seed: bytes

    @classmethod
    def make(cls, name: str) -> Signer:
        """Return a new key."""
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def verifier(self) -> Verifier:
        """The key that verifies this one's signatures."""
        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key()
        return Verifier(self.name, public.public_bytes_raw())

    def text(self) -> str:
        """Return the content of a key file, in the form of Go's ``sumdb/note``."""
        key = base64.b64encode(_ED25519 + self.seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_id.hex()}+{key}"

    @classmethod
    def read(cls, text: str) -> Signer:
        """Return the key in a file's text.

        Raises:
            NoteError: it is not a signing key.
        """
        line = text.removesuffix("\n")
        try:
            _, _, name, _, key = line.split("+", 4)
            found = cls(name, base64.b64decode(key, validate=True)[1:])
            damaged = found.text() != line
        except ValueError:
            damaged = True
        if damaged:
            raise NoteError("the signing key's file cannot be read, or is damaged: restore it from its backup")
        return found

    def line(self, text: bytes) -> str:
        """Return the signature of a text, as a line of the note."""
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text)
        return f"{_DASH}{self.name} {base64.b64encode(self.verifier.key_id + signature).decode()}\n"


class Checkpoint(NamedTuple):
    """The size and root of a log; ``note`` is the full text with its signatures."""

    origin: str
    size: int
    root: bytes
    note: str

    @property
    def text(self) -> bytes:
        """The signed text."""
        return self.note.partition("\n\n")[0].encode() + b"\n"

    @property
    def lines(self) -> list[str]:
        """The signature lines."""
        return [line + "\n" for line in self.note.partition("\n\n")[2].split("\n") if line]

    def signed_by(self, verifiers: Sequence[Verifier]) -> list[Verifier]:
        """Return the verifiers that have signed it."""
        found = [
            verifier
            for verifier in verifiers
            for name, key_id, signature in map(_signature, self.lines)
            if name == verifier.name and key_id == verifier.key_id and verifier.accepts(self.text, signature)
        ]
        return list(dict.fromkeys(found))

    def with_signatures(self, lines: Sequence[str]) -> Checkpoint:
        """Return the checkpoint with more signature lines."""
        new_lines = [line for line in lines if line not in self.lines]
        return self._replace(note=self.note + "".join(new_lines))


def make_checkpoint(origin: str, size: int, root: bytes, signers: Sequence[Signer]) -> Checkpoint:
    """Return a signed checkpoint."""
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    signatures = "".join(signer.line(text.encode()) for signer in signers)
    return Checkpoint(origin, size, root, f"{text}\n{signatures}")


def read_checkpoint(note: str) -> Checkpoint:
    """Return the checkpoint in a text; its signatures are not verified.

    Raises:
        NoteError: the text is not a checkpoint.
    """
    text, _, signatures = note.partition("\n\n")
    origin, size, root, *more = [*text.split("\n"), "", "", ""][: max(3, text.count("\n") + 1)]
    hashed = _decode_base64(root)
    if not origin or len(hashed) != 32 or not _SIZE.fullmatch(size) or not all(more):  # noqa: PLR2004 - a SHA-256
        raise NoteError("this is not a checkpoint: its first lines are origin, size and root hash")
    if not signatures.startswith(_DASH):
        raise NoteError("the checkpoint has no signature")
    if any(not line.startswith(_DASH) or not _signature(line)[2] for line in signatures.removesuffix("\n").split("\n")):
        raise NoteError("the checkpoint's signatures are damaged")
    return Checkpoint(origin, int(size), hashed, note if note.endswith("\n") else note + "\n")


def sign_note(text: str, signer: Signer) -> str:
    """Return a signed note of any text that ends with a line break and has no blank line."""
    return f"{text}\n{signer.line(text.encode())}"


def open_note(note: str, verifiers: Sequence[Verifier]) -> str:
    """Return the text of a signed note.

    Raises:
        NoteError: none of the verifiers has signed it.
    """
    if not Checkpoint("", 0, b"", note).signed_by(verifiers):
        raise NoteError("this note is not signed by a trusted key")
    return note.partition("\n\n")[0] + "\n"


def _decode_base64(text: str) -> bytes:
    """Return the bytes of canonical Base64; empty for any other text."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return data if base64.b64encode(data).decode() == text else b""


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(_DASH).removesuffix("\n").rpartition(" ")
    data = _decode_base64(encoded)
    return name, data[:4], data[4:]
