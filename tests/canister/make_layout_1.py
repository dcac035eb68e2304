"""Makes layout-1.gz: the stable memory of a canister from before weights were packed (layout 1).

    PYTHONPATH=.:tests:tests/bench python tests/canister/make_layout_1.py MODULE

MODULE is the canister as it was then (canister/build/model.wasm.gz of commit edb7f68). The model is
`tiny_tensors(tiny_config())`, with a tokenizer, an upload under way, a user and public mode on.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
from pathlib import Path

from lone_canister import LoneCanister
from model_kit import tiny_config, write_model

HERE = Path(__file__).resolve().parent
TOKENIZER = {
    "version": "1.0",
    "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate("abcdefghijk")}, "merges": []},
    "decoder": {"type": "Fuse"},
}


def main(module: str) -> None:
    """Fill a canister and write its stable memory down."""
    with tempfile.TemporaryDirectory() as folder:
        canister = LoneCanister(Path(folder) / "canister", Path(module).read_bytes())
        canister.load(write_model(Path(folder) / "model", tiny_config()))
        canister.update("append_tokenizer_bytes", json.dumps(TOKENIZER).encode())
        for method in ("store_tokenizer_bytes_to_stable", "setup_tokenizer"):
            canister.update(method)
        canister.update("append_safetensors_bytes", b"half an upload")
        canister.update("set_public_mode", True)
        canister.update("add_user", b"\x04")
        stable = canister._canister._stable
        data = os.pread(stable.fd, stable.size, 0)
        (HERE / "layout-1.gz").write_bytes(gzip.compress(data, 9, mtime=0))
        print(json.dumps(canister.update("logits", [1, 2, 3])[0]))
        canister.close()


if __name__ == "__main__":
    main(sys.argv[1])
