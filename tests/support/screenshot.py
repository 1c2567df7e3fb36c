"""The program behind `make picture`: it writes docs/page.png, the page with the demo's data. Needs a Chromium."""

import sys
import tempfile
import time
from pathlib import Path

import httpx
from playwright.sync_api import sync_playwright

from app.demo.run import run_demo
from config.settings import load_settings
from tests.support.browser import CHROMIUM, CHROMIUM_FLAGS
from tests.support.environment import ROOT
from tests.support.up_process import UpProcess

PICTURE = ROOT / "docs" / "page.png"


def current(client: httpx.Client) -> bool:
    """Return whether every view is at the end of the log."""
    try:
        found = client.get("/api/v1/projections").json()
    except httpx.HTTPError:
        return False
    return "items" in found and all(one["position"] == found["position"] for one in found["items"])


def take(data_dir: Path) -> None:
    """Run `up` on this data directory, and take the picture of its page."""
    up = UpProcess(data_dir, "--port", "0")
    try:
        where = up.wait_until_up()
        headers = {"Authorization": f"Bearer {where['http_token']}"}
        with httpx.Client(base_url=where["http_url"], headers=headers, timeout=30) as client:
            while not current(client):
                time.sleep(0.5)
        with sync_playwright() as player:
            browser = player.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
            page = browser.new_page(viewport={"width": 1200, "height": 1000}, locale="en-GB", color_scheme="light")
            page.goto(where["http_url"])
            page.fill("#token", where["http_token"])
            page.keyboard.press("Enter")
            page.wait_for_selector("figure svg a", timeout=120_000)
            page.screenshot(path=PICTURE)
            browser.close()
    finally:
        up.stop()


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("no chromium here: `apt-get install chromium`")
    import asyncio

    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings({"data_dir": folder}, {})
        asyncio.run(run_demo(settings, seed=8, days=90, quiet=False))
        take(Path(folder))
    sys.stdout.write(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1024} KiB\n")
