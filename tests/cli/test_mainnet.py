"""`--network ic`: the same code under another root key. Who calls must be said, and cost is asked.

A local network stands in for mainnet: its address and its root key take the place of mainnet's, and
nothing else differs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_kit import WASM, Cli, characters, typed
from model_kit import new_identity

from icgpt import connect, deploy, trust
from icgpt.agent import Agent
from icgpt.certificate import MAINNET_ROOT_KEY
from icgpt.cli import common
from icgpt.connect import Network
from icgpt.identity import Identity, from_file
from icgpt.network import NetworkInfo
from icgpt.principal import to_text

EMPTY = b"\x00asm\x01\x00\x00\x00"


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    new_identity(tmp_path / "me.pem")
    return tmp_path / "me.pem"


@pytest.fixture
def canister(local: NetworkInfo, pem: Path) -> bytes:
    """An empty canister of that key, made while the network was known as a local one."""
    return empty(local, pem)


@pytest.fixture
def another(local: NetworkInfo, pem: Path) -> bytes:
    """One more; to be asked for before `ic`."""
    return empty(local, pem)


def empty(local: NetworkInfo, pem: Path) -> bytes:
    network = Network("local", local.url, local.root_key, local.default_effective_canister_id)
    with connect.connect(network, from_file(pem)) as agent:
        return deploy._create(agent, network, lambda text: None)


@pytest.fixture
def ic(icgpt: Cli, local: NetworkInfo, canister: bytes, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line, for which the local network is mainnet."""
    monkeypatch.setattr(connect, "MAINNET_URL", local.url)
    for room in (connect, trust):
        monkeypatch.setattr(room, "MAINNET_ROOT_KEY", local.root_key)
    return icgpt


def test_everything_works_as_on_a_local_network(
    ic: Cli, pem: Path, canister: bytes, tmp_path: Path
) -> None:
    on_ic = ("--network", "ic", "--identity", str(pem))
    done = ic.json(
        "deploy", "--canister-id", to_text(canister), "--wasm", str(WASM), "--yes", *on_ic
    )
    assert (done["action"], done["created"], done["made_public"]) == ("install", False, False)
    assert "USD" in ic.err
    assert (ic.folder / "canister_ids.json").is_file()
    assert done["page"] is None
    assert "--page-id" in ic.err
    # Nothing to do costs nothing, and nobody is asked.
    assert ic.json("deploy", "--wasm", str(WASM), *on_ic)["action"] == "none"
    assert "USD" not in ic.err
    upload = ("upload", "model", str(characters(tmp_path / "m")), *on_ic)
    ic(*upload, "--yes")
    assert "The upload costs up to" in ic.err
    assert "Nothing to do" in ic(*upload)
    assert "USD" not in ic.err
    text = ic("generate", "HELLO", "-n", "5", "--seed", "1", *on_ic)
    assert "An answer of 5 tokens costs about" in ic.err
    ic("infer", "1", "-n", "2", *on_ic)
    assert "An answer of 2 tokens costs about" in ic.err
    assert len(text.removesuffix("\n")) == 5
    assert "users and managers only" in ic("status", *on_ic)
    ic("generate", "A", "--network", "ic", "--identity", "anonymous", code=4)
    assert "costs" not in ic.err
    assert "icgpt access add PRINCIPAL" in ic.err
    ic("generate", "A", "-n", "5", "--receipt", "a.json", *on_ic)
    assert ic.json("verify", "a.json")["network"] == "ic"
    ic("verify", "a.json", "--replay", *on_ic)
    ic("verify", "a.json", "--replay", code=2)


def test_a_fleet_is_made_of_canisters_that_were_created(
    another: bytes, ic: Cli, pem: Path, canister: bytes
) -> None:
    on_ic = ("--network", "ic", "--identity", str(pem), "--wasm", str(WASM), "--yes")
    ic("deploy", "--canister-id", to_text(canister), *on_ic)
    ic("deploy", "--replicas", "2", *on_ic, code=2)
    assert "--canister model-2 --canister-id ID" in ic.err
    other = to_text(another)
    ic("deploy", "--canister", "model-2", "--canister-id", other, *on_ic)
    ids = ic("deploy", "--replicas", "2", *on_ic).split()
    assert ids == [to_text(canister), other]


def test_the_page_has_a_canister_of_its_own(
    another: bytes, ic: Cli, pem: Path, canister: bytes
) -> None:
    on_ic = ("--network", "ic", "--identity", str(pem), "--wasm", str(WASM))
    ids = ("--canister-id", to_text(canister), "--page-id", to_text(another))
    page = ic.json("deploy", *ids, "--yes", *on_ic)["page"]
    assert page["url"] == f"https://{to_text(another)}.icp0.io/"
    assert "Installing the page costs up to" in ic.err
    assert ic.json("deploy", *on_ic)["page"]["action"] == "none"


@pytest.mark.parametrize("said", ["n\n", ""])
def test_nothing_is_spent_without_a_yes(
    said: str,
    ic: Cli,
    pem: Path,
    canister: bytes,
    local: NetworkInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed(monkeypatch, said)
    arguments = ["deploy", "--canister-id", to_text(canister), "--wasm", str(WASM)]
    arguments += ["--network", "ic", "--identity", str(pem)]
    ic(*arguments, code=1)
    assert "cycles (0.0" in ic.err
    ic(*arguments, "--json", code=2)
    monkeypatch.setattr(common, "can_ask", lambda: False)
    ic(*arguments, code=2)
    assert "Nobody is here to be asked" in ic.err
    with Agent(local.url, local.root_key) as agent:
        assert agent.module_hash(canister) is None


def test_an_upload_asks_first(
    ic: Cli, pem: Path, canister: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_ic = ["--network", "ic", "--identity", str(pem)]
    ic("deploy", "--canister-id", to_text(canister), "--wasm", str(WASM), "--yes", *on_ic)
    typed(monkeypatch, "n\n")
    ic("upload", "model", "shakespeare-char", *on_ic, code=1)
    assert "nothing was spent" in ic.err
    status = ic.json("status", *on_ic)
    assert not any(state["staged"] for state in status["files"].values())


@pytest.mark.parametrize(
    "command",
    [
        ["deploy", "--wasm", str(WASM)],
        ["upload", "model", "shakespeare-char"],
        ["generate", "x"],
        ["status"],
    ],
)
def test_who_calls_must_be_said(command: list[str], ic: Cli) -> None:
    ic(*command, "--network", "ic", code=2)
    assert "--identity PEM" in ic.err
    assert not list(ic.folder.parent.glob("config/*.pem")), "a key was made for nothing"


def test_the_recorded_key_refuses_what_another_network_says(
    icgpt: Cli, local: NetworkInfo, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "MAINNET_URL", local.url)
    assert connect.resolve("ic").root_key == MAINNET_ROOT_KEY
    icgpt(
        "status", "-c", to_text(b"\x01" * 10), "--network", "ic", "--identity", "anonymous", code=5
    )


def test_what_an_installation_costs() -> None:
    module = WASM.read_bytes()
    assert 5e9 < deploy.installation_cycles(module) < 100e9
    assert deploy.installation_cycles(EMPTY) == 5_000_000 + 1_200_000 + 2_000 * 358 + 6_000 * 8
