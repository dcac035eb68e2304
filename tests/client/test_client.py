"""ModelCanister against the model in the box: every method, and what it refuses."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from fake_network import FakeNetwork
from model_kit import target

from icgpt import AsyncModelCanister, ModelCanister, connect
from icgpt.agent import Agent
from icgpt.errors import CanisterError, IcgptError, RefusedError, RejectedError, UsageError
from icgpt.identity import Identity, anonymous
from icgpt.network import NetworkInfo
from icgpt.principal import to_text

PROMPT = "ROMEO:\n"


def test_pieces_make_the_same_text_as_one_call(shakespeare: ModelCanister) -> None:
    whole = shakespeare.complete(PROMPT, max_new_tokens=120, temperature=0.8, seed=5)
    assert whole.finish == "length"
    assert len(whole.token_ids) == len(whole.text or "") == 120
    assert (whole.seed, whole.prompt_tokens) == (5, len(PROMPT))
    assert whole.instructions > 0
    stream = shakespeare.stream(PROMPT, max_new_tokens=120, temperature=0.8, seed=5)
    pieces = list(stream)
    assert "".join(piece.text or "" for piece in pieces) == whole.text
    assert stream.completion.token_ids == whole.token_ids
    assert stream.completion.finish == "length"
    assert list(stream) == []


def test_a_seed_is_drawn_and_can_be_used_again(shakespeare: ModelCanister) -> None:
    first = shakespeare.complete(PROMPT, max_new_tokens=40)
    again = shakespeare.complete(PROMPT, max_new_tokens=40, seed=first.seed)
    assert again.text == first.text
    assert shakespeare.complete(PROMPT, max_new_tokens=40).seed != first.seed


def test_the_seeds_methods(shakespeare: ModelCanister) -> None:
    text = shakespeare.generate(PROMPT, 12, 0.0)
    ids = shakespeare.tokenize(PROMPT).token_ids
    assert shakespeare.decode(shakespeare.infer(ids, 12, 0.0)) == text
    assert shakespeare.complete(ids, max_new_tokens=12, temperature=0.0).text == text
    assert shakespeare.decode(ids) == PROMPT
    assert shakespeare.decode_each(ids) == list(PROMPT)


def test_logits_and_scores_agree(shakespeare: ModelCanister) -> None:
    ids = shakespeare.tokenize(PROMPT).token_ids
    (following,) = shakespeare.infer(ids, 1, 0.0)
    logits = shakespeare.logits(ids)
    assert len(logits) == 65
    assert logits.index(max(logits)) == following
    total = math.log(sum(math.exp(one) for one in logits))
    (score,) = shakespeare.score(ids, [following])
    assert score == pytest.approx(logits[following] - total, abs=1e-4)
    assert len(shakespeare.score(ids[:2], ids[2:])) == len(ids) - 2


def test_a_job_can_be_cancelled(shakespeare: ModelCanister) -> None:
    job = shakespeare.submit(PROMPT, max_new_tokens=5000)
    shakespeare.cancel(job)
    while (state := shakespeare.poll(job)).finish is None:
        pass
    assert state.finish == "cancelled"
    assert len(state.token_ids) < 5000
    with pytest.raises(CanisterError):
        shakespeare.poll(b"\x00" * 32)


def test_a_job_is_its_owners(shakespeare: ModelCanister, local: NetworkInfo) -> None:
    job = shakespeare.submit(PROMPT, max_new_tokens=5)
    with connect.connect(target(local), anonymous()) as stranger, pytest.raises(CanisterError):
        ModelCanister(stranger, shakespeare.id).poll(job)


def test_the_model_and_its_files(shakespeare: ModelCanister) -> None:
    info = shakespeare.info()
    assert info.ready
    assert info.tokenizer
    assert info.context == "slide"
    assert info.template is None
    assert info.architecture is not None
    assert info.architecture.vocab_size == 65
    files = shakespeare.files()
    packed = files.pop("packed").live
    assert packed is not None
    assert packed.sha256 == info.layout_sha256
    assert {name: one.live.sha256 for name, one in files.items() if one.live} == info.source_sha256
    for name, one in files.items():
        assert one.live is not None
        assert shakespeare.length(name) == one.live.length
    assert info.to_json()["source_sha256"]["config"] == files["config"].live.sha256.hex()


def test_access(canister: ModelCanister, identity: Identity) -> None:
    who = b"\x01\x02\x03"
    assert canister.is_manager(identity.principal)
    canister.add_user(who)
    canister.add_authorized_principal(who)
    access = canister.access()
    assert access.users == [who]
    assert set(access.managers) == {identity.principal, who}
    canister.remove_user(who)
    canister.remove_manager(who)
    assert not canister.is_manager(who)
    assert canister.access().users == []


def test_a_guarded_method_refuses_strangers_in_its_own_words(
    canister: ModelCanister, local: NetworkInfo
) -> None:
    with connect.connect(target(local), anonymous()) as agent:
        stranger = ModelCanister(agent, canister.id)
        for call in (
            lambda: stranger.append("config", b"{}"),
            lambda: stranger.set_public(True),
            lambda: stranger.setup_model(),
        ):
            with pytest.raises(RejectedError, match=r"^2vxsx-fae is not a manager"):
                call()
        canister.set_public(False)
        with pytest.raises(RefusedError, match="2vxsx-fae"):
            stranger.complete("x")
    assert canister.files()["config"].staged is None


def test_calls_that_make_no_sense(shakespeare: ModelCanister) -> None:
    for call in (
        lambda: shakespeare.complete(PROMPT, beams=3),
        lambda: shakespeare.complete([-1]),
        lambda: shakespeare.complete(PROMPT, seed=2**64),
        lambda: shakespeare.complete(PROMPT, temperature="warm"),
        lambda: shakespeare.generate(PROMPT, 256),
        lambda: shakespeare.infer([2**32]),
        lambda: shakespeare.append("weights", b""),
        lambda: ModelCanister(shakespeare.agent, "not-an-id"),
    ):
        with pytest.raises(UsageError):
            call()


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 0}, {"temperature": math.nan}, {"top_k": 0}, {"context": "x"}]
)
def test_options_that_the_canister_refuses(
    shakespeare: ModelCanister, options: dict[str, object]
) -> None:
    with pytest.raises(CanisterError):
        shakespeare.complete(PROMPT, **options)


def test_an_answer_of_another_version(local: NetworkInfo) -> None:
    from fake_network import CANISTER, ROOT

    with (
        FakeNetwork(lambda method, arg: b"DIDL\x00\x01\x7e\x01") as fake,
        Agent(fake.url, ROOT.key) as agent,
        pytest.raises(IcgptError, match="different versions"),
    ):
        ModelCanister(agent, CANISTER).info()


def test_connecting_by_name(
    shakespeare: ModelCanister,
    local: NetworkInfo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ICGPT_STATE_DIR", str(local.state_dir))
    monkeypatch.setenv("ICGPT_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("ICGPT_NETWORK", raising=False)
    with ModelCanister.connect(to_text(shakespeare.id), identity="anonymous") as model:
        assert model.info().ready


def test_awaited_it_is_the_same(
    shakespeare: ModelCanister, local: NetworkInfo, identity: Identity
) -> None:
    options = {"max_new_tokens": 40, "temperature": 0.8, "seed": 5}
    whole = shakespeare.complete(PROMPT, **options)

    async def ask() -> list[str | None]:
        async with connect.connect_async(target(local), identity) as agent:
            model = AsyncModelCanister(agent, shakespeare.id)
            done, by_query = await asyncio.gather(
                model.complete(PROMPT, **options), model.complete_query(PROMPT, **options)
            )
            stream = await model.stream(PROMPT, **options)
            pieces = [piece.text or "" async for piece in stream]
            assert stream.completion.finish == "length"
            endless = await model.stream(PROMPT, max_new_tokens=5000)
            await endless.cancel()
            assert [piece async for piece in endless][-1].finish == "cancelled"
            with pytest.raises(CanisterError):
                await model.poll(b"\x00" * 32)
            with pytest.raises(UsageError):
                await model.complete(PROMPT, heat=1)
            return [done.text, by_query.text, "".join(pieces)]

    assert asyncio.run(ask()) == [whole.text] * 3
