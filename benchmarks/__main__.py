"""Every figure beside its rivals, in one run, at the same durability.

    python -m benchmarks [--quick] [--json] [--only WORD]...

A run takes some minutes (`--quick`: a tenth of the events). Results are stored in `.benchmarks/` as JSON;
`python -m benchmarks.compare` shows them over time. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats

from app.cli.main import GC_THRESHOLDS
from app.runtime.session import Session
from benchmarks import appends, dashboard, decisions, event_flow, limits, reads, reports, seal, time_travel
from benchmarks.contest import ONLY_OURS, ROUNDS, Contest, machine
from benchmarks.context import BenchmarkContext
from benchmarks.rivals import environments, settings_of
from benchmarks.uma import uma_server
from config.settings import load_settings

KEPT = Path(".benchmarks")
PARTS = {
    "append": appends.appends,
    "aggregate": reads.aggregates,
    "replay": reads.replays,
    "live": reads.live,
    "decisions": decisions.decisions,
    "intake": event_flow.intake,
    "balances": event_flow.balances,
    "import": event_flow.imports,
    "seal": seal.seals,
    "travel": time_travel.travels,
    "limits": limits.limits,
    "reports": reports.reports,
    "dashboard": dashboard.dashboards,
}


async def run(only: list[str], scale: float) -> dict[str, Any]:
    """Run the parts; return the document to store."""
    gc.set_threshold(*GC_THRESHOLDS)  # as in every process of ours
    begun, results = time.monotonic(), list[Contest]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # if this user is root, PostgreSQL runs as another user
        settings = load_settings({"data_dir": str(folder / "ledger")}, {})
        async with Session(settings) as session:
            with environments(folder, session) as envs, uma_server(folder) as uma:
                raw = await nats.connect(session.url)
                context = BenchmarkContext(session, raw, envs, uma, folder, scale)
                durability = settings_of(envs, folder)
                for part, work in PARTS.items():
                    if not only or part in only:
                        results += await work(context)
                await raw.close()
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "settings": durability,
        "rounds": ROUNDS,
        "scale": scale,
        "only": only,
        "seconds": round(time.monotonic() - begun),
        "results": [result.document() for result in results],
    }


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> None:
    """Run the benchmarks, store the results, and report missed targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events")
    parser.add_argument("--json", action="store_true", help="the document on standard output")
    parser.add_argument("--only", action="append", default=[], choices=PARTS, help="these parts alone")
    options = parser.parse_args()
    document = asyncio.run(run(options.only, 0.1 if options.quick else 1.0))
    path = KEPT / f"{document['when'].replace(':', '').replace('+0000', 'Z')}.json"
    if ONLY_OURS not in os.environ:
        KEPT.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, indent=1))
    if options.json:
        print(json.dumps(document))
    missed = [result["name"] for result in document["results"] if not result["met"]]
    for name, value in (document["machine"] | document["settings"]).items():
        print(f"{name}: {value}", file=sys.stderr)
    print(f"{document['seconds']} s; kept in {path}", file=sys.stderr)
    if missed:
        print(f"not met: {', '.join(missed)}", file=sys.stderr)
    sys.stdout.flush()
    os._exit(1 if missed else 0)  # some threads of rivals never end


if __name__ == "__main__":
    main()
