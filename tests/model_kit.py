"""What several rooms' tests build on: where things are, tiny models, identities, uploads."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from icgpt import deploy
from icgpt.client import ModelCanister
from icgpt.connect import Network
from icgpt.identity import Identity, load
from icgpt.network import NetworkInfo
from icgpt.project import Project
from icgpt.results import Completion, FileInfo

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"

MakeCanister = Callable[[], ModelCanister]


def new_identity(path: Path) -> Identity:
    """A new Ed25519 key, written to `path`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return load(path)


def target(local: NetworkInfo) -> Network:
    """The network as the client sees it."""
    return Network("local", local.url, local.root_key, local.default_effective_canister_id)


def with_model(canister: ModelCanister, source: str | Path) -> ModelCanister:
    """Uploads a model into a canister."""
    from icgpt.checkpoint import open_checkpoint
    from icgpt.upload import upload

    upload(canister, open_checkpoint(str(source)))
    return canister


def send(canister: ModelCanister, kind: str, data: bytes) -> FileInfo:
    """Uploads a file in one chunk, and sets nothing up."""
    sha256 = hashlib.sha256(data).digest()
    canister.begin(kind, len(data), sha256)
    canister.write(kind, 0, data)
    return canister.commit(kind, sha256)


def tiny_config(**changes: Any) -> dict[str, Any]:
    """A GPT-2 configuration that computes in no time."""
    return {
        "model_type": "gpt2",
        "n_layer": 1,
        "n_head": 2,
        "n_embd": 8,
        "n_positions": 16,
        "vocab_size": 11,
        **changes,
    }


def tiny_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights for a configuration."""
    random = np.random.default_rng(seed)
    n, inner = config["n_embd"], 4 * config["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config["vocab_size"], n),
        "wpe.weight": (config["n_positions"], n),
        "ln_f.weight": (n,),
        "ln_f.bias": (n,),
    }
    for layer in range(config["n_layer"]):
        at = f"h.{layer}."
        shapes |= {
            at + "ln_1.weight": (n,),
            at + "ln_1.bias": (n,),
            at + "attn.c_attn.weight": (n, 3 * n),
            at + "attn.c_attn.bias": (3 * n,),
            at + "attn.c_proj.weight": (n, n),
            at + "attn.c_proj.bias": (n,),
            at + "ln_2.weight": (n,),
            at + "ln_2.bias": (n,),
            at + "mlp.c_fc.weight": (n, inner),
            at + "mlp.c_fc.bias": (inner,),
            at + "mlp.c_proj.weight": (inner, n),
            at + "mlp.c_proj.bias": (n,),
        }
    return {
        name: (random.standard_normal(shape) * 0.5).astype("f4") for name, shape in shapes.items()
    }


def write_model(
    folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray] | None = None
) -> Path:
    """Writes model.safetensors and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors or tiny_tensors(config), folder / "model.safetensors")
    return folder


def upgrade(canister: ModelCanister, wasm: bytes, folder: Path, level: int = 1) -> None:
    """Upgrades a canister to the same code under another hash, which depends on `level` (1 to 8).

    `folder` is a scratch project.
    """
    (folder / "dfx.json").write_text("{}")
    agent = canister.agent
    network = Network("local", agent.url, agent.root_key, None)
    other = gzip.compress(gzip.decompress(wasm), level)
    done = deploy.deploy(agent, network, Project(folder), "model", other, "upgrade", canister.id)
    assert done.action == "upgrade"


def ended(canister: ModelCanister, job: bytes) -> Completion:
    """Waits for the end of a job."""
    while (progress := canister.poll(job)).finish is None:
        time.sleep(0.02)
    return progress


def kill(info: NetworkInfo) -> None:
    """Kills a network as a power cut does, and waits until it has gone."""
    os.kill(info.pid, signal.SIGKILL)
    while not _gone(info.pid):
        time.sleep(0.01)


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return (Path("/proc") / str(pid) / "stat").read_text().split(")")[-1].split()[0] == "Z"
