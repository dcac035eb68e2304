"""Receipts that are kept: what they prove, and that nothing else passes for one."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from fake_network import CANISTER, ROOT, SUBNET, delegate, leb, tree
from model_kit import MakeCanister, tiny_config, upgrade, with_model, write_model

from icgpt import candid, kept_receipt
from icgpt.agent import AsyncAgent
from icgpt.candid import BLOB, NAT32
from icgpt.certificate import MAINNET_ROOT_KEY, root_hash
from icgpt.checkpoint import open_checkpoint
from icgpt.client import AsyncModelCanister, ModelCanister
from icgpt.errors import CanisterError, UsageError, VerificationError
from icgpt.evidence import CallEvidence
from icgpt.interface import METHODS, OPTION_TYPES, OPTIONS, PROMPT, RECEIPT
from icgpt.kept_receipt import KeptReceipt, Proven
from icgpt.replaying import replay_locally
from icgpt.request_id import hash_of_map

OPTIONS_ASKED = {"max_new_tokens": 12, "temperature": 0.8, "seed": 3, "stop": ["KING"]}


@pytest.fixture(scope="module")
def demo(new_canister: MakeCanister) -> ModelCanister:
    return with_model(new_canister(), "shakespeare-char")


@pytest.fixture(scope="module")
def kept(demo: ModelCanister) -> KeptReceipt:
    return demo.keep(demo.ask("ROMEO:", **OPTIONS_ASKED))


@pytest.fixture(scope="module")
def written(
    kept: KeptReceipt, demo: ModelCanister, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("receipt") / "romeo.json"
    kept.write(path, demo.agent.root_key)
    return path


# --- On a real network


def test_a_receipt_shows_what_the_canister_wrote(
    written: Path, demo: ModelCanister, wasm: bytes
) -> None:
    proven = kept_receipt.read(written).verify(demo.agent.root_key)
    done = demo.complete("ROMEO:", **OPTIONS_ASKED)
    assert (proven.text, proven.token_ids) == (done.text, done.token_ids)
    assert (proven.prompt, proven.finish, proven.seed) == ("ROMEO:", "length", 3)
    assert proven.prompt_ids == demo.tokenize("ROMEO:").token_ids
    assert proven.module_hash == hashlib.sha256(wasm).digest()
    assert proven.model == demo.info().layout_sha256
    assert proven.caller == demo.agent.identity.principal
    assert proven.installed_ns is not None
    assert proven.installed_ns <= proven.asked_ns <= proven.answered_ns


def test_every_field_counts(written: Path, demo: ModelCanister) -> None:
    whole = json.loads(written.read_text())
    tried = 0
    for path, other in changes(whole):
        spoilt = copy.deepcopy(whole)
        place: Any = spoilt
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = other
        with pytest.raises((VerificationError, UsageError)) as error:
            kept_receipt.parse(json.dumps(spoilt).encode()).verify(demo.agent.root_key)
        # The network's name is only a hint which key to take.
        assert error.value.exit_code == 5, path
        tried += 1
    assert tried > 40


def changes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each place of a document, with something else for it."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for name, one in entries:
        here = (*path, name)
        if here == ("network",):
            continue
        if isinstance(one, dict | list):
            yield from changes(one, here)
            yield here, type(one)()
        elif isinstance(one, bool):
            yield here, not one
        elif isinstance(one, int | float):
            yield here, one + 1
            yield here, str(one)
        elif isinstance(one, str):
            for at in {0, len(one) // 2, len(one) - 1} if one else ():
                yield here, one[:at] + ("0" if one[at] != "0" else "1") + one[at + 1 :]
            yield here, None
        if name == "token_ids":
            yield here, one[:-1]


def test_another_key_or_canister_is_refused(
    written: Path, demo: ModelCanister, shakespeare: ModelCanister
) -> None:
    receipt = kept_receipt.read(written)
    for key in (MAINNET_ROOT_KEY, SUBNET.key):
        with pytest.raises(VerificationError):
            receipt.verify(key)
    other = dataclasses.replace(receipt, canister=shakespeare.id)
    with pytest.raises(VerificationError):
        other.verify(demo.agent.root_key)


def test_parts_of_two_receipts_make_none(kept: KeptReceipt, demo: ModelCanister) -> None:
    other = demo.keep(demo.ask("ROMEO:", **OPTIONS_ASKED))
    for part in ("job", "asked", "proof", "answered"):
        mixed = dataclasses.replace(kept, **{part: getattr(other, part)})
        with pytest.raises(VerificationError):
            mixed.verify(demo.agent.root_key)


def test_code_that_changes_meanwhile_proves_nothing(
    new_canister: MakeCanister, wasm: bytes, tmp_path: Path
) -> None:
    model = with_model(new_canister(), "shakespeare-char")
    asked = model.ask("A", max_new_tokens=5)
    upgrade(model, wasm, tmp_path)
    with pytest.raises(VerificationError, match="code was changed"):
        model.keep(asked)


def test_without_a_tokenizer_the_ids_are_proven(new_canister: MakeCanister, tmp_path: Path) -> None:
    model = with_model(new_canister(), write_model(tmp_path, tiny_config()))
    receipt = model.keep(model.ask([1, 2, 3], max_new_tokens=4, temperature=0, echo=True))
    proven = receipt.verify(model.agent.root_key)
    assert (proven.prompt, proven.text) == ([1, 2, 3], None)
    assert len(proven.token_ids) == 4
    model.replay(proven)


def test_a_cancelled_job_has_a_receipt_too(demo: ModelCanister) -> None:
    asked = demo.ask("A", max_new_tokens=30_000, seed=1)
    while not demo.poll(asked.job).token_ids:
        pass
    demo.cancel(asked.job)
    proven = demo.keep(asked).verify(demo.agent.root_key)
    assert proven.finish == "cancelled"
    demo.replay(proven)


def test_awaited(demo: ModelCanister) -> None:
    caller = demo.agent

    async def work() -> Proven:
        agent = AsyncAgent(caller.url, caller.root_key, caller.identity)
        async with AsyncModelCanister(agent, demo.id) as model:
            asked = await model.ask("A", max_new_tokens=3, seed=1)
            proven = (await model.keep(asked)).verify(caller.root_key)
            await model.replay(proven)
            return proven

    assert asyncio.run(work()).token_ids == demo.complete("A", max_new_tokens=3, seed=1).token_ids


def test_what_is_refused_is_refused(demo: ModelCanister) -> None:
    with pytest.raises(CanisterError, match="empty"):
        demo.ask("", max_new_tokens=3)


def test_it_can_be_had_again(
    kept: KeptReceipt, demo: ModelCanister, new_canister: MakeCanister, tmp_path: Path
) -> None:
    proven = kept.verify(demo.agent.root_key)
    demo.replay(proven)
    lied = dataclasses.replace(proven, token_ids=[*proven.token_ids[:-1], 0])
    with pytest.raises(VerificationError, match=f"from token {len(proven.token_ids)} on"):
        demo.replay(lied)
    other = with_model(new_canister(), write_model(tmp_path, tiny_config(vocab_size=65)))
    with pytest.raises(VerificationError, match="another model"):
        other.replay(
            dataclasses.replace(proven, prompt=[1], options={**proven.options, "stop": None})
        )


def test_it_can_be_had_again_here(kept: KeptReceipt, demo: ModelCanister, tmp_path: Path) -> None:
    proven = kept.verify(demo.agent.root_key)
    model = open_checkpoint("shakespeare-char")
    replay_locally(proven, model)
    with pytest.raises(VerificationError, match="is not the model of the receipt"):
        replay_locally(proven, model, "int16")
    with pytest.raises(VerificationError, match="from token 1 on"):
        replay_locally(dataclasses.replace(proven, token_ids=[63, 63]), model)


# --- A network that signs what it should not


Certify = Callable[[dict[bytes, Any], float], bytes]


def by_root(state: dict[bytes, Any], at: float) -> bytes:
    return ROOT.certify(state, at=at)


def call(
    method: str,
    arg: bytes,
    reply: bytes,
    at: float,
    certify: Certify = by_root,
    **others: bytes,
) -> CallEvidence:
    """An update call on CANISTER as a subnet would certify it."""
    about = {b"module_hash": b"\x07" * 32, b"last_install_timestamp": leb(5)}
    about.update({name.encode(): value for name, value in others.items()})
    content = {
        "request_type": "call",
        "canister_id": CANISTER,
        "method_name": method,
        "arg": arg,
        "sender": b"\x04",
        "ingress_expiry": 10**18,
        "nonce": b"n",
    }
    status = {b"status": b"replied", b"reply": reply}
    state = {b"request_status": {hash_of_map(content): status}, b"canister": {CANISTER: about}}
    return CallEvidence(arg, b"\x04", 10**18, b"n", certify(state, at))


def result(method: str, value: Any) -> bytes:
    return candid.encode(METHODS[method].results, [{"Ok": value}])


def asked_for(options: dict[str, Any], prompt: dict[str, Any]) -> bytes:
    return candid.encode([PROMPT, OPTIONS], [prompt, options])


JOB = b"j" * 32


def made(**changes: Any) -> KeptReceipt:
    """A receipt of which each part can be changed, with every signature in order."""
    options = {**dict.fromkeys(OPTION_TYPES), **changes.get("options", {})}
    job_options = {**options, **changes.get("job_options", {})}
    told = {
        "token_ids": [7, 8],
        "text": "ab",
        "logprobs": None,
        "finish": {"stop": None},
        "seed": 1,
        "prompt_tokens": 3,
        "instructions": 9,
        **changes.get("told", {}),
    }
    receipt = candid.encode(
        [RECEIPT],
        [
            {
                "prompt": [4, 5, 6],
                "options": job_options,
                "seed": 1,
                "model": b"m",
                "token_ids": [7, 8],
                "finish": {"stop": None},
            }
        ],
    )
    witness = tree({b"jobs": {JOB: hashlib.sha256(receipt).digest()}})
    certified = {b"canister": {CANISTER: {b"certified_data": root_hash(witness)}}}
    times = changes.get("times", (10.0, 11.0, 12.0))
    answered = candid.encode([BLOB, NAT32], changes.get("polled", [JOB, 0]))
    prompt = changes.get("prompt", {"token_ids": [5]})
    begun = changes.get("begun", JOB)
    certify = changes.get("certify", by_root)
    return KeptReceipt(
        "local",
        CANISTER,
        JOB,
        call("submit", asked_for(options, prompt), result("submit", begun), times[0], certify),
        {
            "certificate": certify(certified, times[1]),
            "witness": cbor2.dumps(witness),
            "receipt": receipt,
        },
        call("poll", answered, result("poll", told), times[2], certify, **changes.get("about", {})),
    )


def test_what_is_made_by_hand_holds() -> None:
    proven = made().verify(ROOT.key)
    assert (proven.prompt, proven.text, proven.token_ids) == ([5], "ab", [7, 8])
    assert made(prompt={"text": "x"}).verify(ROOT.key).prompt == "x"
    echoed = made(options={"echo": True}, told={"token_ids": [5, 7, 8]}).verify(ROOT.key)
    assert echoed.token_ids == [7, 8]


def test_a_subnet_speaks_for_its_own_canisters_alone() -> None:
    def of_canisters(low: bytes, high: bytes) -> Certify:
        delegation = delegate(low, high)
        return lambda state, at: SUBNET.certify(state, delegation, at=at)

    proven = made(certify=of_canisters(CANISTER, CANISTER)).verify(ROOT.key)
    assert proven.text == "ab"
    with pytest.raises(VerificationError, match="may not speak for"):
        made(certify=of_canisters(CANISTER + b"\x01", b"\xff" * 10)).verify(ROOT.key)
    with pytest.raises(VerificationError):
        made(certify=lambda state, at: SUBNET.certify(state, at=at)).verify(ROOT.key)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"job_options": {"top_k": 3}}, "options are not those"),
        ({"options": {"seed": 2}}, "seed is not the one"),
        ({"prompt": {"token_ids": [6, 5]}}, "prompt is not the one"),
        ({"prompt": {"token_ids": [2**31]}}, "prompt is not the one"),
        ({"begun": b"k" * 32}, "another job was asked"),
        ({"polled": [b"k" * 32, 0]}, "another job, or a part"),
        ({"polled": [JOB, 1]}, "another job, or a part"),
        ({"told": {"token_ids": [7, 9]}}, "belongs to another answer"),
        ({"told": {"token_ids": [8]}}, "belongs to another answer"),
        ({"told": {"token_ids": [5, 7, 8]}}, "belongs to another answer"),
        ({"options": {"echo": True}, "told": {"token_ids": [9, 7, 8]}}, "to another answer"),
        ({"told": {"finish": None}}, "belongs to another answer"),
        ({"told": {"finish": {"length": None}}}, "belongs to another answer"),
        ({"told": {"seed": 2}}, "belongs to another answer"),
        ({"about": {"module_hash": b"\x08" * 32}}, "code was changed"),
        ({"about": {"last_install_timestamp": leb(6)}}, "code was changed"),
        ({"times": (10.0, 9.0, 12.0)}, "order"),
        ({"times": (10.0, 13.0, 12.0)}, "order"),
        ({"times": (1e-9, 11.0, 12.0)}, "order"),
    ],
)
def test_signatures_alone_prove_nothing(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(VerificationError, match=words):
        made(**changes).verify(ROOT.key)


def test_a_refusal_is_no_answer() -> None:
    refused = candid.encode(METHODS["poll"].results, [{"Err": "no such job"}])
    poll = call("poll", candid.encode([BLOB, NAT32], [JOB, 0]), refused, 12.0)
    with pytest.raises(VerificationError, match="refused 'poll'"):
        dataclasses.replace(made(), answered=poll).verify(ROOT.key)
    garbled = call("poll", candid.encode([BLOB, NAT32], [JOB, 0]), b"DIDL", 12.0)
    with pytest.raises(VerificationError, match="can't be read"):
        dataclasses.replace(made(), answered=garbled).verify(ROOT.key)


# --- Files


def document(tmp_path: Path) -> dict[str, Any]:
    made().write(tmp_path / "r.json", ROOT.key)
    return dict(json.loads((tmp_path / "r.json").read_text()))


def test_what_does_not_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        made(begun=b"").write(tmp_path / "r.json", ROOT.key)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", [0, 2, "1", True, None, 1.0])
def test_other_versions_are_told(version: Any, tmp_path: Path) -> None:
    value = {**document(tmp_path), "icgpt_receipt": version}
    with pytest.raises(VerificationError, match="form that this version"):
        kept_receipt.parse(json.dumps(value).encode())


Spoil = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: {**v, "more": 1},
        lambda v: {k: one for k, one in v.items() if k != "answered"},
        lambda v: [v],
        lambda v: {},
        lambda v: None,
        lambda v: {**v, "canister": "aaaaa"},
        lambda v: {**v, "canister": 3},
        lambda v: {**v, "network": None},
        lambda v: {**v, "shows": None},
        lambda v: {**v, "shows": [1]},
        lambda v: {**v, "job": "zz"},
        lambda v: {**v, "job": "AB"},
        lambda v: {**v, "job": "a b0"},
        lambda v: {**v, "proof": {"certificate": ""}},
        lambda v: {**v, "proof": 7},
        lambda v: {**v, "asked": []},
        lambda v: {**v, "asked": {**v["asked"], "ingress_expiry": True}},
        lambda v: {**v, "asked": {**v["asked"], "ingress_expiry": -1}},
        lambda v: {**v, "asked": {**v["asked"], "ingress_expiry": 2**64}},
        lambda v: {**v, "asked": {**v["asked"], "sender": None}},
    ],
)
def test_other_forms_are_refused(spoil: Spoil, tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        kept_receipt.parse(json.dumps(spoil(document(tmp_path))).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[" * 1_000_000,
        b'{"icgpt_receipt":' * 200_000,
        b'{"icgpt_receipt": 1, "icgpt_receipt": 1}',
        b'{"icgpt_receipt": NaN}',
        b'{"icgpt_receipt": ' + b"9" * 100_000 + b"}",
        b" " * (kept_receipt.MAX_FILE_BYTES + 1),
    ],
)
def test_hostile_files_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        kept_receipt.parse(data)


def test_hostile_parts_are_refused(tmp_path: Path) -> None:
    deep = cbor2.dumps([])
    for _ in range(600):
        deep = b"\x83\x01" + deep + b"\x81\x00"
    for data in (b"", b"\x00", deep, b"\x9b" + b"\xff" * 8, cbor2.dumps({"tree": [0]})):
        for part in ("certificate", "witness", "receipt"):
            one = made()
            spoilt = dataclasses.replace(one, proof={**one.proof, part: data})
            with pytest.raises(VerificationError):
                spoilt.verify(ROOT.key)
        spoilt = dataclasses.replace(
            made(), asked=dataclasses.replace(made().asked, certificate=data)
        )
        with pytest.raises(VerificationError):
            spoilt.verify(ROOT.key)


def test_long_lists_are_compared_quickly() -> None:
    part, whole = [1] * 200_000 + [2], [1] * 400_000
    assert not kept_receipt._within(part, whole)
    assert kept_receipt._within(part, [*whole, 2])
    assert kept_receipt._within([], [])
    assert isinstance(made().verify(ROOT.key), Proven)
