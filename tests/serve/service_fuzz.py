"""Requests of all kinds, made by schemathesis from a service's own document: none may fail, and
every answer must be as the document says.

The service writes with the model in the box, few tokens an answer. Its own figures say how many
requests came, and how they were answered.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from serve_kit import Served, served

from icgpt.checkpoint import open_checkpoint
from icgpt.serve.local import LocalBackend
from icgpt.serve.settings import Settings

KEY = "secret"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def answered(service: Served) -> Counter[str]:
    """How many requests were answered with each status."""
    found: Counter[str] = Counter()
    for metric in service.desk.figures.requests.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                found[sample.labels["status"]] += int(sample.value)
    return found


def run(requests: int, seed: int, examples: int) -> dict[str, int]:
    """Sends at least so many requests; how many were answered with each status."""
    settings = Settings(api_keys=(KEY,), max_tokens=3)
    backend = LocalBackend(open_checkpoint("shakespeare-char"))
    with served(backend, settings) as service, tempfile.TemporaryDirectory() as folder:
        while answered(service).total() < requests:
            done = _schemathesis(service.url, seed, examples, Path(folder))
            if done.returncode:
                raise SystemExit(f"seed {seed}\n{done.stdout}{done.stderr}")
            print(f"seed {seed}: {dict(answered(service))}", file=sys.stderr)
            seed += 1
        return dict(answered(service))


def _schemathesis(
    url: str, seed: int, examples: int, folder: Path
) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("schemathesis")
    command = [
        *(str(program), "run", f"{url}/openapi.json", "--header", f"x-api-key: {KEY}"),
        *("--checks", ",".join(CHECKS), "--max-examples", str(examples)),
        *("--seed", str(seed), "--generation-database", "none", "--phases", "examples,fuzzing"),
        *("--request-timeout", "60", "--suppress-health-check", "all", "--no-color"),
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def main() -> None:
    """As many as are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requests", type=int)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--examples", type=int, default=200, help="for each route and round")
    options = parser.parse_args()
    print(json.dumps(run(options.requests, options.seed, options.examples), indent=2))


if __name__ == "__main__":
    main()
