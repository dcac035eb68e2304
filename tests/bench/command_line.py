"""How long one waits for the command line: `./scripts/bench cli`.

From the start of the process to the end of `icgpt --help`, and to the first byte of text that
`icgpt generate` shows of the model in the box, on a local network that runs. Each is the median of
some rounds; the network is a process of its own on the same cores.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import page

RESULTS = page.FOLDER / "performance-cli.json"
TOKENS = 200


def seconds(environment: Mapping[str, str], *arguments: str) -> tuple[float, float]:
    """Until the first byte on the terminal, and until the end."""
    master, slave = pty.openpty()
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "icgpt", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    os.close(slave)
    try:
        os.read(master, 1)
        first = time.monotonic() - began
        while os.read(master, 65536):
            pass
    except OSError:
        pass  # how Linux says that the program has closed its side
    finally:
        os.close(master)
    if process.wait() != 0:
        raise RuntimeError(f"icgpt {' '.join(arguments)} failed")
    return first, time.monotonic() - began


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Start a network with the model in the box, measure, end it."""
    environment = {
        **os.environ,
        "ICGPT_STATE_DIR": str(folder / "state"),
        "ICGPT_CONFIG_DIR": str(folder / "config"),
    }
    demo = [sys.executable, "-m", "icgpt", "demo", "--keep", "-n", "1"]
    subprocess.run(demo, env=environment, check=True, capture_output=True)
    try:
        helps = [seconds(environment, "--help")[1] for _ in range(rounds)]
        generate = ["generate", "ROMEO:", "-n", str(TOKENS)]
        seconds(environment, *generate)
        texts = [seconds(environment, *generate) for _ in range(rounds)]
    finally:
        stop = [sys.executable, "-m", "icgpt", "network", "stop"]
        subprocess.run(stop, env=environment, check=False, capture_output=True)
    return {
        "help_seconds": round(median(helps), 3),
        "first_token_seconds": round(median(first for first, _ in texts), 3),
        "first_token_worst_seconds": round(max(first for first, _ in texts), 3),
        f"whole_{TOKENS}_tokens_seconds": round(median(whole for _, whole in texts), 3),
    }


if __name__ == "__main__":
    page.measured(__doc__, "cli", RESULTS, measure)
