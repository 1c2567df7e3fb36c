"""NATS's official Node client and the CloudEvents SDK of Node, as an upstream has them."""

from node_project import run_node
from support import POLICY, Up


async def test_node_publishes_in_every_mode_and_gets_its_decision(up: Up) -> None:
    connection = up.ready()
    said = await run_node(
        "upstream.mjs", {"connection": connection, "source": "shop", "policy": POLICY, "batches": False}
    )
    assert [ack["duplicate"] for ack in said["acks"]] == [False] * 2
    assert {one["status"] for one in said["receipts"].values()} == {"recorded"}, said["receipts"]
    assert said["published"]["outcome"] == "done"
    assert (said["taken"]["outcome"], said["taken"]["budget"]["remaining"]["amount"]) == ("taken", "195.00")
    assert said["again"] == said["taken"]
    assert said["misspelt"]["error"]["code"] == "unknown_field"
