"""A verifier of proofs written from RFC 6962 and C2SP alone; it shares no code with the ledger.

    python -m tests.support.independent_verifier PROOF VERIFIER_KEY

Needs `cryptography` for Ed25519. Prints the event and exits 0; exits 1 with what is wrong.
"""

import base64
import hashlib
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def check(proof: str, vkey: str) -> bytes:
    """Verify a proof; return the leaf that it shows to be in the log. Raises on a proof that does not hold."""
    head, note = proof.split("\n\n", 1)
    lines = head.split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1", "not a tlog-proof"
    fields = dict(line.split(" ", 1) for line in lines[1:3])
    leaf, index = base64.b64decode(fields["extra"]), int(fields["index"])
    path = [base64.b64decode(line) for line in lines[3:]]

    # C2SP signed-note and tlog-checkpoint
    name, key_id, key = vkey.strip().split("+", 2)
    public = base64.b64decode(key)
    assert hashlib.sha256(name.encode() + b"\n" + public).hexdigest()[:8] == key_id, "the key does not fit its id"
    text, signatures = note.split("\n\n", 1)
    text += "\n"
    _origin, size, root = text.split("\n")[:3]
    good = False
    for line in signatures.splitlines():
        dash, signer, encoded = line.split(" ")
        data = base64.b64decode(encoded)
        if dash == "\u2014" and signer == name and data[:4].hex() == key_id:
            Ed25519PublicKey.from_public_bytes(public[1:]).verify(data[4:], text.encode())
            good = True
    assert good, "not signed by this key"

    # RFC 6962, 2.1.1: climb from the leaf to the root
    def climb(number: int, count: int, hashes: list[bytes]) -> bytes:
        if count == 1:
            assert not hashes, "the path is too long"
            return hashlib.sha256(b"\0" + leaf).digest()
        assert hashes, "the path is too short"
        split = 1
        while split * 2 < count:
            split *= 2
        if number < split:
            return hashlib.sha256(b"\1" + climb(number, split, hashes[:-1]) + hashes[-1]).digest()
        return hashlib.sha256(b"\1" + hashes[-1] + climb(number - split, count - split, hashes[:-1])).digest()

    assert index < int(size), "not covered by the checkpoint"
    assert climb(index, int(size), path) == base64.b64decode(root), "the path leads to another root"
    return leaf


if __name__ == "__main__":
    try:
        entry = check(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2])
    except Exception as error:  # noqa: BLE001 - whatever is wrong, the proof does not hold
        sys.exit(f"the proof does not hold: {error!r}")
    sys.stdout.write(entry[11 + int.from_bytes(entry[9:11], "big") :].decode())
