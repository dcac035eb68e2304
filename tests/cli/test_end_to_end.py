"""Every command against a real canister on the local network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from cli_kit import ALPHABET, WASM, Cli, characters
from model_kit import GOLDEN

from icgpt import connect
from icgpt.network import NetworkInfo


def test_the_page_is_a_canister_of_its_own(icgpt: Cli) -> None:
    alone = icgpt.json("deploy", "--wasm", str(WASM), "--no-page")
    assert alone["page"] is None
    assert "page" not in icgpt.err
    page = icgpt.json("deploy", "--wasm", str(WASM))["page"]
    assert (page["canister"], page["action"], page["created"]) == ("frontend", "install", True)
    # Another model's page, in a canister that was there.
    other = icgpt.json("deploy", "-c", "b", "--wasm", str(WASM), "--page-id", page["canister_id"])
    assert other["page"]["canister"] == "b-frontend"
    assert other["page"]["action"] == "upgrade"
    host = page["url"].removeprefix("http://").rstrip("/")
    address = f"http://127.0.0.1:{host.rpartition(':')[2]}/config.json"
    config = requests.get(address, headers={"Host": host}, timeout=60).json()
    assert config["model_canister"] == other["canister_id"]
    icgpt("deploy", "--no-page", "--page-id", page["canister_id"], code=2)
    assert "--no-page" in icgpt.err


def test_the_whole_way(icgpt: Cli, tmp_path: Path) -> None:
    done = icgpt.json("deploy", "--wasm", str(WASM))
    assert done["created"]
    assert done["action"] == "install"
    assert done["made_public"]
    ids = json.loads((icgpt.folder / ".dfx/local/canister_ids.json").read_text())
    page = done["page"]
    assert ids == {
        "model": {"local": done["canister_id"]},
        "frontend": {"local": page["canister_id"]},
    }
    assert icgpt("deploy", "--wasm", str(WASM)) == done["canister_id"] + "\n"
    assert "Nothing to do" in icgpt.err
    assert f"The page: http://{page['canister_id']}.localhost:" in icgpt.err
    told = icgpt.json("deploy", "--wasm", str(WASM))["page"]
    assert (told["action"], told["url"]) == ("none", page["url"])

    assert "none; put one in" in icgpt("status")
    source = characters(tmp_path / "chars")
    sent = icgpt.json("upload", "model", str(source))
    assert sent["sent"] == sent["bytes"] == sum(p.stat().st_size for p in source.iterdir())
    assert "Nothing to do" in icgpt("upload", "model", str(source))
    assert icgpt.json("upload", "model", str(source), "--force")["changed"]

    status = icgpt.json("status")
    assert status["model"]["setup"] == "ready"
    assert status["model"]["source_sha256"] == sent["sha256"]
    assert status["access"]["public"]

    text = icgpt("generate", "ROMEO:", "-n", "30", "--seed", "3", "--stats")
    assert len(text) == 31
    assert icgpt.err.startswith("30 characters in ")
    assert icgpt.err.count("\n") == 1
    for more in (["--no-stream"], ["--no-stream", "--no-template"]):
        assert icgpt("generate", "ROMEO:", "-n", "30", "--seed", "3", *more) == text
    whole = icgpt.json("generate", "ROMEO:", "-n", "30", "--seed", "3")
    assert whole["text"] + "\n" == text
    assert whole["finish"] == "length"
    assert whole["seed"] == 3
    assert whole["stats"]["mainnet_cycles"] > whole["instructions"]

    odd = ["-n", "30", "-t", "1", "--seed", "3", "--no-repeat-ngram-size", "1", "--top-p", "0.9"]
    bans = icgpt.json("generate", "ROMEO:", *odd, "--logprobs", "2", "--echo")
    assert len(bans["token_ids"]) == len(set(bans["token_ids"])) + 1  # two O in the prompt
    assert bans["text"].startswith("ROMEO:")
    assert bans["stats"]["tokens"] == len(bans["logprobs"]) == len(bans["token_ids"]) - 6
    assert [len(one["top"]) for one in bans["logprobs"]] == [2] * len(bans["logprobs"])
    assert icgpt("generate", "ROMEO:", *odd, "--echo") == bans["text"] + "\n"
    end = text[9:11]
    stopped = icgpt.json("generate", "ROMEO:", "-n", "30", "--seed", "3", "--stop", end)
    assert (stopped["text"], stopped["finish"]) == (text[: text.index(end)], "stop")

    ids_of = icgpt("tokenize", "ROMEO:").split()
    assert icgpt("decode", *ids_of) == "ROMEO:\n"
    assert icgpt("infer", *ids_of, "-n", "30", "--seed", "3").split() == [
        str(one) for one in whole["token_ids"]
    ]
    assert icgpt.json("tokenize", "Hi")["token_ids"] == [ALPHABET.index(c) for c in "Hi"]
    assert icgpt("generate", "ROMEO:", "-c", done["canister_id"], "-t", "0").endswith("\n")


def test_a_gpt_j_by_token_ids(icgpt: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are those of transformers; so are the ids, in 32 bits and in 16."""
    source = GOLDEN / "gptj-whole-head"
    expected = json.loads((source / "expected.json").read_text())
    prompt = [str(one) for one in expected["prompt"]]
    greedy = [str(one) for one in expected["greedy"]]
    icgpt("deploy", "--wasm", str(WASM))
    for precision in ("f32", "int16"):
        sent = icgpt.json("upload", "model", str(source), "--precision", precision)
        assert icgpt.json("status")["model"]["layout_sha256"] == sent["layout_sha256"]
        status = icgpt("status")
        assert "gptj, " in status
        assert f" parameters in {precision}: 2 layers, 2 heads, 16 wide" in status
        assert icgpt("infer", *prompt, "-n", "8", "-t", "0").split() == greedy[:8]


def test_a_dry_run_sends_nothing(icgpt: Cli, tmp_path: Path) -> None:
    source = str(characters(tmp_path / "chars"))
    whole = icgpt.json("upload", "nowhere", source, "--dry-run")
    assert whole["bytes"] == sum(whole["files"].values())
    assert set(whole["files"]) == {"safetensors", "config", "tokenizer"}
    small = icgpt.json("upload", "nowhere", source, "--dry-run", "--precision", "int8")
    assert set(small["files"]) == {"packed", "config", "tokenizer"}
    assert small["cycles"] < whole["cycles"]
    said = icgpt("upload", "nowhere", source, "--dry-run", "--seed-flow")
    for word in ("bytes", "messages", "cycles", "USD", "local", "mainnet"):
        assert word in said


def test_stdin(deployed: Cli, tmp_path: Path) -> None:
    deployed("upload", "model", str(characters(tmp_path / "chars")))
    words = deployed("generate", "Now,", "--seed", "1")
    for arguments in (["-"], []):
        done = subprocess.run(
            [sys.executable, "-m", "icgpt", "generate", *arguments, "--seed", "1"],
            input="Now,\n",
            capture_output=True,
            text=True,
            check=True,
            env=os.environ,
        )
        assert done.stdout == words


def test_access(deployed: Cli) -> None:
    me = deployed.json("status")["identity"]
    assert deployed.json("access", "public", "off") == {
        "public": False,
        "managers": [me],
        "users": [],
    }
    assert deployed("access", "add", "2vxsx-fae") == (
        f"public    off\nmanager   {me}\nuser      2vxsx-fae\n"
    )
    other = "rwlgt-iiaaa-aaaaa-aaaaa-cai"
    assert other in deployed.json("access", "add", other, "--role", "manager")["managers"]
    deployed("access", "remove", other, "--role", "manager")
    assert deployed.json("access", "remove", "2vxsx-fae")["users"] == []
    deployed("access", "public", "on", "--identity", "anonymous", code=4)
    assert "2vxsx-fae" in deployed.err
    assert "ic0.trap" not in deployed.err
    deployed("generate", "x", "--identity", "anonymous", code=4)
    deployed("access", "list", "--identity", "anonymous")


def test_quotas(deployed: Cli) -> None:
    before = deployed.json("access", "quotas")
    assert before["usage"]["role"] == "manager"
    changed = deployed.json("access", "quotas", "--user-tokens", "50", "--public-tokens", "none")
    assert changed == {**before, "user_tokens_per_day": 50, "public_tokens_per_day": None}
    assert "user_tokens_per_day" in deployed("access", "quotas", "--queue", "9")
    assert deployed.json("access", "quotas")["queue"] == 9
    deployed("access", "quotas", "--queue", "9", "--identity", "anonymous", code=4)
    assert "ic0.trap" not in deployed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", ""],
        ["generate", "\u00e9"],
        ["generate", "a", "-t", "nan"],
        ["generate", "a", "-t", "-1"],
        ["infer", "9999"],
        ["infer", *["1"] * 17, "--json"],
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_requests_that_the_canister_refuses(
    deployed: Cli, tmp_path: Path, arguments: list[str]
) -> None:
    source = characters(tmp_path / "chars")
    if arguments[0] == "infer":
        changed = json.loads((source / "config.json").read_text())
        del changed["icgpt"]
        (source / "config.json").write_text(json.dumps(changed))
    deployed("upload", "model", str(source))
    assert "Traceback" not in deployed(*arguments, code=4)
    assert deployed.err.startswith("Error: ")


def test_no_model_yet(deployed: Cli) -> None:
    for arguments in (["generate", "x"], ["infer", "1"], ["tokenize", "x"], ["decode", "1"]):
        assert deployed(*arguments, code=4) == ""


def test_a_model_without_a_tokenizer(deployed: Cli, tiny: Path) -> None:
    deployed("upload", "model", str(tiny))
    assert len(deployed("infer", "1", "2", "-n", "3").split()) == 3
    deployed("generate", "x", code=4)
    assert "token ids only" in deployed("status")


def test_unknown_canisters(icgpt: Cli) -> None:
    icgpt("generate", "x", code=2)
    assert "icgpt deploy" in icgpt.err
    icgpt("generate", "x", "-c", "rrkah-fqaaa-aaaaa-aaaaq-cai", code=4)
    icgpt("upload", "rrkah-fqaaa-aaaaa-aaaaq-cai", "shakespeare-char", code=4)
    assert "icgpt deploy" in icgpt.err


def test_modes_of_deployment(deployed: Cli, tiny: Path) -> None:
    deployed("deploy", "--wasm", str(WASM), "--mode", "install", code=2)
    deployed("upload", "model", str(tiny))
    assert deployed.json("deploy", "--wasm", str(WASM), "--mode", "upgrade")["action"] == "upgrade"
    assert deployed.json("status")["model"]["setup"] == "ready"
    anew = ("deploy", "--wasm", str(WASM), "--mode", "reinstall")
    deployed(*anew, code=2)
    assert "Drop the model, the jobs and the lists of users in model, on 'local'?" in deployed.err
    assert deployed.json("status")["model"]["setup"] == "ready"
    assert not deployed.json(*anew, "--yes")["created"]
    assert deployed.json("status")["model"]["setup"] == "empty"


def test_a_canister_that_the_network_has_forgotten(icgpt: Cli) -> None:
    ids = icgpt.folder / ".dfx/local/canister_ids.json"
    ids.parent.mkdir(parents=True)
    ids.write_text(json.dumps({"model": {"local": "rrkah-fqaaa-aaaaa-aaaaq-cai"}}))
    done = icgpt.json("deploy", "--wasm", str(WASM))
    assert done["created"]
    assert json.loads(ids.read_text())["model"]["local"] == done["canister_id"]


def test_another_address_of_the_same_network(deployed: Cli, local: NetworkInfo) -> None:
    canister = deployed.json("status")["canister_id"]
    status = deployed.json("status", "--network", local.url, "-c", canister)
    assert status["network"] == local.url
    assert local.root_key.hex() in connect.pins_path().read_text()
    assert deployed("network", "trust", local.url) == local.root_key.hex() + "\n"
    assert deployed.json("network", "status")["url"] == local.url
