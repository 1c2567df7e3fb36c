"""NATS's official Node client and the CloudEvents SDK of Node, as an upstream has them."""

import json
import subprocess
from collections.abc import Callable

from consumers.asyncapi import asyncapi_document
from tests.support.node_project import run_node
from tests.support.organisations import BASIC_POLICY
from tests.support.up_process import UpProcess


async def test_node_publishes_in_every_mode_and_gets_its_decision(
    up: UpProcess, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    up.wait_until_up()
    policy = up.data_dir.parent / "policy.json"
    policy.write_text(json.dumps(BASIC_POLICY))
    for words in (
        ("decide", "policy", str(policy), "--published-by", "owner"),
        ("admin", "sources", "add", "shop", "--profile", "desk+people"),
    ):
        done = command(*words)
        assert done.returncode == 0, done.stderr
    connection = json.loads((up.data_dir / "sources" / "shop.json").read_text())
    said = await run_node("upstream.mjs", {"connection": connection, "source": "shop", "batches": False})
    assert [ack["duplicate"] for ack in said["acks"]] == [False] * 3
    assert {one["status"] for one in said["receipts"].values()} == {"recorded"}, said["receipts"]
    assert len(said["receipts"]) == 4
    assert [one["id"] for one in said["place"]["items"]] == ["batch-1", "batch-2"], said["place"]
    assert (said["taken"]["outcome"], said["taken"]["budget"]["remaining"]["amount"]) == ("taken", "195.00")
    assert said["again"] == said["taken"]
    assert said["misspelt"]["error"]["code"] == "unknown_field"
    answers = [("ActionAnswer", said[name]) for name in ("taken", "misspelt")]
    answers += [("EventOutcome", one) for one in (said["place"], *said["receipts"].values())]
    judged = await run_node("schemas.mjs", {"text": json.dumps(asyncapi_document()), "samples": answers})
    assert [dialect["verdicts"] for dialect in judged["found"]] == 2 * [[None] * len(answers)]
