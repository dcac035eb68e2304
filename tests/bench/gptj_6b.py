"""GPT-J-6B's shape, run from stable memory: instructions, page charges and messages of a token.

    ./scripts/bench gptj-6b             # some minutes, 10 GB of memory and 10 GB of disk
    ./scripts/bench gptj-6b --json

Its 6 GB of int8 weights are random: the count depends on their number alone. A checkpoint of 12 GB
would take long to make and to upload, so a small GPT-J is uploaded and set up, and then replaced in
stable memory by packed weights of the large shape, written here section by section. An upgrade
loads them as after any set-up. The header written here must be the canister's own to the byte; that
is checked with the small model's first, and by the canister with the large one's.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import page
from lone_canister import LoneCanister, Spent
from safetensors.numpy import save_file
from stable_regions import Regions

from icgpt.checkpoint.config import expected_shapes, parse_config
from icgpt.interface import OPTION_TYPES

ROOT = Path(__file__).resolve().parent.parent.parent
WASM = ROOT / "canister" / "build" / "model.wasm.gz"
RESULTS = page.FOLDER / "performance-gptj-6b.json"

SHAPE: dict[str, Any] = {
    "model_type": "gptj",
    "n_layer": 28,
    "n_head": 16,
    "n_embd": 4096,
    "n_positions": 2048,
    "rotary_dim": 64,
    "vocab_size": 50400,
    "tie_word_embeddings": False,
    "icgpt": {"precision": "int8"},
}
SMALL = {**SHAPE, "n_layer": 2, "n_head": 2, "n_embd": 16, "rotary_dim": 4, "vocab_size": 40}
TOKENS = 4  # over which the cost of one is averaged
PROMPT = 32

MOST_IN_HEAP = 7 << 29  # what the canister allows at most

META, CONFIG, PACKED = 0, (5, 6), (9, 10)  # regions
MAGIC = b"\x89icgptW\n"
PIECE = 16 << 20
# Outputs of about 1 from inputs of about 1, whatever the width.
SPREAD = 74.0


def padded(size: int) -> int:
    """What the engine pads vectors to."""
    return -(-size // 8) * 8


def sections(shape: dict[str, Any]) -> Iterator[tuple[str, int, float]]:
    """The arrays of a packed file in its order: element, bytes, and the value of its floats."""
    n, vocab = shape["n_embd"], shape["vocab_size"]

    def vector(size: int, value: float) -> tuple[str, int, float]:
        return "float", 4 * padded(size), value

    def matrix(n_in: int, n_out: int) -> Iterator[tuple[str, int, float]]:
        yield "int8", padded(n_in) * padded(n_out), 0.0
        yield vector(n_out, 1 / (SPREAD * n_in**0.5))

    yield from matrix(n, vocab)
    for _ in range(shape["n_layer"]):
        yield from (vector(n, 1.0), vector(n, 0.0))
        yield from matrix(n, 3 * n)
        yield from matrix(n, n)
        yield from (*matrix(n, 4 * n), vector(4 * n, 0.01))
        yield from (*matrix(4 * n, n), vector(n, 0.01))
    yield from (vector(n, 1.0), vector(n, 0.0))
    yield from (*matrix(n, vocab), vector(vocab, 0.0))


def parameters(shape: dict[str, Any]) -> int:
    """Weights of a model, as a checkpoint counts them."""
    sizes = expected_shapes(parse_config(json.dumps(shape).encode())).values()
    head = shape["vocab_size"] * (shape["n_embd"] + 1)
    return sum(int(np.prod(size)) for size in sizes) + head


def header(shape: dict[str, Any]) -> tuple[bytes, int]:
    """The header of the packed file and the file's length."""
    fields = [1, shape["rotary_dim"]]
    fields += [shape[key] for key in ("n_layer", "n_head", "n_embd", "n_positions")]
    # n_inner, vocab_size, gelu_new, untied, scaled attention, not by layer.
    fields += [4 * shape["n_embd"], shape["vocab_size"], 0, 0, 1, 0]
    places, all_sections = [], list(sections(shape))
    start = 40 + 4 * (len(fields) + 1)
    size = -(-(start + 16 * len(all_sections)) // 64) * 64
    end = size
    for _, length, _ in all_sections:
        begin = -(-end // 64) * 64
        end = begin + length
        places.append((begin, length))
    head = MAGIC + struct.pack("<IIQQII", 1, 8, end, parameters(shape), size, len(places))
    head += struct.pack(f"<{len(fields)}If", *fields, 1e-5)
    head += b"".join(struct.pack("<QQ", *place) for place in places)
    return head.ljust(size, b"\0"), end


def arrays(shape: dict[str, Any]) -> Iterator[tuple[int, bytes]]:
    """Offsets and bytes of all arrays, in pieces."""
    random = np.random.PCG64(6)
    end = len(header(shape)[0])
    for element, length, value in sections(shape):
        begin = -(-end // 64) * 64
        end = begin + length
        if element == "float":
            yield begin, np.full(length // 4, value, "<f4").tobytes()
            continue
        for at in range(0, length, PIECE):
            size = min(PIECE, length - at)
            yield begin + at, random.random_raw(-(-size // 8)).tobytes()[:size]


def small_model(folder: Path, length: int) -> Path:
    """A GPT-J whose config.json has so many bytes."""
    config = parse_config(json.dumps(SMALL).encode())
    random = np.random.default_rng(6)
    shapes = expected_shapes(config)
    shapes |= {"lm_head.weight": (config.vocab_size, config.n_embd)}
    shapes |= {"lm_head.bias": (config.vocab_size,)}
    tensors = {name: random.normal(0, 0.1, size).astype("f4") for name, size in shapes.items()}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SMALL).ljust(length))
    return folder


def find(regions: Regions, candidates: tuple[int, ...], data: bytes) -> int:
    """The region that begins with these bytes."""
    found = [one for one in candidates if regions.read(one, 0, len(data)) == data]
    if len(found) != 1:
        raise SystemExit(f"stable memory is laid out in another way: found in {found}")
    return found[0]


def replace(
    canister: LoneCanister, small: Path, shape: dict[str, Any], *, zeros: bool = False
) -> None:
    """Put a model of that shape where the small one is; random weights, unless zeros will do."""
    regions = Regions(canister.stable)
    (head, length), (small_head, small_length) = header(shape), header(SMALL)
    packed = find(regions, PACKED, small_head)
    config = find(regions, CONFIG, (small / "config.json").read_bytes())
    # The record that knows the length: the first cell, 8 bytes and then what it holds.
    size = struct.unpack("<4xI", regions.read(META, 0, 8))[0]
    record = regions.read(META, 8, size)
    if record.count(struct.pack("<Q", small_length)) != 1:
        raise SystemExit("the packed weights' length is not where it is looked for")
    record = record.replace(struct.pack("<Q", small_length), struct.pack("<Q", length))
    regions.write(META, 8, record)
    regions.write(config, 0, json.dumps(shape).encode())
    regions.grow(packed, length)
    regions.write(packed, 0, head)
    for offset, data in () if zeros else arrays(shape):
        regions.write(packed, offset, data)


def complete(canister: LoneCanister, prompt: int, new: int) -> Spent:
    """What it takes to complete a prompt of so many tokens by so many, greedily."""
    options: dict[str, Any] = dict.fromkeys(OPTION_TYPES)
    options |= {"max_new_tokens": new, "temperature": 0.0, "seed": 1, "context": "stop"}
    done, spent = canister.update("complete", {"token_ids": list(range(prompt))}, options)
    if len(done["token_ids"]) != new:
        raise SystemExit(f"the model stopped after {len(done['token_ids'])} tokens")
    return spent


def measure(shape: dict[str, Any]) -> dict[str, Any]:
    """All figures, for the weights that the canister holds in its heap by default, and for the most
    that it can be told to hold."""
    with tempfile.TemporaryDirectory(prefix="icgpt-bench-") as scratch:
        folder = Path(scratch)
        canister = LoneCanister(folder / "canister", WASM.read_bytes())
        try:
            small = small_model(folder / "small", len(json.dumps(shape)))
            canister.upload(small)
            canister.set_up("int8")
            replace(canister, small, shape)
            figures: dict[str, Any] = {
                "parameters": parameters(shape),
                "packed_bytes": header(shape)[1],
                "default": held(canister, shape),
            }
            canister.update("set_heap_for_weights", MOST_IN_HEAP)
            return figures | {"most_in_heap": held(canister, shape)}
        finally:
            canister.close()


def held(canister: LoneCanister, shape: dict[str, Any]) -> dict[str, Any]:
    """The figures with the blocks in the heap that an upgrade puts there now."""
    upgrade = canister.upgrade()
    info = canister.query("model_info")[0]
    if info["architecture"]["parameters"] != parameters(shape):
        raise SystemExit("another model answers")
    first, more = complete(canister, 1, 1), complete(canister, 1, 1 + TOKENS)
    return {
        "upgrade": vars(upgrade),
        "first_token": vars(first),
        "further_token": {key: (vars(more)[key] - n) / TOKENS for key, n in vars(first).items()},
        f"prompt_of_{PROMPT}": vars(complete(canister, PROMPT, 1)),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table; billions of instructions and of page charges."""

    def cell(which: str, name: str) -> str:
        spent = figures[which][name]
        digits = 1 if spent["instructions"] > 1e10 else 2
        text = " + ".join(f"{spent[key] / 1e9:.{digits}f}" for key in ("instructions", "pages"))
        return (
            f"{text}, {spent['messages']:g} {'message' if spent['messages'] == 1 else 'messages'}"
        )

    columns = {"default": "2.5 GiB in the heap (10 blocks), the default"}
    columns["most_in_heap"] = "3.5 GiB (15 blocks), the most"
    rows = {
        "further_token": "a token, in a short context",
        f"prompt_of_{PROMPT}": f"a prompt of {PROMPT} tokens and the first token",
        "upgrade": "upgrade",
    }
    return page.table(
        ["billions of instructions, and page charges", *columns.values()],
        [[title, *(cell(which, name) for which in columns)] for name, title in rows.items()],
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench gptj-6b")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", action="store_true", help="write docs/")
    options = parser.parse_args()
    if not WASM.is_file():
        parser.error("the canister is not built; run ./scripts/setup first")
    figures = measure(SHAPE)
    if options.write:
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
        page.put("gptj-6b", table(figures))
    print(json.dumps(figures, indent=1) if options.json else table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
