"""The demo: the same seed gives the same events, on a machine of any speed."""

import json

from tests.support.forked_cli import CommandLine, json_of


def test_no_escalation_of_the_demo_is_older_than_a_decision_before_it(command: CommandLine) -> None:
    """In history mode the latest request is the clock.

    An escalation with an earlier time could be overdue at once. Whether the decider's timer or the manager came first
    then depended on the machine's speed, and with it the number of events.
    """
    json_of(command("demo", "--no-serve", "--days", "3", "--json"))
    clock, escalations = "", 0
    for line in command("audit", "replay").stdout.splitlines():
        event = json.loads(line)
        if event["type"].startswith("resolution.escalation."):
            escalations += 1
            assert event["time"] >= clock, event
        if event["source"] == "resolution-ledger" and event["data"].get("request_id"):
            clock = max(clock, event["time"])
    assert escalations > 10
