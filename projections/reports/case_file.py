"""The case file: a self-contained HTML page about an action, with proofs of its events."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, TypedDict

import msgspec

from ledger.transparency.proofs import prove
from ledger.transparency.sealer import decode_entry
from ledger.transparency.signed_notes import NoteError
from projections.reports.explanation_text import story_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.serialization import JsonObject
    from ledger.transparency.sealer import SealEntry, SealFolder
    from projections.reports.decision_foundation import Foundation
    from projections.reports.explanation import Explanation

CASE_BYTES = 1 << 28
"""The most bytes of a case file that are read."""
_BEGIN, _END = '<script type="application/json" id="case">', "</script>"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1.5rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12px; }
:root { color-scheme: light dark; }
"""


class CaseContent(msgspec.Struct):
    """The part of a case file that is read back."""

    proofs: list[str]
    decision: tuple[int, int] | None = None


class CaseFile(TypedDict):
    """The content of a case file: the explained action, its events with proofs, checkpoint and keys.

    The events include all that its decision rests on.
    """

    explained: Explanation
    decision: tuple[int, int] | None
    """The positions of the first and the last event of its decision; ``None`` for a reported action."""
    events: list[JsonObject | None]
    proofs: list[str]
    checkpoint: str
    verifier_keys: list[str]


def sealed_event(entry: SealEntry) -> JsonObject | None:
    """Return the event of a leaf as `audit replay` shows it, or ``None`` for a gap."""
    return None if entry.is_gap else {**json.loads(entry.data), "position": entry.position}


def case_document(found: Explanation, foundation: Foundation | None, folder: SealFolder) -> CaseFile:
    """Return the content of a case file.

    Raises:
        NoteError: nothing is sealed yet.

    """
    newest = folder.checkpoint()
    if newest is None:
        raise NoteError("nothing is sealed yet")
    tiles = folder.tiles(newest.size)
    positions = sorted({*_story_positions(found), *(foundation.positions if foundation else ())})
    proofs = [prove(tiles, newest, position) for position in positions]
    return {
        "explained": found,
        "decision": None if foundation is None else (foundation.first, foundation.last),
        "events": [sealed_event(decode_entry(proof.entry)) for proof in proofs],
        "proofs": [proof.text() for proof in proofs],
        "checkpoint": newest.note,
        "verifier_keys": [verifier.text() for verifier in folder.trusted()],
    }


def case_page(document: CaseFile) -> str:
    """Return the HTML page of a case file."""
    found = document["explained"]
    title = f"Case file: action {found['action_id']}"
    story = _story_positions(found)
    events = [
        (event["position"], event["time"], event["type"], json.dumps(event["data"], ensure_ascii=False))
        for event in document["events"]
        if event is not None and event["position"] in story
    ]
    proofs = "".join(
        f"<details><summary>Position {event['position']}</summary><pre>{html.escape(proof)}</pre></details>"
        for event, proof in zip(document["events"], document["proofs"], strict=True)
        if event is not None
    )
    embedded = json.dumps(document, ensure_ascii=False).replace("<", "\\u003c")
    keys = "".join(f"<pre>{html.escape(key)}</pre>" for key in document["verifier_keys"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
{_table((), story_of(found))}
<h2>Events</h2>
{_table(("position", "time", "type", "data"), events)}
<h2>How to check this</h2>
<p>Each event is a leaf of the ledger's Merkle log (RFC 6962). Each proof below leads from a leaf to a root that the
ledger has signed (Ed25519, C2SP tlog-checkpoint). First compare the verifier key with a copy that you received in
another way. Then check a proof with any program that reads C2SP tlog-proof files, or all of them offline with:</p>
<pre>resolution-ledger audit verify-proof THIS-FILE --key KEY</pre>
<p>The proven events include all that the decision rests on. Make the decision again from them, offline, with:</p>
<pre>resolution-ledger audit redecide --case THIS-FILE</pre>
<p>A leaf is a byte 1, the position (64 bits), the length of the subject (16 bits), the subject, and the event's bytes;
numbers are big-endian. The proof holds it as <code>extra</code>, in base64.</p>
<h3>Verifier keys</h3>{keys}
<h3>Checkpoint</h3><pre>{html.escape(document["checkpoint"])}</pre>
<h3>Proofs</h3>{proofs}
{_BEGIN}{embedded}{_END}
</body></html>
"""


def _story_positions(found: Explanation) -> set[int]:
    lines = [*found["trail"], *found.get("interaction", ()), *found.get("escalation", ())]
    return {line["position"] for line in lines}


def proofs_in(text: str) -> list[str]:
    """Return the proofs of a case file; any other text is taken as one proof.

    Raises:
        ValueError: the case file is damaged.

    """
    return [text] if _BEGIN not in text else read_case(text).proofs


def read_case(text: str) -> CaseContent:
    """Return the content of a case file.

    Raises:
        ValueError: it is none, or it is damaged.

    """
    begin = text.find(_BEGIN)
    if begin < 0:
        raise ValueError("this is no case file")
    try:
        found = msgspec.json.decode(text[begin + len(_BEGIN) : text.index(_END, begin)].encode(), type=CaseContent)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        message = f"the case file is damaged: {error}"
        raise ValueError(message) from error
    if not found.proofs:
        raise ValueError("the case file holds no proof")
    return found


def _table(columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
