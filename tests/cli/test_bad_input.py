"""Bad input through the command line: a clear error, its exit code, and the canister as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import Cli, characters
from model_kit import MakeCanister, tiny_config, tiny_tensors, with_model, write_model
from safetensors.numpy import save_file

from icgpt.client import ModelCanister
from icgpt.identity import Identity
from icgpt.principal import to_text
from icgpt.sending import CHUNK_BYTES

FAILED, USAGE, UNREACHABLE, REFUSED = 1, 2, 3, 4
NOBODY = "rrkah-fqaaa-aaaaa-aaaaq-cai"


def stopping(folder: Path) -> Path:
    """The tiny model of characters, which stops when its context of 16 is full."""
    characters(folder)
    change_json(folder / "config.json", lambda config: config.pop("icgpt"))
    return folder


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def live(new_canister: MakeCanister, tmp_path_factory: pytest.TempPathFactory) -> ModelCanister:
    """A canister with a model, which all these tests share: none of them may change it."""
    return with_model(new_canister(), stopping(tmp_path_factory.mktemp("live")))


def snapshot(model: ModelCanister) -> tuple[object, ...]:
    return model.info(), model.files(), model.access(), model.infer([1, 2, 3], 8, 0.0)


Refuse = Callable[..., None]


@pytest.fixture
def refuse(icgpt: Cli, live: ModelCanister, identity: Identity) -> Iterator[Refuse]:
    """Runs a command line that must fail, with and without --json."""
    before = snapshot(live)
    place = {"-c": to_text(live.id), "--identity": identity.source}

    def run(*arguments: str, code: int, word: str, **other: str) -> None:
        options = {name: other.get(name.strip("-"), value) for name, value in place.items()}
        if arguments[0] == "upload":
            arguments = (arguments[0], options.pop("-c"), *arguments[1:])
        command = [*arguments, *(part for pair in options.items() for part in pair if pair[1])]
        assert icgpt(*command, code=code) == ""
        # What an upload says before it fails is no part of the error.
        error = icgpt.err.splitlines()[-1]
        assert error.startswith("Error: ")
        assert word in error
        assert "Traceback" not in icgpt.err
        told = icgpt.json(*command, code=code)["error"]
        assert told["exit_code"] == code
        assert word in f"{told['message']}. {told['hint']}"
        if code in (FAILED, USAGE, UNREACHABLE):
            assert told["hint"], "an error must say what to do next"

    yield run
    assert snapshot(live) == before


# --- Files


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def header(path: Path, change: Callable[[Any], Any]) -> None:
    """Rewrites the header of a safetensors file and leaves the weights as they are."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    value = json.loads(data[8:end])
    text = json.dumps(change(value) or value).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def tensors(path: Path, **changes: Any) -> None:
    """Writes the weights anew, some of them changed; None takes one out."""
    values = {**tiny_tensors(json.loads((path.parent / "config.json").read_bytes())), **changes}
    save_file({name: one for name, one in values.items() if one is not None}, path)


def poison(path: Path, value: float) -> None:
    weights = np.ones((16, 8), "f4")
    weights[3, 5] = value
    tensors(path, **{"wpe.weight": weights})


def entry(**changes: Any) -> Callable[[Any], Any]:
    return lambda head: head["ln_f.bias"].update(changes)


LONG_NAME = "\x1b[2J" + "x" * 100_000

WEIGHTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: cut(path, 0), "cut off"),
    "cut off in the length": (lambda path: cut(path, 5), "cut off"),
    "cut off in the header": (lambda path: cut(path, 100), "cut off"),
    "cut off in the weights": (lambda path: cut(path, path.stat().st_size - 1), "cut off"),
    "too long": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "belong to no tensor"),
    "a header of 2^63 bytes": (
        lambda path: path.write_bytes(b"\x00" * 7 + b"\x80" + b"{}"),
        "no safetensors file",
    ),
    "a web page": (lambda path: path.write_text("<html>" * 99), "no safetensors file"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04\x95" + bytes(99)), "no safetensors file"),
    "nested headers": (
        lambda path: path.write_bytes((10**5).to_bytes(8, "little") + b"[" * 10**5),
        "damaged",
    ),
    "a list": (lambda path: header(path, lambda head: [1]), "no JSON object"),
    "an entry that is none": (lambda path: header(path, entry(shape=None)), "malformed entry"),
    "an end before the start": (lambda path: header(path, entry(data_offsets=[8, 0])), "can't"),
    "an end after the file": (lambda path: header(path, entry(data_offsets=[0, 2**60])), "can't"),
    "negative places": (lambda path: header(path, entry(data_offsets=[-8, 0])), "malformed"),
    "an unknown type": (lambda path: header(path, entry(dtype="F31")), "'F31'"),
    "a name that steers the terminal": (
        lambda path: header(path, lambda head: {LONG_NAME: 1, **head}),
        "malformed entry",
    ),
    "a shape of 10^4000": (
        lambda path: header(path, entry(shape=[10**4000] * 8)),
        "can't have",
    ),
    "a wrong shape": (
        lambda path: tensors(path, **{"ln_f.bias": np.ones(9, "f4")}),
        "has the shape 9; by config.json it must be 8",
    ),
    "whole numbers": (lambda path: tensors(path, **{"ln_f.bias": np.ones(8, "i4")}), "type I32"),
    "a missing tensor": (
        lambda path: tensors(path, **{"h.0.mlp.c_fc.weight": None}),
        "no tensor 'h.0.mlp.c_fc.weight'",
    ),
    "no tensors": (lambda path: save_file({}, path), "no tensor"),
    "a weight that is no number": (lambda path: poison(path, np.nan), "not a finite number"),
    "an infinite weight": (lambda path: poison(path, -np.inf), "not a finite number"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(refuse: Refuse, tmp_path: Path, case: str) -> None:
    spoil, word = WEIGHTS[case]
    source = stopping(tmp_path / "m")
    spoil(source / "model.safetensors")
    refuse("upload", str(source), code=FAILED, word=word)


CONFIGS: dict[str, tuple[Callable[[Any], Any] | str, str]] = {
    "no n_head": (lambda config: config.pop("n_head"), "no n_head"),
    "no vocab_size": (lambda config: config.pop("vocab_size"), "no vocab_size"),
    "heads that don't fit": (lambda config: config.update(n_head=3), "3 heads"),
    "no layers": (lambda config: config.update(n_layer=0), "n_layer is 0"),
    "more layers": (lambda config: config.update(n_layer=2), "no tensor 'h.1"),
    "another vocabulary": (lambda config: config.update(vocab_size=66), "by config.json"),
    "another family": (lambda config: config.update(model_type="x" * 10**5), "'xxx"),
    "another activation": (lambda config: config.update(activation_function="y" * 10**5), "'yyy"),
    "settings of ours that are none": (lambda config: config.update(icgpt=[1]), "no object"),
    "a context of ours that is none": (
        lambda config: config.update(icgpt={"context": "roll"}),
        "slide",
    ),
    "no JSON": ("{", "not valid JSON"),
    "no object": ("[]", "no JSON object"),
    "nested": ("[" * 10**5, "not valid JSON"),
    "huge": (" " * (2 << 20), "bytes"),
}


def refuse_spoiled(
    refuse: Refuse, file: Path, change: Callable[[Any], Any] | str, word: str
) -> None:
    """A model one of whose files was changed, or is another text, is not sent."""
    if isinstance(change, str):
        file.write_text(change)
    else:
        change_json(file, change)
    refuse("upload", str(file.parent), code=FAILED, word=word)


@pytest.mark.parametrize("case", CONFIGS)
def test_configurations(refuse: Refuse, tmp_path: Path, case: str) -> None:
    refuse_spoiled(refuse, stopping(tmp_path / "m") / "config.json", *CONFIGS[case])


TOKENIZERS: dict[str, tuple[Callable[[Any], Any] | str, str]] = {
    "an id beyond the vocabulary": (
        lambda words: words["model"]["vocab"].update({"é": 65}),
        "the id 65",
    ),
    "an added token beyond it": (
        lambda words: words.update(added_tokens=[{"id": 70, "content": "x"}]),
        "the id 70",
    ),
    "an id that is none": (lambda words: words["model"]["vocab"].update(a="b"), "malformed id"),
    "no vocabulary": (lambda words: words.pop("model"), "no vocabulary"),
    "no JSON": ("nonsense", "not valid JSON"),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_tokenizers(refuse: Refuse, tmp_path: Path, case: str) -> None:
    refuse_spoiled(refuse, stopping(tmp_path / "m") / "tokenizer.json", *TOKENIZERS[case])


def test_sources_that_are_none(refuse: Refuse, tmp_path: Path) -> None:
    refuse("upload", str(tmp_path / "none"), code=FAILED, word="doesn't exist")
    refuse("upload", str(tmp_path), code=FAILED, word="has no model.safetensors")
    source = stopping(tmp_path / "m")
    (source / "config.json").unlink()
    refuse("upload", str(source), code=FAILED, word="has no config.json")


# --- Requests


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["infer", "65"], REFUSED, "65"),
        (["infer", "1", "4294967295"], REFUSED, "4294967295"),
        (["decode", "65"], REFUSED, "65"),
        (["generate", ""], REFUSED, "empty"),
        (["generate", "é"], REFUSED, "empty"),
        (["generate", "a" * 17], REFUSED, "16"),
        (["infer", *["1"] * 17], REFUSED, "16"),
        (["generate", "a", "-t", "nan"], REFUSED, "temperature"),
        (["generate", "a", "-t", "-1"], REFUSED, "temperature"),
        (["generate", "a", "-t", "inf"], REFUSED, "temperature"),
        (["infer", "1", "-t", "nan"], REFUSED, "temperature"),
        (["infer", "1", "-t", "-1"], REFUSED, "temperature"),
        (["generate", "a", "--top-p", "0"], REFUSED, "top_p"),
        (["generate", "a", "--typical-p", "nan"], REFUSED, "typical_p"),
        (["generate", "a", "--repetition-penalty", "-1"], REFUSED, "repetition_penalty"),
        (["generate", "a", "-n", "3", "--min-new-tokens", "4"], REFUSED, "min_new_tokens"),
        (["generate", "a", "--stop", ""], REFUSED, "empty"),
        (["generate", "a", "--num-beams", "33"], REFUSED, "num_beams"),
        (["generate", "a", "--num-return-sequences", "2", "-t", "0"], REFUSED, "temperature 0"),
        (["generate", "a", "--max-time", "nan"], REFUSED, "max_time"),
        (["infer", "1", "--max-length", "1"], REFUSED, "max_length"),
        (["infer", "1", "--logit-bias", "1=101"], REFUSED, "bias"),
        (["infer", "1", "--logit-bias", "1"], USAGE, "ID=BIAS"),
        (["generate", "a", "--early-stopping", "soon"], USAGE, "never"),
        (["generate", "a", "-n", "0"], USAGE, "0 is not in the range"),
        (["infer", "1", "-n", "0"], USAGE, "0 is not in the range"),
        (["infer"], USAGE, "TOKEN_IDS"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_requests(refuse: Refuse, arguments: list[str], code: int, word: str) -> None:
    refuse(*arguments, code=code, word=word)


@pytest.mark.parametrize(
    "arguments",
    [
        ["access", "public", "off"],
        ["access", "add", "2vxsx-fae", "--role", "manager"],
        ["access", "remove", "2vxsx-fae"],
        ["upload", "shakespeare-char"],
    ],
    ids=" ".join,
)
def test_strangers(refuse: Refuse, arguments: list[str]) -> None:
    refuse(*arguments, identity="anonymous", code=REFUSED, word="2vxsx-fae is not a manager")


# --- Places


REQUESTS = [
    ["generate", "x"],
    ["infer", "1"],
    ["tokenize", "x"],
    ["decode", "1"],
    ["status"],
    ["access", "list"],
    ["access", "public", "on"],
    ["upload", "shakespeare-char"],
]


@pytest.mark.parametrize("arguments", REQUESTS, ids=" ".join)
def test_canisters_that_are_not_there(refuse: Refuse, arguments: list[str]) -> None:
    refuse(*arguments, c="nobody", code=USAGE, word="icgpt deploy")
    refuse(*arguments, c="rrkah-fqaaa-aaaaa-baaaq-cai", code=USAGE, word="checksum")
    refuse(*arguments, c="../x", code=USAGE, word="neither a name nor a canister id")
    refuse(*arguments, c=NOBODY, code=REFUSED, word="icgpt deploy")


@pytest.mark.parametrize("arguments", REQUESTS, ids=" ".join)
def test_the_network_is_not_running(
    icgpt: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("ICGPT_STATE_DIR", str(tmp_path / "nothing"))
    if arguments[0] == "upload":
        arguments = ["upload", "model", *arguments[1:]]
    assert icgpt(*arguments, code=UNREACHABLE) == ""
    assert "icgpt network start" in icgpt.err
    assert icgpt.json(*arguments, code=UNREACHABLE)["error"]["kind"] == "network"


# --- An upload that is broken off

DYING = """
import http.client, os, signal, sys
from icgpt.cli import run
from icgpt.client import ModelCanister

append, getresponse = ModelCanister.append, http.client.HTTPConnection.getresponse
moment, left = sys.argv[1], int(sys.argv[2])

def dying_append(self, file, data):
    global left
    if left == 0 and moment != "unanswered":
        os.kill(os.getpid(), signal.SIGKILL if moment == "killed" else signal.SIGINT)
    left -= 1
    return append(self, file, data)

def dying_getresponse(self):
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return getresponse(self)

ModelCanister.append = dying_append
if moment == "unanswered":
    http.client.HTTPConnection.getresponse = dying_getresponse
sys.exit(run(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("moment", "kept"), [("killed", 0), ("killed", 2), ("unanswered", 2), ("interrupted", 1)]
)
def test_an_upload_broken_off_in_the_middle(
    deployed: Cli, tmp_path: Path, moment: str, kept: int
) -> None:
    deployed("upload", "model", str(stopping(tmp_path / "first")))
    before = deployed("infer", "1", "2", "-n", "5", "-t", "0")
    config = tiny_config(n_embd=64, n_positions=20_000)
    second = write_model(tmp_path / "second", config)
    assert (second / "model.safetensors").stat().st_size > 2 * CHUNK_BYTES

    through = kept - 1 if moment == "unanswered" else kept
    # By appends, one after the other, so that it is known which have arrived.
    command = ["upload", "model", str(second), "--seed-flow"]
    process = subprocess.run(
        [sys.executable, "-c", DYING, moment, str(through), *command],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    if moment == "interrupted":
        assert process.returncode == FAILED
        assert process.stderr.endswith("Error: interrupted\n")
        assert "Upload again to go on" in process.stderr
    else:
        assert process.returncode == -signal.SIGKILL
    assert process.stdout == ""

    # The canister takes the last chunk whether or not its sender lives to hear of it.
    for _ in range(1000):
        status = deployed.json("status")
        staged = status["files"]["safetensors"]["staged"]
        if (staged or {"length": 0})["length"] == kept * CHUNK_BYTES:
            break
    else:
        pytest.fail(f"the canister has {staged} and not {kept} chunks")
    assert status["model"]["setup"] == "ready"
    assert deployed("infer", "1", "2", "-n", "5", "-t", "0") == before

    done = deployed.json(*command)
    assert done["resumed"] == kept * CHUNK_BYTES
    assert done["sent"] == done["bytes"] - done["resumed"]
    assert done["changed"]
    assert (
        deployed.json("status")["model"]["source_sha256"]["safetensors"]
        == (done["sha256"]["safetensors"])
    )
    assert len(deployed("infer", "1", "2", "-n", "5", "-t", "0").split()) == 5


INTERRUPTED = """
import os, signal, sys
from icgpt.cli import run
from icgpt.client import ModelCanister

write = ModelCanister.write

def interrupted(self, file, offset, data):
    answer = write(self, file, offset, data)
    if file == "safetensors" and offset == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return answer

ModelCanister.write = interrupted
sys.exit(run(sys.argv[1:]))
"""


def test_an_upload_in_chunks_that_is_interrupted(deployed: Cli, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", tiny_config(n_embd=64, n_positions=20_000))
    command = ["upload", "model", str(folder)]
    process = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *command],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert process.returncode == FAILED
    assert process.stderr.endswith("Error: interrupted\n")
    assert "Upload again to go on" in process.stderr
    done = deployed.json(*command)
    assert done["resumed"] >= CHUNK_BYTES
    assert done["resumed"] + done["sent"] == done["bytes"]
    assert done["changed"]
