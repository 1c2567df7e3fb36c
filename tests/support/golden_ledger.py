"""Make the golden ledger: a real ledger of one commit, and the answers that its own code gives.

    .venv/bin/python -m tests.support.golden_ledger FOLDER [COMMIT]

COMMIT (default: 3e7bf5b) is checked out and run with an environment of its own; it is driven from outside, by plain
nats-py and the command line. Writes FOLDER/ledger.tar.xz and FOLDER/expected.json (tests/golden/README.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from importlib import resources
from pathlib import Path

from benchmarks.processes import Ledger
from benchmarks.versions import checked_out
from ledger.nats.embedded_server import EmbeddedServer
from tests.support.documents import Document
from tests.support.golden_story import Ask, Bad, Command, Fact, fact, money, other, story

if TYPE_CHECKING:
    from nats.aio.client import Client

COMMIT = "3e7bf5be98dc98fd754d30f6095613cc8cb23bdd"
CURRENCIES = "iso4217==1.11.20220401"
"""The newest release whose table lists both BGN and HRK; the commit itself pins one that lists neither."""
READINGS = {
    "balances": ("report", "balances"),
    "waiting": ("report", "escalations", "--waiting"),
    "escalations": ("report", "escalations"),
    "actions": ("report", "actions"),
    "gap": ("report", "gap"),
    "loyalty": ("report", "loyalty"),
    "quality": ("report", "quality"),
    "recognition": ("report", "recognition"),
    "flags": ("audit", "flags", "--all"),
    "trail": ("audit", "trail"),
    "rejected": ("admin", "rejected", "list"),
}
"""The readings that are recorded, each by a command with ``--json``."""
CHANGING = {
    "recognition": ("staying",),
    "gap": ("silent_gap", "cannot_do", "recommended_limits", "unused", "by_role", "by_team"),
    "quality": ("overall", "by_channel", "by_team", "by_line", "by_reason", "evenness", "satisfaction"),
}
"""Fields of a reading that depend on the day on which it is read, or that a later version defines in another way."""
REPORTS = {"gap", "loyalty", "quality", "recognition"}
EXPECTED = Path(__file__).parents[1] / "golden" / "expected.json"
_WHOLE_SECONDS = re.compile(r"\b(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z")
SENTENCES = {"caveats", "controls", "text", "why"}
"""Fields of reports that hold sentences for people."""
LEFT_BEHIND = (
    fact("a.b", "late-1", "interaction.opened", "2025-03-10T11:30:00Z", interaction_id="I-L1", customer_id="C-1"),
    fact("a_b", "late-1", "interaction.opened", "2025-03-10T11:31:00Z", interaction_id="I-L2", customer_id="C-2"),
    fact(
        "a.b",
        "ev-3",
        "purchase.completed",
        "2025-02-22T10:00:00Z",
        order_id="O-3",
        customer_id="C-3",
        total=money("64.00"),
    ),
)
"""Acknowledged, and still in the inbox when the ledger stops; the last one is a duplicate."""
NOT_KEPT = {"server.log", "server.pid", "address.json", "origin.json", "users.lock", "start.lock", "up.lock"}
"""Of the moment, or of this machine."""


class Story:
    """Tells the story to a running ledger, and notes its answers."""

    def __init__(self, client: Client, ledger: Ledger) -> None:
        self.answers: list[Document] = []
        self.events: list[tuple[str, str, str]] = []
        self._client = client
        self._ledger = ledger
        self._ids: dict[str, str] = {}

    async def tell(self, step: Any) -> None:
        """Take one step, and wait for its answer."""
        match step:
            case Fact():
                self.events.append((step.token, step.event["source"], step.event["id"]))
                await self._publish(step.token, self._named(step.body))
            case Bad():
                await self._publish(step.token, step.body)
            case Ask():
                await self._ask(step)
            case Command():
                await self.settled()
                await asyncio.to_thread(self._ledger.run, *step.words)

    async def settled(self) -> None:
        """Wait until the inbox is taken in, facts are posted, views are current, all is sealed, and the guard has looked."""
        quiet, last = 0, None
        while quiet < 4:
            await asyncio.sleep(0.5)
            status = await asyncio.to_thread(self._ledger.document, "admin", "projections", "status")
            seal = await asyncio.to_thread(self._ledger.document, "admin", "seal", "status")
            now = json.dumps([[one["position"] for one in status["items"]], seal.get("size", seal)])
            quiet, last = (quiet + 1 if now == last else 0), now

    async def _publish(self, token: str, body: bytes) -> None:
        ack = json.loads((await self._client.request(f"resolution.inbox.{token}", body, timeout=10)).data)
        assert "error" not in ack, ack

    async def _ask(self, step: Ask) -> None:
        body = self._named(json.dumps(step.fields, ensure_ascii=False).encode())
        subject = f"resolution.decide.{step.token}.{step.operation}"
        answer = json.loads((await self._client.request(subject, body, timeout=20)).data)
        assert step.outcome in {"*", answer["outcome"]}, (step, answer)
        if "request_id" in step.fields:
            found = answer.get("action_id") or answer.get("escalation_id")
            if answer.get("escalation_id") and step.operation in {"action", "escalation"}:
                found = answer["escalation_id"] if answer["outcome"] != "taken" else found
            self._ids[step.fields["request_id"]] = str(found)
            if answer["outcome"] != "error":
                self.answers.append({"subject": subject, "body": json.loads(body), "answer": answer})

    def _named(self, body: bytes) -> bytes:
        """Fill in the ids that earlier answers gave: ``<r-3>`` is that of the request r-3."""
        return re.sub(rb"<(?:crm )?(r-[a-z0-9-]+)>", lambda found: self._ids[found[1].decode()].encode(), body)

    async def receipts(self) -> list[Document]:
        """Return the receipt of every fact that was sent."""
        found = []
        for token, source, identifier in self.events:
            body = {"id": identifier, "source": source}
            reply = await self._client.request(
                f"resolution.read.{token}.receipt", json.dumps(body).encode(), timeout=10
            )
            found.append({"token": token, "request": body, "answer": json.loads(reply.data)})
        return found


async def make(ledger: Ledger) -> Document:
    """Let the ledger live through the story; return its answers."""
    with ledger.up("--history"):
        where = json.loads((ledger.data_dir / "connection.json").read_text())
        client = await nats.connect(where["nats_url"])
        told = Story(client, ledger)
        # Facts come before the requests that need them: the directory of staff follows the log.
        for step in story():
            if isinstance(step, Ask) and step.operation == "policy":
                await told.settled()
            await told.tell(step)
        await told.settled()
        for step in flag_steps(ledger.document("audit", "flags", "--all")["items"]):
            await told.tell(step)
        await told.settled()
        ledger.run("admin", "archive")
        expected = {"answers": told.answers, "receipts": await told.receipts()}
        await client.close()
        expected |= recorded(ledger)
    await leave_behind(ledger)
    return expected


async def leave_behind(ledger: Ledger) -> None:
    """Publish facts while no intake runs, so that the inbox holds them when the server stops."""
    with ledger.role("archive"):
        port = json.loads((ledger.data_dir / "server" / "address.json").read_text())["port"]
        password = json.loads((ledger.data_dir / "server" / "passwords.json").read_text())["upstream"]
        client = await nats.connect(f"nats://upstream:{password}@127.0.0.1:{port}")
        for left in LEFT_BEHIND:
            await client.request(f"resolution.inbox.{left.token}", left.body, timeout=10)
        await client.close()


def flag_steps(flags: list[Document]) -> list[Ask]:
    """Look at one flag and review it; answer another."""
    by_rule = {flag["rule"]: flag["flag_id"] for flag in flags}
    time = "2025-03-10T11:00:00Z"
    return [
        other("flag", "f-1", time, flag_id=by_rule["R15"], unmasked_by="M-2"),
        other("flag", "f-2", time, flag_id=by_rule["R15"], verdict="coached", reviewed_by="M-2", note="поговорихме"),
        other("flag", "f-3", time, flag_id=by_rule["R14"], employee_id="D-1", text="имаше буря"),
    ]


def recorded(ledger: Ledger) -> Document:
    """Return hashes of the events of this ledger, its checkpoint, and its readings."""
    replay = ledger.run("audit", "replay").encode()
    stored = ledger.run("audit", "replay", "--as-stored").encode()
    return {
        "position": stored.count(b"\n"),
        "replay_sha256": hashlib.sha256(replay).hexdigest(),
        "replay_as_stored_sha256": hashlib.sha256(stored).hexdigest(),
        "checkpoint": ledger.run("audit", "checkpoint"),
        "keys": ledger.run("audit", "checkpoint", "--keys"),
        "readings": {name: lasting(name, ledger.document(*words)) for name, words in READINGS.items()},
    }


def lasting(name: str, reading: Document) -> Document:
    """Return a reading without the fields that depend on the day, and a report also without its sentences.

    Fields that only later versions have are left out, and escalations of other systems, which only later versions list.
    Times have one form, since later versions write more digits. Only later versions know the team of reported actions; they may reword a line of the trail.
    Later versions do not show who answered a flag under a pseudonym, nor the answer.
    """
    if name == "actions":
        items = [one | {"team_id": None} if one["state"] == "charged" else one for one in reading["items"]]
        reading = reading | {"items": items}
    if name == "loyalty":
        parts = [one | {"groups": one["groups"] | {"team": None}} for one in reading["currencies"]]
        reading = reading | {"currencies": parts}
    if name == "trail":
        reading = reading | {"items": [one | {"what": None} for one in reading["items"]]}
    if name == "flags":
        hidden: Document = {"answered_by": None, "answer": None}
        shown = [one | hidden if any(":~" in who for who in one["about"]) else one for one in reading["items"]]
        reading = reading | {"items": shown}
    if name in {"escalations", "waiting"}:
        reading = reading | {"items": [one for one in reading["items"] if not one.get("reported_by")]}
    expected = json.loads(EXPECTED.read_text())["readings"][name] if EXPECTED.exists() else reading
    lasting_fields = {field: one for field, one in reading.items() if field not in CHANGING.get(name, ())}
    kept: Document = json.loads(_WHOLE_SECONDS.sub(r"\1.000000Z", json.dumps(_without_later(lasting_fields, expected))))
    return unworded(kept) if name in REPORTS else kept


def _without_later(value: Any, expected: Any) -> Any:
    """Return a document without the fields that the expected one does not have, at every level."""
    if isinstance(value, dict) and isinstance(expected, dict):
        return {field: _without_later(one, expected[field]) for field, one in value.items() if field in expected}
    if isinstance(value, list) and isinstance(expected, list) and len(value) == len(expected):
        return [_without_later(one, other) for one, other in zip(value, expected, strict=True)]
    return value


def unworded(value: Any) -> Any:
    """Return a report's document without its sentences, which later versions may reword."""
    if isinstance(value, dict):
        return {name: unworded(one) for name, one in value.items() if name not in SENTENCES}
    return [unworded(one) for one in value] if isinstance(value, list) else value


def pack(data_dir: Path, archive: Path) -> None:
    """Write the data directory as a compressed tar, without files of the moment, under neutral owners."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if Path(member.name).name in NOT_KEPT:
            return None
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=9) as tar:
        tar.add(data_dir, "ledger", filter=kept)
    archive.write_bytes(packed.getvalue())


def strangers(data_dir: Path) -> list[str]:
    """Return the files that name a path of this machine; there must be none."""
    words = [str(data_dir).encode(), tempfile.gettempdir().encode() + b"/", str(Path.cwd()).encode(), b"/work/"]
    return [
        str(path)
        for path in data_dir.rglob("*")
        if (path.is_symlink() and path.readlink().is_absolute())
        or (path.is_file() and path.name not in NOT_KEPT and any(word in path.read_bytes() for word in words))
    ]


def main() -> None:
    """Make, record, read a second time after a restart and a rebuild, pack."""
    folder, commit = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else COMMIT
    version = checked_out(commit, instead=(CURRENCIES,))
    with tempfile.TemporaryDirectory() as name:
        ledger = Ledger(version, Path(name) / "golden")
        made = asyncio.run(make(ledger))
        found = strangers(ledger.data_dir)
        assert not found, f"a path of this machine is in {found}"
        folder.mkdir(parents=True, exist_ok=True)
        pack(ledger.data_dir, folder / "ledger.tar.xz")
        ledger.run("admin", "projections", "rebuild")
        again = recorded(ledger)
        assert again == {part: made[part] for part in again}, "the answers are not stable"
    expected = {"commit": commit, "currencies": CURRENCIES, **made}
    (folder / "expected.json").write_text(text_of(expected))


def text_of(expected: Document) -> str:
    """Write a document so that a change shows: each answer, receipt and reading on a line of its own."""
    lines = []
    for name, value in expected.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list):
            text = "[\n  " + ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in value) + "\n ]"
        elif isinstance(value, dict):
            parts = (f"{json.dumps(key)}: {json.dumps(one, ensure_ascii=False)}" for key, one in value.items())
            text = "{\n  " + ",\n  ".join(parts) + "\n }"
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()


def golden_server(data_dir: Path) -> EmbeddedServer:
    """Return the ledger's server; while it runs, commands use it."""
    return EmbeddedServer(data_dir.resolve(), Path(str(resources.files("config") / "nats" / "nats-server.conf")))
