"""The seed's flow, call by call, with a client that we did not write: stock ic-py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ic.agent import Agent
from ic.canister import Canister
from ic.client import Client
from model_kit import GOLDEN, ROOT, MakeCanister, tiny_config, tiny_tensors, write_model
from tokenizers import Tokenizer, decoders, models

from icgpt.identity import Identity
from icgpt.network import NetworkInfo
from icgpt.principal import to_text

SEED_DID = (ROOT / "tests" / "canister" / "seed.did").read_text()


@pytest.fixture
def seed_client(local: NetworkInfo, identity: Identity, new_canister: MakeCanister) -> Canister:
    agent = Agent(identity.to_ic_py(), Client(local.url))
    return Canister(agent, to_text(new_canister().id), SEED_DID)


def character_tokenizer(characters: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def value(results: Any) -> Any:
    """ic-py wraps a result in a list, and newer versions in a type and value."""
    (one,) = results
    return one["value"] if isinstance(one, dict) and "type" in one else one


def test_upload_set_up_and_generate(seed_client: Canister, tmp_path: Path) -> None:
    folder = write_model(
        tmp_path / "m", tiny_config(vocab_size=8), tiny_tensors(tiny_config(vocab_size=8))
    )
    tokenizer = character_tokenizer(" abcdefg")
    tokenizer.save(str(folder / "tokenizer.json"))
    client = seed_client

    weights = (folder / "model.safetensors").read_bytes()
    client.append_safetensors_bytes(list(weights[:5000]))
    assert value(client.safetensors_bytes_length()) == 5000
    client.append_safetensors_bytes(list(weights[5000:]))
    assert value(client.safetensors_bytes_length()) == len(weights)
    client.store_safetensors_bytes_to_stable()
    client.load_safetensors_bytes_from_stable()
    client.append_config_bytes(list((folder / "config.json").read_bytes()))
    assert "Ok" in value(client.setup_model())
    client.append_tokenizer_bytes(list((folder / "tokenizer.json").read_bytes()))
    client.store_tokenizer_bytes_to_stable()
    client.load_tokenizer_bytes_from_stable()
    assert value(client.setup_tokenizer()) == []

    encoding = value(client.tokenize("fade bag"))["Ok"]
    assert encoding["token_ids"] == tokenizer.encode("fade bag").ids
    assert value(client.decode(encoding["token_ids"])) == {"Ok": list("fade bag")}
    assert value(client.decode_batch(encoding["token_ids"])) == {"Ok": "fade bag"}

    record = value(client.inference([1, 2], 3, 0.0))["Ok"]
    ids = record["result"]["Ok"]
    assert len(ids) == 3
    assert value(client.generate("ab", 3, 0.0)) == {"Ok": tokenizer.decode(ids)}

    for clear in ("safetensors", "config", "tokenizer"):
        getattr(client, f"clear_{clear}_bytes")()
        assert value(getattr(client, f"{clear}_bytes_length")()) == 0
    # What was being uploaded is gone; the model that was set up goes on.
    assert value(client.generate("ab", 3, 0.0)) == {"Ok": tokenizer.decode(ids)}


def test_refusals_of_the_seed(seed_client: Canister) -> None:
    assert "no model" in value(seed_client.inference([1], 1, 0.2))["Err"]
    assert "100 tokens" in value(seed_client.generate("x", 101, 0.2))["Err"]
    for temperature in (-0.1, 2.1):
        assert "between 0 and 2" in value(seed_client.generate("x", 1, temperature))["Err"]


def test_authorized_principals(seed_client: Canister) -> None:
    friend = to_text(b"friend")
    assert value(seed_client.is_principal_authorized(friend)) is False
    seed_client.add_authorized_principal(friend)
    assert value(seed_client.is_principal_authorized(friend)) is True


def test_inference_of_a_golden_model(seed_client: Canister) -> None:
    folder = GOLDEN / "three-tokens"
    expected = json.loads((folder / "expected.json").read_text())
    seed_client.append_safetensors_bytes(list((folder / "model.safetensors").read_bytes()))
    seed_client.store_safetensors_bytes_to_stable()
    seed_client.append_config_bytes(list((folder / "config.json").read_bytes()))
    assert "Ok" in value(seed_client.setup_model())
    record = value(seed_client.inference(expected["prompt"], 10, 0.0))["Ok"]
    assert record["result"]["Ok"] == expected["greedy"][:10]
