"""What the model's canister answers over HTTP: its document, its health, its figures.

Asked through the local network's gateway, which refuses what is not certified.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import Get, Meddler, asked, getter, swapped
from model_kit import MakeCanister, target, tiny_config, upgrade, with_model, write_model

from icgpt.agent import Agent
from icgpt.candid import PRINCIPAL, Record, encode
from icgpt.client import ModelCanister
from icgpt.connect import connect
from icgpt.errors import RefusedError
from icgpt.identity import anonymous
from icgpt.network import NetworkInfo
from icgpt.principal import MANAGEMENT, to_text
from icgpt.replica.gateway import REQUEST, GatewayError

FLOOR = 10**18
ID = Record({"canister_id": PRINCIPAL})
PATHS = ("/model.json", "/health", "/metrics", "/nothing")
LINE = re.compile(r"icgpt_(\w+)(\{\w+=\"[^\"]*\"(?:,\w+=\"[^\"]*\")*\})? (\d+)")
# What everyone can learn from the canister's other methods.
PUBLIC = {"info", "ready", "setting_up", "public"}


@pytest.fixture(scope="module")
def page(local: NetworkInfo, shakespeare: ModelCanister) -> Get:
    return getter(local, shakespeare.id)


@pytest.fixture(scope="module")
def changing(new_canister: MakeCanister) -> ModelCanister:
    """A canister for the tests below that change it; each leaves it as it was."""
    canister = new_canister()
    canister.set_public(True)
    return with_model(canister, "shakespeare-char")


@pytest.fixture
def get(local: NetworkInfo, changing: ModelCanister) -> Get:
    return getter(local, changing.id)


def figures(text: str) -> dict[str, int]:
    """Prometheus' text as what it says; every line of it has to be in the format."""
    found: dict[str, int] = {}
    described: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# "):
            described.add(line.split()[2])
            continue
        match = LINE.fullmatch(line)
        assert match, line
        assert f"icgpt_{match[1]}" in described
        found[match[1] + (match[2] or "")] = int(match[3])
    assert text.endswith("\n")
    return found


def names(text: str) -> set[str]:
    return {name.partition("{")[0] for name in figures(text)}


def direct(canister: ModelCanister, path: str, method: str = "GET", **headers: str) -> Any:
    """The canister's own answer, with this identity and no gateway."""
    return canister.call("http_request", asked(path, method, **headers))


def test_the_document_tells_what_model_info_tells(page: Get, shakespeare: ModelCanister) -> None:
    answer = page("/model.json")
    assert answer.status_code == 200
    told, info = answer.json(), shakespeare.call("model_info")
    assert told.pop("canister") == to_text(shakespeare.id)
    assert told.pop("public") is shakespeare.access().public
    assert (told.pop("ready"), info.pop("setup")) == (True, {"ready": None})
    assert told == hexed(info)


def hexed(value: Any) -> Any:
    """A value as the document has it: digests in hexadecimal."""
    if isinstance(value, dict):
        return {name: hexed(part) for name, part in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def test_what_readers_are_told_of_the_answer(page: Get) -> None:
    answer = page("/model.json")
    etag = f'"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["ETag"] == etag
    again = page("/model.json", If_None_Match=etag)
    assert (again.status_code, again.content) == (304, b"")
    assert page("/model.json", If_None_Match='"of another model"').content == answer.content
    for path in PATHS:
        headers = page(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Access-Control-Allow-Origin"] == "*", path
    for path in ("/health", "/metrics"):
        assert page(path).headers["Cache-Control"] == "no-store"
    assert page("/metrics").headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_health(page: Get, shakespeare: ModelCanister) -> None:
    answer = page("/health")
    assert answer.status_code == 200
    name = shakespeare.info().layout_sha256
    assert name is not None
    assert answer.json() == {"status": "ok", "reason": None, "model": name.hex()}


@pytest.mark.parametrize("path", PATHS)
def test_methods(page: Get, path: str) -> None:
    whole, head = page(path), page(path, "HEAD")
    assert (head.status_code, head.content) == (whole.status_code, b"")
    # The gateway answers some methods itself, so these reach the canister.
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = page(path, method)
        if path == "/nothing":
            assert answer.status_code == 404
        else:
            assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/model.json?x=1", 200),
        ("/model%2Ejson", 200),
        ("/", 404),
        ("/model.json/", 404),
        ("/model.json/x", 404),
        ("/health/", 404),
        ("/health/../model.json", 404),
        ("/Model.json", 404),
        ("/a%20b", 404),
        ("/%zz", 404),
        ("/" + "a" * 6_000, 404),
        ("/a" * 50, 404),
        ("/metrics%00", 404),
        ("/h%C3%A9", 404),
    ],
)
def test_paths(
    local: NetworkInfo, agent: Agent, shakespeare: ModelCanister, path: str, status: int
) -> None:
    # Not by `requests`, which would tidy the path.
    assert Meddler(agent, local).get(shakespeare.id, path).status == status


@pytest.mark.parametrize("url", ["", "?", "model.json", "/%ff", "\x00", "/" + "a/" * 900_000, "é"])
@pytest.mark.parametrize("method", ["GET", "", "G E T\n", "x" * 1000])
def test_no_request_is_a_trap(shakespeare: ModelCanister, url: str, method: str) -> None:
    answer = direct(shakespeare, url, method, **{"": "", "x" * 1000: "\x00"})
    assert answer["status_code"] in (200, 404, 405)
    assert any(pair[0] == "IC-Certificate" for pair in answer["headers"])


def test_what_was_changed_on_the_way_is_refused(
    agent: Agent, local: NetworkInfo, shakespeare: ModelCanister
) -> None:
    between = Meddler(agent, local)
    assert between.get(shakespeare.id, "/model.json").status == 200
    for path, old, new in (
        ("/model.json", b'"n_layer": ', b'"n_layer":1'),
        ("/model.json", b"no-cache", b"no-store"),
        ("/model.json", b"version=2", b"version=1"),
        ("/nothing", b"Here are", b"Here was"),
        ("/health", b"tree=:2dn3", b"tree=:2dn4"),
    ):
        between.change = swapped(old, new)
        with pytest.raises(GatewayError) as refused:
            between.get(shakespeare.id, path)
        assert refused.value.status == 503, (path, old)


def test_only_two_paths_are_left_open(
    agent: Agent, local: NetworkInfo, shakespeare: ModelCanister
) -> None:
    """Their bodies may have been changed on the way; those of no other path can claim the same."""
    between = Meddler(agent, local)
    between.change = swapped(b'"status":"ok"', b'"status":"KO"')
    assert json.loads(between.get(shakespeare.id, "/health").body)["status"] == "KO"
    arguments = encode([REQUEST], [asked("/health")])
    reply = agent.query(shakespeare.id, "http_request", arguments)
    between.change = lambda _: reply
    for path in ("/model.json", "/nothing", "/metrics", "/"):
        with pytest.raises(GatewayError, match="another path"):
            between.get(shakespeare.id, path)


def test_before_a_model(canister: ModelCanister, local: NetworkInfo) -> None:
    get = getter(local, canister.id)
    told = get("/model.json").json()
    assert (told["ready"], told["architecture"], told["layout_sha256"]) == (False, None, None)
    assert get("/nothing").status_code == 404
    health = get("/health")
    assert health.status_code == 503
    assert health.json()["model"] is None
    assert "no model" in health.json()["reason"]
    assert figures(canister.metrics())["ready"] == 0


def test_figures_grow_with_what_is_done(changing: ModelCanister, get: Get) -> None:
    before = figures(get("/metrics").text)
    done = changing.complete("ROMEO:", max_new_tokens=5, temperature=0, seed=1)
    changing.complete("ROMEO:", max_new_tokens=3, temperature=0, begun=done.token_ids[:2])
    now = figures(get("/metrics").text)
    grown = {name: now[name] - before[name] for name in now}
    assert grown['jobs_total{finish="length"}'] == 2
    assert grown['tokens_total{kind="prompt"}'] == 12
    assert grown['tokens_total{kind="completion"}'] == 5 + 1
    assert grown["instructions_total"] > done.instructions
    assert grown["jobs_kept"] == 2
    assert (now["jobs_running"], now["jobs_waiting"]) == (0, 0)
    assert now["cycles"] < before["cycles"]
    assert now["weights_bytes"] < now["heap_bytes"]
    assert now["stable_bytes"] > 0
    assert now["cycles_floor"] == changing.quotas().cycles_floor


def test_work_that_is_refused_is_counted_and_ill_health(
    changing: ModelCanister, get: Get
) -> None:
    before = figures(get("/metrics").text)["jobs_refused_total"]
    quotas = changing.quotas()
    changing.set_quotas(replace(quotas, cycles_floor=FLOOR))
    try:
        with pytest.raises(RefusedError, match="cycles"):
            changing.complete("ROMEO:", max_new_tokens=1)
        health = get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "unavailable")
        assert "cycles" in health.json()["reason"]
    finally:
        changing.set_quotas(quotas)
    assert get("/health").status_code == 200
    assert figures(get("/metrics").text)["jobs_refused_total"] == before + 1


def test_strangers_learn_nothing_new_of_a_private_canister(
    changing: ModelCanister, get: Get, local: NetworkInfo
) -> None:
    quotas = changing.quotas()
    everyone = ModelCanister(connect(target(local), anonymous()), changing.id)
    assert names(get("/metrics").text) > PUBLIC
    changing.set_public(False)
    try:
        assert get("/model.json").json()["public"] is False
        assert names(get("/metrics").text) == names(everyone.metrics()) == PUBLIC
        assert names(changing.metrics()) > PUBLIC
        changing.set_quotas(replace(quotas, cycles_floor=FLOOR))
        assert get("/health").status_code == 200  # a model answers; more is not told
        assert direct(changing, "/health")["status_code"] == 503
    finally:
        changing.set_quotas(quotas)
        changing.set_public(True)
    assert get("/model.json").json()["public"] is True


def test_settings_are_certified_at_once(changing: ModelCanister, get: Get) -> None:
    before = get("/model.json")
    changing.set_precision("int16")
    assert get("/model.json").json()["next_precision"] == "int16"
    changing.call("set_per_message", 10_000_000_000)
    assert get("/model.json").json()["per_message"] == 10_000_000_000
    changing.set_precision(None)
    changing.call("set_per_message", before.json()["per_message"])
    assert get("/model.json").content == before.content


def test_after_an_upgrade(changing: ModelCanister, get: Get, wasm: bytes, tmp_path: Path) -> None:
    changing.complete("ROMEO:", max_new_tokens=2, temperature=0)
    document = get("/model.json").content
    upgrade(changing, wasm, tmp_path)
    assert get("/model.json").content == document
    assert get("/health").status_code == 200
    now = figures(get("/metrics").text)
    assert now['jobs_total{finish="length"}'] == 0
    assert now["jobs_kept"] > 0
    assert get("/nothing").status_code == 404


def test_another_model(canister: ModelCanister, local: NetworkInfo, tmp_path: Path) -> None:
    get = getter(local, canister.id)
    with_model(canister, write_model(tmp_path / "one", tiny_config()))
    first = get("/model.json").json()
    assert first["architecture"]["n_ctx"] == 16
    with_model(canister, write_model(tmp_path / "other", tiny_config(n_positions=32)))
    second = get("/model.json").json()
    assert (second["architecture"]["n_ctx"], second["precision"]) == (32, "f32")
    canister.set_precision("int8")
    canister.setup_model()
    third = get("/model.json").json()
    assert (third["precision"], third["next_precision"]) == ("int8", None)
    assert third["source_sha256"] == second["source_sha256"] != first["source_sha256"]
    assert len({one["layout_sha256"] for one in (first, second, third)}) == 3
    assert get("/health").json()["model"] == third["layout_sha256"]
    job = canister.complete([1], max_new_tokens=1, temperature=0).job
    assert job is not None
    assert canister.receipt(job).model.hex() == third["layout_sha256"]


def test_a_stopped_canister(changing: ModelCanister, get: Get) -> None:
    def manage(method: str) -> None:
        arguments = encode([ID], [{"canister_id": changing.id}])
        changing.agent.update(MANAGEMENT, method, arguments, changing.id)

    manage("stop_canister")
    try:
        for path in PATHS:
            answer = get(path)
            assert answer.status_code >= 500, path
            assert "stopped" in answer.text
    finally:
        manage("start_canister")
    assert get("/health").status_code == 200
