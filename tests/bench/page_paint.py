"""How long a visitor waits for the page: `./scripts/bench page`.

From the click on a link to the deployed page until Chromium has painted anything, has painted text,
and lets the visitor ask; in a new browser profile each time, so that nothing is there already. The
medians are taken as things are, and once more as on a telephone: a processor four times as slow,
and a line with 1.6 Mbit a second and 150 ms (what Lighthouse calls slow 4G).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import page
from browser_kit import browser

RESULTS = page.FOLDER / "performance-page.json"
LINE = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1.6e6 / 8,
    "uploadThroughput": 0.75e6 / 8,
}
PAINTED = """() => Object.fromEntries(
    performance.getEntriesByType("paint").map((one) => [one.name, one.startTime]))"""
BYTES = """() => performance.getEntries().reduce((sum, one) => sum + (one.transferSize ?? 0), 0)"""
READY = "button:enabled:text-is('Write')"


def visit(chromium: Any, url: str, slow: bool) -> dict[str, float]:
    """One visit's milliseconds, and the bytes that came."""
    context = chromium.new_context()
    try:
        opened = context.new_page()
        if slow:
            session = context.new_cdp_session(opened)
            session.send("Network.enable")
            session.send("Network.emulateNetworkConditions", LINE)
            session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
        opened.goto(f"{url}#prompt=ROMEO%3A", wait_until="commit")
        opened.wait_for_selector(READY)
        ready = opened.evaluate("performance.now()")
        painted = opened.evaluate(PAINTED)
        return {
            "first_paint": painted["first-paint"],
            "first_text": painted["first-contentful-paint"],
            "can_ask": ready,
            "bytes": opened.evaluate(BYTES),
        }
    finally:
        context.close()


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Deploy the page for the model in the box, visit it, end the network."""
    environment = {
        **os.environ,
        "ICGPT_STATE_DIR": str(folder / "state"),
        "ICGPT_CONFIG_DIR": str(folder / "config"),
    }

    def icgpt(*arguments: str) -> str:
        command = [sys.executable, "-m", "icgpt", *arguments]
        done = subprocess.run(
            command, env=environment, cwd=folder, check=True, capture_output=True, text=True
        )
        return done.stdout

    (folder / "dfx.json").write_text("{}")
    icgpt("network", "start")
    try:
        url = json.loads(icgpt("deploy", "--json"))["page"]["url"]
        icgpt("upload", "model", "shakespeare-char")
        with browser() as chromium:
            visit(chromium, url, slow=False)  # after which the canister is loaded
            near = [visit(chromium, url, slow=False) for _ in range(rounds)]
            far = [visit(chromium, url, slow=True) for _ in range(rounds)]
    finally:
        icgpt("network", "stop")
    return {
        **medians(near, ""),
        **medians(far, "_telephone"),
        "kilobytes": round(median(one["bytes"] for one in near) / 1000),
    }


def medians(visits: list[dict[str, float]], suffix: str) -> dict[str, int]:
    """Of each figure in milliseconds."""
    names = ("first_paint", "first_text", "can_ask")
    return {f"{name}{suffix}_ms": round(median(one[name] for one in visits)) for name in names}


if __name__ == "__main__":
    page.measured(__doc__, "page", RESULTS, measure)
