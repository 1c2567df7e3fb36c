"""The seal as evidence: a check never creates it, and its loss or damage is a finding."""

import asyncio
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.health.checks import checks_of
from app.runtime.seal import begin_anew, seal_to_the_end, verification
from app.runtime.session import Session
from consumers.seal.service import SealService
from ledger.store.log import Recorded
from ledger.transparency import alarm
from ledger.transparency.event_differences import SealFinding
from ledger.transparency.seal_record import SealRecord
from ledger.transparency.sealer import SealError, SealFolder, seal_folder
from ledger.transparency.signed_notes import NoteError, Signer, make_checkpoint, sign_note
from ledger.transparency.verification import Verification
from tests.support import forked_cli
from tests.support.builders import event, gbp
from tests.support.documents import Document
from tests.support.environment import LONG, ROOT, clean_environment
from tests.support.forked_cli import CommandLine
from tests.support.sealed_logs import (
    SEALED_EVENTS,
    all_events,
    append_events,
    findings_of_verification,
    rewrite_history,
    settings_in,
)
from tests.support.upstreams import upstream_of


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a sealed ledger with a rotated key and a cosigned checkpoint, for copying."""
    data = tmp_path_factory.mktemp("evidence") / "data"

    async def made() -> None:
        async with Session(settings_in(data)) as session:
            await append_events(session)
            await seal_to_the_end(session)
            folder = seal_folder(data)
            folder.rotate()
            await append_events(session, 20, SEALED_EVENTS)
            await seal_to_the_end(session)
            newest = folder.checkpoint()
            assert newest is not None
            witness = Signer.make("witness.example")
            folder.add_cosignatures(
                make_checkpoint(newest.origin, newest.size, newest.root, [folder.signer(), witness])
            )

    asyncio.run(made())
    return data


@pytest.fixture
async def session(pattern: Path, tmp_path: Path) -> Any:
    """Open a copy of the sealed ledger."""
    shutil.copytree(pattern, tmp_path / "data", ignore=shutil.ignore_patterns("*.lock", "server"))
    shutil.copytree(pattern / "server", tmp_path / "data" / "server", ignore=shutil.ignore_patterns("*.lock", "nats*"))
    async with Session(settings_in(tmp_path / "data")) as opened:
        yield opened


def edit(events: list[Recorded]) -> None:
    events[299] = events[299]._replace(data=events[299].data.replace(b'"n": 299', b'"n": 999'))


async def test_a_check_finds_the_evidence_gone_and_makes_none(session: Session) -> None:
    assert await findings_of_verification(session) == []
    shutil.rmtree(session.data_dir / "seal")
    await rewrite_history(session, edit)
    kinds = {kind for kind, _, _ in await findings_of_verification(session)}
    assert "evidence missing" in kinds
    assert not (session.data_dir / "seal").exists()
    found = {check.check: check for check in await checks_of(session)}
    assert not found["seal"].ok
    assert "begin-anew" in found["seal"].says
    assert not (session.data_dir / "seal").exists()


@pytest.mark.integration
async def test_the_servers_record_shows_an_edited_log_where_the_seal_is_gone(tmp_path: Path) -> None:
    async with Session(settings_in(tmp_path / "data")) as session:
        await append_events(session)
        await seal_to_the_end(session)
        shutil.rmtree(session.data_dir / "seal")
        assert [kind for kind, _, _ in await findings_of_verification(session)] == ["evidence missing"]
        await rewrite_history(session, edit)
        assert [kind for kind, _, _ in await findings_of_verification(session)] == [
            "evidence missing",
            "history forked",
        ]


def test_the_command_names_the_missing_evidence_and_its_remedy(command: CommandLine, tmp_path: Path) -> None:
    fact = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "crm",
        "type": "resolution.interaction.opened.v1",
        "time": "2026-01-05T10:00:00Z",
        "data": {"interaction_id": "I-1"},
    }
    assert command("publish", "-", stdin=json.dumps(fact)).returncode == 0  # seals what it has recorded
    assert command("audit", "verify").returncode == 0
    shutil.rmtree(tmp_path / "data" / "seal")
    done = command("audit", "verify", "--json")
    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["kind"] == "evidence missing"
    assert "--checkpoint FILE" in finding["text"]
    assert not (tmp_path / "data" / "seal").exists()
    assert "are not sealed" in command("publish", "-", stdin=json.dumps(fact | {"id": "e-2"})).stderr
    assert not (tmp_path / "data" / "seal").exists()
    for words in (("prove", "1"), ("checkpoint",), ("verify",)):
        done = command("audit", *words)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "data" / "seal").exists()
    assert command("admin", "seal", "begin-anew", "--reason", " ").returncode == 2
    again = json.loads(command("admin", "seal", "begin-anew", "--reason", "the disk died", "--json").stdout)
    assert again["verifier_key"] in (tmp_path / "data" / "seal" / "verifiers").read_text()
    assert command("audit", "verify").returncode == 0
    status = json.loads(command("admin", "seal", "status", "--json").stdout)
    assert [one.get("reason") for one in status["begun"]] == [None, "the disk died"]
    assert status["verifier_keys"] == [again["verifier_key"]]


@pytest.mark.parametrize("lost", ["seal", "seal/checkpoint", "seal/key"])
async def test_a_role_that_finds_no_seal_beside_a_sealed_log_sets_off_the_alarm(session: Session, lost: str) -> None:
    path = session.data_dir / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = sorted((session.data_dir / "seal").rglob("*"))
    service = SealService(session.url, session.client, session.log, session.data_dir)
    await service.start()
    try:
        with pytest.raises((SealError, NoteError), match="seal"):
            await asyncio.wait_for(asyncio.shield(service.failed), 20)
    finally:
        await service.stop()
    assert await alarm.read_alarm(session.client) is not None
    assert sorted((session.data_dir / "seal").rglob("*")) == before
    assert not next(check for check in await checks_of(session) if check.check == "seal").ok


async def test_another_seal_is_begun_only_by_an_explicit_act_that_is_kept(session: Session) -> None:
    folder = seal_folder(session.data_dir)
    old, verifiers = folder.checkpoint(), folder.verifiers()
    assert old is not None
    (folder.folder / "key").unlink()
    verifier, moved = await begin_anew(session, "the key was lost")
    assert moved is not None
    assert (moved / "checkpoint").read_text() == old.note
    assert folder.verifiers() == [verifier]
    assert await findings_of_verification(session) == []
    assert {kind for kind, _, _ in await findings_of_verification(session, [old], verifiers)} >= {"key replaced"}
    kept = await (await SealRecord.open(session.client)).read()
    assert [one.reason for one in kept.begun] == [None, "the key was lost"]
    with pytest.raises(NoteError, match="holds a seal already"):
        folder.begin()


async def test_a_restored_older_seal_continues_on_an_unchanged_log(session: Session) -> None:
    folder = seal_folder(session.data_dir)
    shutil.copytree(folder.folder, session.data_dir / "backup")
    await append_events(session, 300, SEALED_EVENTS + 20)
    await seal_to_the_end(session)

    def bring_back() -> None:
        shutil.rmtree(folder.folder)
        shutil.copytree(session.data_dir / "backup", folder.folder)

    bring_back()
    assert {kind for kind, _, _ in await findings_of_verification(session)} == {"history shortened"}
    await seal_to_the_end(session)
    assert await findings_of_verification(session) == []
    bring_back()

    def edit_the_end(events: list[Recorded]) -> None:
        events[-1] = events[-1]._replace(data=b'{"n": "edited"}')

    await rewrite_history(session, edit_the_end)
    with pytest.raises(SealError, match="differs from the server's recorded checkpoint"):
        await seal_to_the_end(session)


async def test_a_checkpoint_kept_elsewhere_is_enough_to_find_an_edited_log(session: Session) -> None:
    folder = seal_folder(session.data_dir)
    kept, keys = folder.checkpoint(), folder.trusted()
    assert kept is not None
    shutil.rmtree(folder.folder)
    assert [kind for kind, _, _ in await findings_of_verification(session, [kept], keys)] == [
        "checkpoint missing",
        "evidence missing",
    ]
    await rewrite_history(session, edit)
    assert "history forked" in [kind for kind, _, _ in await findings_of_verification(session, [kept], keys)]


# ---------------------------------------------------------------------- going on later


async def resumed(session: Session) -> list[str]:
    result = await verification(session, (), (), resume=True, progressed=lambda _done, _of: None)
    return [one["kind"] for one in result["findings"]]


async def test_a_state_that_was_not_signed_makes_a_check_skip_nothing(session: Session) -> None:
    from ledger.store.streams import js_api

    folder, state = seal_folder(session.data_dir), session.data_dir / "verify.json"
    true = Verification(folder, (), ())
    true.take((await all_events(session))[:512])
    await rewrite_history(session, edit)
    log_id = str((await js_api(session.client, "STREAM.INFO.LEDGER"))["created"])
    body: Document = {"log": log_id, "size": 512, "edge": [one.hex() for one in true._edge.hashes], "gaps": []}
    text = f"resolution-ledger verification state v1\n{json.dumps(body)}\n"
    forged = {
        "as it was written before": json.dumps(body | {"roots": {}, "sizes": []}),
        "signed by anybody": sign_note(text, Signer.make(folder.signer().name)),
        "not signed": text,
        "garbage": "\x00\xff" * 10,
        "other shape": sign_note('resolution-ledger verification state v1\n{"size": "x"}\n', folder.signer()),
        "of another stream": sign_note(text.replace(log_id, "then"), folder.signer()),
        "another tree": sign_note(text.replace(body["edge"][0][:8], "00000000"), folder.signer()),
    }
    for name, content in forged.items():
        state.write_text(content)
        assert await resumed(session) == ["edited"], name
    state.mkdir()
    assert await resumed(session) == ["edited"]
    state.rmdir()
    work = Verification(folder, (), ())
    state.write_text(sign_note(text, folder.signer()))
    work.load(state, log_id)
    assert work.position == 512  # signed: it is believed, and a few positions are looked at again


# ---------------------------------------------------------------------- damage


def damages(path: Path, dice: random.Random) -> Iterator[tuple[str, Callable[[], None]]]:
    """Return the damages that can be done to a file of the seal, by name."""
    content = path.read_bytes()
    ours = content.find(b"\n\xe2\x80\x94 witness")  # whose signature we cannot check
    ours = ours if ours > 0 else len(content) - 1  # without the line break at the end

    def put(data: bytes) -> Callable[[], None]:
        def done() -> None:
            path.write_bytes(data)

        return done

    def instead(make: Callable[[], object]) -> Callable[[], None]:
        def done() -> None:
            path.unlink()
            make()

        return done

    yield "deleted", path.unlink
    yield "empty", put(b"")
    yield "cut", put(content[: dice.randrange(1, ours)])
    at = dice.randrange(ours)
    yield f"bit {at}", put(content[:at] + bytes([content[at] ^ 1 << dice.randrange(7)]) + content[at + 1 :])
    yield "longer", put(content + content[-40:])
    yield "garbage", put(dice.randbytes(200))
    yield "json", put(b'{"size": 1, "root": null}')
    yield "folder", instead(path.mkdir)
    yield "loop", instead(lambda: path.symlink_to(path.name))
    yield "pipe", instead(lambda: os.mkfifo(path))
    yield "huge", instead(lambda: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 33))
    yield "foreign", put(make_checkpoint("other", 10**18, b"\1" * 32, [Signer.make("other")]).note.encode())


def files_of(folder: Path, dice: random.Random) -> list[Path]:
    tiles = sorted(path for path in (folder / "tile").rglob("*") if path.is_file())
    rest = sorted(path for path in folder.rglob("*") if path.is_file() and "tile" not in path.parts)
    partial = [path for path in tiles if path.parent.name.endswith(".p")]
    return [*rest, *partial, *dice.sample([path for path in tiles if path not in partial], 2)]


SHARE = 1 if LONG else 5
"""One in so many damages is done to each file; a run draws which, so that in time all are done."""


async def test_every_damage_of_the_seal_ends_in_a_finding(session: Session) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - to be shown where the test fails
    dice = random.Random(seed)
    folder = session.data_dir / "seal"
    shutil.copytree(folder, session.data_dir / "whole")
    tried, missed = set[tuple[str, str]](), set[tuple[str, str]]()
    begin = dice.randrange(SHARE)
    for number, path in enumerate(files_of(folder, dice)):
        names = [name for name, _ in damages(path, random.Random(0))]
        for place in range((begin + number) % SHARE, len(names), SHARE):
            name, damage = list(damages(path, dice))[place]
            tried.add((str(path.relative_to(folder)), name))
            damage()
            found = await findings_of_verification(session)
            if not found:
                missed.add((str(path.relative_to(folder)), name))
            for check in await checks_of(session):
                assert check.says
            shutil.rmtree(folder)
            shutil.copytree(session.data_dir / "whole", folder)
    assert len(tried) > 20
    assert missed == tried & {("cosigned/720", "deleted")}, f"seed {seed}"  # nobody is owed the signatures of others
    assert await findings_of_verification(session) == []


@pytest.mark.parametrize("instead", ["file", "empty folder", "loop", "other ledger's"])
async def test_something_else_in_the_place_of_the_seal_is_a_finding(
    session: Session, instead: str, tmp_path: Path
) -> None:
    folder = session.data_dir / "seal"
    shutil.move(folder, tmp_path / "whole")
    match instead:
        case "file":
            folder.write_text("no folder")
        case "empty folder":
            folder.mkdir()
        case "loop":
            folder.symlink_to("seal")
        case _:
            other = SealFolder(folder)
            other.begin()
    assert "evidence missing" in [kind for kind, _, _ in await findings_of_verification(session)]
    with pytest.raises((SealError, OSError, NoteError)):
        await seal_to_the_end(session)
    assert not next(check for check in await checks_of(session) if check.check == "seal").ok


def test_a_finding_reads_like_its_fields() -> None:
    assert SealFinding("edited", 1, 2, "x").wire() == {"kind": "edited", "first": 1, "last": 2, "text": "x"}


async def test_verify_beside_a_live_seal_finds_nothing(session: Session) -> None:
    """Tiles are written before the checkpoint that covers them is signed."""
    async with upstream_of(session, "intake", "seal", "archive") as upstream:
        stopping = False

        async def publish() -> None:
            number = 0
            while not stopping:
                number += 1
                await upstream.publish(event(f"live-{number}", "purchase.completed", order_id="O-1", total=gbp("1.00")))

        tasks = [asyncio.create_task(publish())]
        try:
            words = ["audit", "verify", "--data-dir", str(session.data_dir)]
            for _ in range(6):
                done = await asyncio.to_thread(forked_cli.run, words, ROOT, clean_environment(), None, 60)
                assert done.returncode == 0, done.stdout + done.stderr
        finally:
            stopping = True
            await asyncio.gather(*tasks)
