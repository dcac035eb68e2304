"""Files of torch.save in every form that people have them in, read without torch and without trust.

`tests/golden/torch-files` holds one tiny model as torch itself has written it; model.safetensors
has the same weights in transformers' own form. (`make_torch.py` made them.)
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_kit import GOLDEN
from safetensors.numpy import load_file

from icgpt.checkpoint import MODEL_SHAPES, Checkpoint, converting, open_checkpoint
from icgpt.checkpoint.config import expected_shapes, parse_config
from icgpt.checkpoint.converting import torch_weights
from icgpt.checkpoint.modules import parameters
from icgpt.checkpoint.pickles import Foreign, Global, read_pickle
from icgpt.checkpoint.safetensors import Tensor
from icgpt.checkpoint.state_dict import StateDict
from icgpt.checkpoint.torch_files import TorchFile, read_torch_file
from icgpt.errors import CheckpointError, IcgptError, UsageError

TORCH = GOLDEN / "torch-files"
CONFIG = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 8,
    "n_positions": 16,
    "vocab_size": 11,
}
SAME = ["plain", "tied", "older", "wrapped", "parameters", "views", "double"]
NANO = ["nanogpt.pt", "compiled.pt", "parallel.pt"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ICGPT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with config.json, for the files that tell no sizes."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "m"


def loaded(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    found = load_file(checkpoint.files["safetensors"].path)
    return {name.removeprefix("transformer."): one for name, one in found.items()}


def same(checkpoint: Checkpoint, tolerance: float = 0.0) -> None:
    wanted, found = load_file(TORCH / "model.safetensors"), loaded(checkpoint)
    assert found.keys() == wanted.keys()
    for name, one in wanted.items():
        np.testing.assert_allclose(found[name], one, atol=tolerance, rtol=0, err_msg=name)


@pytest.mark.parametrize("name", SAME)
def test_state_dicts(name: str, folder: Path) -> None:
    shutil.copy(TORCH / f"{name}.pth", folder)
    checkpoint = open_checkpoint(str(folder / f"{name}.pth"))
    same(checkpoint)
    assert checkpoint.name == f"{name}.pth"
    assert checkpoint.config.tied
    again = open_checkpoint(str(folder / f"{name}.pth"))
    assert again.files["safetensors"].sha256() == checkpoint.files["safetensors"].sha256()


@pytest.mark.parametrize("name", NANO)
def test_nanogpts_own_form(name: str) -> None:
    checkpoint = open_checkpoint(str(TORCH / name))
    same(checkpoint)
    config = json.loads(checkpoint.files["config"].path.read_text())
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert (config["activation_function"], config["icgpt"]) == ("gelu", {"context": "slide"})
    assert "tokenizer" not in checkpoint.files


def test_half_precision_stays_half(folder: Path) -> None:
    plain = open_checkpoint(str(TORCH / "nanogpt.pt")).files["safetensors"].length
    for name, tolerance in (("half", 1e-3), ("bfloat16", 1e-2)):
        shutil.copy(TORCH / f"{name}.pth", folder)
        checkpoint = open_checkpoint(str(folder / f"{name}.pth"))
        assert checkpoint.files["safetensors"].length < 0.7 * plain
        if name == "half":
            same(checkpoint, tolerance)
    wanted = load_file(TORCH / "model.safetensors")
    bits = torch_weights(TORCH / "bfloat16.pth").tensors["wte.weight"]
    words = np.frombuffer(b"".join(bits.pieces()), "<u2").astype("<u4") << 16
    np.testing.assert_allclose(words.view("<f4").reshape(11, 8), wanted["wte.weight"], rtol=1e-2)


def test_a_folder_as_nanogpt_leaves_it(tmp_path: Path) -> None:
    shutil.copy(TORCH / "nanogpt.pt", tmp_path / "ckpt.pt")
    letters = {letter: place for place, letter in enumerate("abcdefghijk")}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 11, "stoi": letters}))
    checkpoint = open_checkpoint(str(tmp_path))
    same(checkpoint)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint.files["tokenizer"].path))
    assert tokenizer.encode("jab").ids == [9, 0, 1]
    assert tokenizer.decode([9, 0, 1]) == "jab"


def test_what_is_made_goes_with_its_checkpoint(cache: Path) -> None:
    (cache / "source-999999999-x").mkdir(parents=True)  # of a process that was killed
    checkpoint = open_checkpoint(str(TORCH / "nanogpt.pt"))
    (made,) = cache.iterdir()
    assert made == checkpoint.files["config"].path.parent
    del checkpoint
    assert not list(cache.iterdir())


def test_weights_that_do_not_tell_their_sizes() -> None:
    with pytest.raises(UsageError, match="how many attention heads") as caught:
        open_checkpoint(str(TORCH / "plain.pth"))
    assert "--model-name" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no model name 'gpt5'"):
        open_checkpoint(str(TORCH / "plain.pth"), model_name="gpt5")
    with pytest.raises(CheckpointError, match="of 2 layers, 8 wide; gpt2-medium has 24, 1024 wide"):
        open_checkpoint(str(TORCH / "plain.pth"), model_name="gpt2-medium")


def test_published_models_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = replace(MODEL_SHAPES["gpt2"], n_layer=2, n_head=4, n_embd=8)
    monkeypatch.setitem(MODEL_SHAPES, "gpt2", tiny)
    with pytest.raises(UsageError, match="heads") as caught:
        open_checkpoint(str(TORCH / "tied.pth"))
    assert "--model-name gpt2" in (caught.value.hint or "")
    for name in ("gpt2", "openai-community/gpt2"):
        checkpoint = open_checkpoint(str(TORCH / "tied.pth"), model_name=name)
        same(checkpoint)
        assert checkpoint.config.n_head == 4
        config = json.loads(checkpoint.files["config"].path.read_text())
        assert config["activation_function"] == "gelu_new"
        assert "icgpt" not in config


def test_a_folder_as_the_base(folder: Path) -> None:
    """Bare weights, and the sizes and the tokenizer of the model that they are of."""
    shutil.copy(GOLDEN / "tokenizer" / "characters.json", folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 11}))
    letters = {letter: place for place, letter in enumerate("abcdefghijk")}
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["model"]["vocab"] = letters
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    checkpoint = open_checkpoint(str(TORCH / "plain.pth"), model_name=str(folder))
    same(checkpoint)
    assert checkpoint.files["tokenizer"].path == folder / "tokenizer.json"
    (folder / "config.json").write_text(json.dumps({**CONFIG, "n_layer": 3}))
    with pytest.raises(CheckpointError, match=r"no tensor 'h\.2"):
        open_checkpoint(str(TORCH / "plain.pth"), model_name=str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        open_checkpoint(str(TORCH / "plain.pth"), model_name=str(folder))


@pytest.mark.parametrize("name", MODEL_SHAPES)
def test_the_sizes_of_published_models(name: str) -> None:
    shape = MODEL_SHAPES[name]
    gptj = shape.family == "gptj"
    sizes = {"n_layer": shape.n_layer, "n_head": shape.n_head, "n_embd": shape.n_embd}
    told = {"model_type": shape.family, **sizes, "n_positions": 2048 if gptj else 1024}
    told |= {"vocab_size": 50400 if gptj else 50257}
    config = parse_config(json.dumps(told).encode())
    shapes = expected_shapes(config)
    state = StateDict({n: Tensor(n, "F16", one, 0, 0) for n, one in shapes.items()}, {})
    made = parse_config(json.dumps(state.config(name)).encode())
    assert made == config
    assert made.tied != gptj
    others = [one for one, other in MODEL_SHAPES.items() if state._fits(other)]
    assert others == [name]


def test_an_own_head_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_its_own(path: Path) -> TorchFile:
        file = read_torch_file(path)
        head = replace(file.content["transformer.wpe.weight"], shape=(11, 8))
        file.content["lm_head.weight"] = head
        return file

    monkeypatch.setattr(converting, "read_torch_file", with_its_own)
    shutil.copy(TORCH / "tied.pth", folder)
    checkpoint = open_checkpoint(str(folder / "tied.pth"))
    assert not checkpoint.config.tied
    weights = loaded(checkpoint)
    np.testing.assert_array_equal(weights["lm_head.weight"], weights["wpe.weight"][:11])


# --- Single and several safetensors files


def test_a_file_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(TORCH / "model.safetensors", folder / "weights.safetensors")
    checkpoint = open_checkpoint(str(folder / "weights.safetensors"))
    assert checkpoint.files["safetensors"].path == folder / "weights.safetensors"
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json") as caught:
        open_checkpoint(str(folder / "weights.safetensors"))
    assert "--model-name" in (caught.value.hint or "")
    tiny = replace(MODEL_SHAPES["gpt2"], n_layer=2, n_head=4, n_embd=8)
    monkeypatch.setitem(MODEL_SHAPES, "gpt2", tiny)
    same(open_checkpoint(str(folder / "weights.safetensors"), model_name="gpt2"))


def in_parts(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import save_file

    weights = load_file(TORCH / "model.safetensors")
    names = sorted(weights)
    index: dict[str, Any] = {"metadata": {"total_size": 1}, "weight_map": {}}
    for number, some in enumerate((names[::2], names[1::2]), 1):
        part = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in some}, folder / part)
        index["weight_map"].update(dict.fromkeys(some, part))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_parts_with_an_index(folder: Path) -> None:
    in_parts(folder)
    same(open_checkpoint(str(folder)))
    same(open_checkpoint(str(folder / "model.safetensors.index.json")))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"wte.weight": "../model.safetensors"}, "another folder"),
        ({"wte.weight": "/etc/passwd"}, "another folder"),
        ({"wte.weight": "a/../b.safetensors"}, "another folder"),
        ({"wte.weight": ".."}, "another folder"),
        ({"wte.weight": "none.safetensors"}, "can't read"),
        ({"wte.weight": "model-00002-of-00002.safetensors"}, "has no tensor 'wte.weight'"),
        ({f"x{n}": f"{n}.safetensors" for n in range(1001)}, "names 1,003 files"),
    ],
)
def test_indexes_that_are_refused(folder: Path, change: dict[str, Any], word: str) -> None:
    index = in_parts(folder)
    first = index["weight_map"]["wte.weight"]
    if first == "model-00002-of-00002.safetensors":
        change = {k: str(v).replace("00002-of", "00001-of") for k, v in change.items()}
    index["weight_map"].update(change)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=word):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": {}}', "[" * 100_000])
def test_indexes_that_are_none(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        open_checkpoint(str(folder))


# --- Whole models, and what a pickle can do to its reader


def test_a_whole_model_is_read_as_data() -> None:
    """What it says of itself goes with it; nothing that it names is imported."""
    before = set(sys.modules)
    checkpoint = open_checkpoint(str(TORCH / "object.pth"))
    same(checkpoint)
    assert (checkpoint.config.n_head, checkpoint.config.tied) == (2, True)
    assert not {name for name in set(sys.modules) - before if name.startswith("torch")}


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_whole_model_among_other_things(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrapped(path: Path) -> TorchFile:
        file = read_torch_file(path)
        return replace(file, content={"epoch": 3, key: file.content})

    monkeypatch.setattr(converting, "read_torch_file", wrapped)
    same(open_checkpoint(str(TORCH / "object.pth")))


def test_older_files_name_a_models_class_with_its_source() -> None:
    told = b"(X\x06\x00\x00\x00modulecm\nNet\nX\x00\x00\x00\x00X\x00\x00\x00\x00tQ"
    found = read_pickle(b"\x80\x02" + told + b")\x81}X\x01\x00\x00\x00aK\x01sb.")
    assert isinstance(found, Foreign)
    assert (str(found.kind), found.state) == ("m.Net", {"a": 1})


def test_models_within_themselves_end() -> None:
    model = Foreign(Global("m", "Net"))
    model.state = {"_modules": {"a": model, "b": model}, "_parameters": {"c": 1}}
    assert parameters(model) == {}


def test_what_is_no_gpt_is_said_to_be_none() -> None:
    with pytest.raises(CheckpointError, match="no token embedding") as caught:
        open_checkpoint(str(TORCH / "whole.pth"), model_name="gpt2")
    assert "other kinds" in (caught.value.hint or "")


def test_what_pickles_itself_is_not_unpickled_unasked(tmp_path: Path) -> None:
    path = archive(tmp_path / "own.pth", b"\x80\x02cm\nmake\n)R.")
    with pytest.raises(CheckpointError, match="holds a whole model") as caught:
        open_checkpoint(str(path))
    assert "--trust-pickle" in (caught.value.hint or "")


def test_a_whole_model_with_the_users_word(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Module()
    for name, value in load_file(TORCH / "model.safetensors").items():
        *way, last = f"transformer.{name}".split(".")
        place = model
        for step in way:
            if step not in dict(place.named_children()):
                place.add_module(step, torch.nn.Module())
            place = dict(place.named_children())[step]
        place.register_parameter(last, torch.nn.Parameter(torch.from_numpy(value)))
    model.config = argparse.Namespace(n_layer=2, n_head=2, n_embd=8)
    for content in (model, {"model": model, "epoch": 3}):
        torch.save(content, tmp_path / "whole.pth")
        same(open_checkpoint(str(tmp_path / "whole.pth")))
        same(open_checkpoint(str(tmp_path / "whole.pth"), trust_pickle=True))
    # What does not need trust is read with it all the same.
    same(open_checkpoint(str(TORCH / "nanogpt.pt"), trust_pickle=True))
    (tmp_path / "bad.pth").write_bytes(b"\x80\x02.")
    with pytest.raises(CheckpointError, match="can't be unpickled"):
        open_checkpoint(str(tmp_path / "bad.pth"), trust_pickle=True)


def test_trust_needs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="PyTorch"):
        open_checkpoint(str(TORCH / "whole.pth"), trust_pickle=True)


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def archive(path: Path, data: bytes, entries: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", data)
        for name, value in (entries or {}).items():
            file.writestr(f"m/{name}", value)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_a_pickle_names_is_run(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    for evil in (
        Evil(os.mkdir, str(mark)),
        {"wte.weight": Evil(os.mkdir, str(mark))},
        {"model": Evil(eval, f"__import__('os').mkdir({str(mark)!r})")},
    ):
        data = pickle.dumps(evil, protocol)
        for path in (archive(tmp_path / "x.pth", data), tmp_path / "y.pth"):
            if path.name == "y.pth":
                path.write_bytes(data)
            with pytest.raises(CheckpointError):
                open_checkpoint(str(path))
    assert not mark.exists()
    found = read_pickle(pickle.dumps(Evil(os.mkdir, str(mark)), max(protocol, 2)))
    assert isinstance(found, Foreign)
    assert str(found.kind) == "posix.mkdir"


HOSTILE = {
    "empty": b"",
    "no end": b"\x80\x02}",
    "nothing": b"\x80\x02.",
    "two values": b"\x80\x02K\x01K\x02.",
    "a mark at the end": b"\x80\x02(.",
    "no such memo": b"\x80\x02h\x07.",
    "a memo far away": b"\x80\x02}r\xff\xff\xff\xff.",
    "a huge bytearray": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "a huge number": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "a long decimal": b"I" + b"9" * 100_000 + b"\n.",
    "nested": b"\x80\x02" + b"(" * 200_000 + b"t" * 200_000 + b".",
    "nested keys": b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"K\x01s.",
    "a loop": b"\x80\x02]q\x00h\x00a.",
    "endless": b"\x80\x02" + b"N0" * 250_001 + b"N.",
    "an extension": b"\x80\x02\x82\x01.",
    "an instance": b"(ios\nmkdir\n.",
    "a call of a number": b"\x80\x02K\x01)R.",
    "a storage": b"\x80\x02K\x01Q.",
    "deep storage": b"\x80\x02)" + b"\x85" * 300_000 + b"Q.",
    "a rebuilt tensor": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x01))NNtR.",
    "an ordered dict of numbers": b"\x80\x02ccollections\nOrderedDict\n]K\x01a\x85R.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles(name: str, tmp_path: Path) -> None:
    for path in (archive(tmp_path / "x.pth", HOSTILE[name]), tmp_path / "y.pth"):
        if path.name == "y.pth":
            path.write_bytes(b"\x80\x02" + HOSTILE[name])
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(str(path))
        assert caught.value.hint
        assert len(caught.value.message) < 300


def test_archives_that_are_refused(folder: Path) -> None:
    good = (TORCH / "plain.pth").read_bytes()
    state = pickle.dumps({})

    def refused(word: str, path: Path) -> None:
        with pytest.raises(CheckpointError, match=word):
            open_checkpoint(str(path))

    path = folder / "x.pth"
    for end in (10, 1000, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:end])
        refused("cut off|no file", path)
    refused("no weights", archive(path, state))
    refused("big-endian", archive(path, state, {"byteorder": b"big"}))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/constants.pkl", b"")
    refused("TorchScript", path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("m/data.pkl", state)
        file.writestr("m/data/0", bytes(1000))
    refused("packed", path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("m/data.pkl", bytes(17 << 20))
    refused("its pickle has", path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused("Git LFS", path)
    path.write_bytes(b"<html>")
    refused("no file of torch", path)
    path.write_bytes(pickle.dumps({"a": 1}, 2))
    refused("plain pickle", path)


def test_tensors_that_reach_too_far(folder: Path) -> None:
    """Every offset, length and stride in the pickle is made larger than what is there."""
    with zipfile.ZipFile(TORCH / "plain.pth") as file:
        data = file.read("plain/data.pkl")
        parts = {n.partition("/")[2]: file.read(n) for n in file.namelist() if "/data/" in n}
    short = {name: one[:-4] for name, one in parts.items()}
    with pytest.raises(CheckpointError, match="reaches beyond"):
        open_checkpoint(str(archive(folder / "x.pth", data, short)))
    with pytest.raises(CheckpointError, match="reaches beyond"):
        open_checkpoint(str(archive(folder / "x.pth", data, {})))


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["plain.pth", "older.pth", "nanogpt.pt", "parallel.pt", "object.pth"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_files(folder: Path, name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray((TORCH / name).read_bytes())
    for place, value in changes:
        # Most of the file is numbers; what steers the reader lies at both ends.
        data[place % min(len(data), 3000) - (1500 if place % 2 else 0)] = value
    path = folder / name
    path.write_bytes(bytes(data))
    refused: IcgptError | None = None
    try:
        open_checkpoint(str(path))
    except (CheckpointError, UsageError) as error:
        refused = error
    assert refused is None or (refused.hint and len(refused.message) < 300)


def test_pickles_of_plain_data_are_read() -> None:
    value = {
        "a": [1, -2, 2.5, None, True, False, 10**30],
        "b": ("x", b"y", bytearray(b"z")),
        "c": {1: "one", None: {}},
        "d": {1, 2},
        "e": frozenset({3}),
    }
    for protocol in range(2, 6):
        if protocol < 3:  # bytes and sets are made by calls there
            assert read_pickle(pickle.dumps({"a": value["a"]}, protocol)) == {"a": value["a"]}
        elif protocol > 3:
            found = read_pickle(io.BytesIO(pickle.dumps(value, protocol)))
            if protocol == 5:
                assert found == value
