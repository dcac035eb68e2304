"""Conversion in process: what a canister would make, whatever is asked of it."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from model_kit import GOLDEN, MakeCanister

from icgpt.checkpoint import open_checkpoint
from icgpt.engine import pack, pack_weights
from icgpt.errors import CheckpointError, IcgptError, UsageError
from icgpt.upload import upload

PRECISIONS = ("f32", "int8", "int16")


class Bytes:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length = len(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        assert offset + len(buffer) <= self.length
        buffer[:] = self.data[offset : offset + len(buffer)]


def files(name: str) -> tuple[bytes, bytes]:
    folder = GOLDEN / name
    return (folder / "config.json").read_bytes(), (folder / "model.safetensors").read_bytes()


def packed(config: bytes, weights: Bytes, precision: str = "int8") -> bytes:
    out = bytearray()
    pack_weights(config, weights, precision, out.extend)
    return bytes(out)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_canister_makes_the_same(
    precision: str, tmp_path: Path, new_canister: MakeCanister
) -> None:
    model = new_canister()
    for name in ("odd-heads", "gptj-half", "half"):
        checkpoint = open_checkpoint(str(GOLDEN / name))
        upload(model, checkpoint, precision=precision, seed_flow=True)
        done = pack(checkpoint, tmp_path / name, precision)
        assert done.sha256 == model.info().layout_sha256
        written = (tmp_path / name).read_bytes()
        assert done.length == len(written)
        assert done.sha256 == hashlib.sha256(written).digest()
        assert done.precision == precision


def test_the_precision_that_the_model_asks_for(tmp_path: Path) -> None:
    assert pack(open_checkpoint("shakespeare-char"), tmp_path / "a").precision == "f32"
    config, weights = files("two-blocks")
    asked = json.loads(config) | {"icgpt": {"precision": "int16"}}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(asked))
    (folder / "model.safetensors").write_bytes(weights)
    done = pack(open_checkpoint(str(folder)), tmp_path / "b")
    assert done.precision == "int16"
    assert (tmp_path / "b").read_bytes() == packed(config, Bytes(weights), "int16")


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    pack(
        open_checkpoint("shakespeare-char"),
        tmp_path / "a",
        "int8",
        lambda *both: told.append(both),
    )
    done = [one for one, _ in told]
    assert done == sorted(done)
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1] > 0


def test_a_file_that_is_no_model_is_refused() -> None:
    config, weights = files("two-blocks")
    header = struct.unpack("<Q", weights[:8])[0]
    not_finite = bytearray(weights)
    not_finite[8 + header : 12 + header] = struct.pack("<f", float("nan"))
    huge = json.dumps(json.loads(config) | {"n_embd": 1 << 16, "n_layer": 1000}).encode()
    for bad_config, bad_weights in (
        (config, b""),
        (config, weights[:7]),
        (config, weights[: 8 + header // 2]),
        (config, weights[:-1]),
        (config, weights + b"\0"),
        (config, struct.pack("<Q", 1 << 63) + weights[8:]),
        (config, b"\xff" * 4096),
        (config, bytes(not_finite)),
        (b"", weights),
        (b"[]", weights),
        (b"\xff\xfe", weights),
        (b"{" * 100_000, weights),
        (b" " * (2 << 20), weights),
        (huge, weights),
        (files("untied")[0], weights),
    ):
        with pytest.raises(CheckpointError):
            packed(bad_config, Bytes(bad_weights))


def test_no_such_precision() -> None:
    config, weights = files("two-blocks")
    with pytest.raises(UsageError, match="int4"):
        packed(config, Bytes(weights), "int4")


def test_errors_of_what_was_lent_come_through(tmp_path: Path) -> None:
    config, weights = files("two-blocks")

    class Failing(Bytes):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            if offset > 1000:
                raise CheckpointError("the disk is gone")
            super().read_into(offset, buffer)

    with pytest.raises(CheckpointError, match="the disk is gone"):
        packed(config, Failing(weights))

    def full(_: memoryview) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        pack_weights(config, Bytes(weights), "int8", full)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    checkpoint = open_checkpoint("shakespeare-char")
    with pytest.raises(IcgptError, match="can't write"):
        pack(checkpoint, tmp_path / "missing" / "file")
    (tmp_path / "kept").write_bytes(b"before")
    broken = open_checkpoint(str(GOLDEN / "two-blocks"))
    broken.files["config"] = checkpoint.files["config"]
    with pytest.raises(CheckpointError):
        pack(broken, tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"before"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_stays_small(tmp_path: Path) -> None:
    """GPT-2 124M: 498 MB are converted with the Python process below 300 MB."""
    sys.path.insert(0, str(GOLDEN))
    import recipe

    recipe.write(tmp_path / "gpt2", "gpt2-124m")
    program = """
import sys
from pathlib import Path
from icgpt.checkpoint import open_checkpoint
from icgpt.engine import pack
for precision in ("int8", "int16", "f32"):
    pack(open_checkpoint(sys.argv[1]), Path(sys.argv[1]) / "packed", precision)
print(Path("/proc/self/status").read_text())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "gpt2")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 300 << 10
