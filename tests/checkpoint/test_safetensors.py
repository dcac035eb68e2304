"""safetensors headers: sound ones are read, damaged and hostile ones refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from icgpt.checkpoint.safetensors import MAX_HEADER_BYTES, check_finite, read_header
from icgpt.errors import CheckpointError


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"a": np.ones((2, 3), "f4"), "b": np.ones((5,), "f2"), "empty": np.ones((0,), "f4")}
    save_file(tensors, path, metadata={"format": "pt"})
    found = read_header(path)
    assert {name: one.shape for name, one in found.items()} == {
        "a": (2, 3),
        "b": (5,),
        "empty": (0,),
    }
    data = path.read_bytes()
    assert data[found["a"].start : found["a"].end] == tensors["a"].tobytes()
    check_finite(path, list(found.values()))


@pytest.mark.parametrize(
    ("header", "data", "word"),
    [
        ([], b"", "no JSON object"),
        (b"{", b"", "damaged"),
        (b"\xff\xfe{}", b"", "damaged"),
        (b'{"a":' * 100_000, b"", "damaged"),
        (b'{"a":1,"a":2}', b"", "twice"),
        ({"a": 1}, b"", "malformed entry"),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"", "malformed entry"),
        ({"a": entry(offsets=(0, 8, 9))}, b"", "malformed entry"),
        ({"a": entry(shape=(-2,))}, bytes(8), "malformed shape"),
        ({"a": entry(shape=(True,))}, bytes(8), "malformed shape"),
        ({"a": entry(shape=(2.0,))}, bytes(8), "malformed shape"),
        ({"a": entry(offsets=(8, 0))}, bytes(8), "can't have"),
        ({"a": entry(dtype="F31")}, bytes(8), "unknown type"),
        ({"a": entry(shape=(1,) * 9)}, bytes(8), "dimensions"),
        ({"a": entry(shape=(3,))}, bytes(8), "can't have"),
        ({"a": entry(shape=(2**62, 2**62))}, bytes(8), "can't have"),
        ({"a": entry()}, bytes(7), "cut off"),
        ({"a": entry()}, bytes(9), "belong to no tensor"),
        ({"a": entry(), "b": entry()}, bytes(8), "overlaps"),
        ({"a": entry(offsets=(4, 12))}, bytes(12), "gap"),
    ],
)
def test_what_is_refused(tmp_path: Path, header: Any, data: bytes, word: str) -> None:
    path = write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(CheckpointError, match=word):
        read_header(path)


@pytest.mark.parametrize("size", [0, 4, 8, 20])
def test_files_cut_off_early(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((100).to_bytes(8, "little") + b"{" * 92)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="cut off"):
        read_header(path)


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_an_absurd_header_length_allocates_nothing(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        read_header(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can't read"):
        read_header(tmp_path / "none")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.binary(max_size=40))
def test_noise(tmp_path_factory: pytest.TempPathFactory, header: bytes, data: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp() / "noise.safetensors", header, data)
    try:
        read_header(path)
    except CheckpointError:
        return
    assert json.loads(header).keys() <= {"__metadata__"}


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, kind: str, bad: float) -> None:
    values = np.linspace(-3, 3, 100, dtype="f4")
    values[57] = bad
    if kind == "F16":
        data = values.astype("f2").tobytes()
    elif kind == "BF16":
        data = (values.view("u4") >> 16).astype("u2").tobytes()
    else:
        data = values.tobytes()
    path = write(tmp_path / "x.safetensors", {"w": entry(kind, (100,), (0, len(data)))}, data)
    with pytest.raises(CheckpointError, match="'w' holds a weight"):
        check_finite(path, list(read_header(path).values()))


def test_the_largest_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    ends = np.array([np.finfo("f4").max, np.finfo("f4").min, 0.0, -0.0], "f4")
    save_file({"w": ends, "ids": np.full(3, 2**31 - 1, "i4")}, path)
    check_finite(path, list(read_header(path).values()))
