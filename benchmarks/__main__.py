"""Every figure beside its rivals, in one run, at the same durability.

    python -m benchmarks [--quick] [--json] [--only WORD]...

A run takes some minutes (`--quick`: a tenth of the events). Results are kept in `.benchmarks/` as JSON;
`python -m benchmarks.compare` shows them over time. Exit 1 where a need is not met.
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
from benchmarks import appending, dashboard, deciding, flowing, limits, reading, sealing, travelling, worth
from benchmarks.contest import ONLY_OURS, ROUNDS, Contest, machine
from benchmarks.rivals import environments, settings_of
from benchmarks.setting import Setting
from config.settings import load_settings

KEPT = Path(".benchmarks")
PARTS = {
    "append": appending.appends,
    "aggregate": reading.aggregates,
    "replay": reading.replays,
    "live": reading.live,
    "decisions": deciding.decisions,
    "intake": flowing.intake,
    "balances": flowing.balances,
    "import": flowing.imports,
    "seal": sealing.seals,
    "travel": travelling.travels,
    "limits": limits.limits,
    "reports": worth.reports,
    "dashboard": dashboard.dashboards,
}


async def run(only: list[str], scale: float) -> dict[str, Any]:
    """The document that is kept."""
    gc.set_threshold(*GC_THRESHOLDS)  # as in every process of ours
    begun, results = time.monotonic(), list[Contest]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as a user of its own where this one is root
        settings = load_settings({"data_dir": str(folder / "ledger")}, {})
        async with Session(settings) as session:
            with environments(folder, session) as envs:
                raw = await nats.connect(session.url)
                setting = Setting(session, raw, envs, folder, scale)
                durability = settings_of(envs, folder)
                for part, work in PARTS.items():
                    if not only or part in only:
                        results += await work(setting)
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
    """Run, keep, say what was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events")
    parser.add_argument("--json", action="store_true", help="the document on standard output")
    parser.add_argument("--only", action="append", default=[], choices=PARTS, help="these parts alone")
    given = parser.parse_args()
    document = asyncio.run(run(given.only, 0.1 if given.quick else 1.0))
    path = KEPT / f"{document['when'].replace(':', '').replace('+0000', 'Z')}.json"
    if ONLY_OURS not in os.environ:
        KEPT.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, indent=1))
    if given.json:
        print(json.dumps(document))
    missed = [result["name"] for result in document["results"] if not result["met"]]
    for name, value in (document["machine"] | document["settings"]).items():
        print(f"{name}: {value}", file=sys.stderr)
    print(f"{document['seconds']} s; kept in {path}", file=sys.stderr)
    if missed:
        print(f"not met: {', '.join(missed)}", file=sys.stderr)
    sys.stdout.flush()
    os._exit(1 if missed else 0)  # rivals' threads do not all end by themselves


if __name__ == "__main__":
    main()
