"""The ledgers and the cycles-minting canister that the replica plays itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from replica_kit import ANONYMOUS, Ed25519, Raw, lookup

from icgpt import network
from icgpt.candid import NAT, NAT8, NAT64, TEXT, Opt, Record, decode, encode
from icgpt.principal import from_text, self_authenticating
from icgpt.replica import management_types as types
from icgpt.replica.native import cycles_ledger, icp_ledger, icrc1, minting, tokens
from icgpt.replica.native.base import Call, Native
from icgpt.replica.native.cycles_ledger import CyclesLedger
from icgpt.replica.native.minting import Minting
from icgpt.replica.native.tokens import Ledger
from icgpt.replica.records import LedgerState

CYCLES, ICP, MINTER = cycles_ledger.ID, icp_ledger.ID, minting.ID
T = 10**12


def table(canister: bytes) -> Native:
    """The canister's method table, here for its types alone."""
    icp = Ledger(icp_ledger.TOKEN, LedgerState(), welcome=False)
    cycles = Ledger(cycles_ledger.TOKEN, LedgerState(), welcome=False)

    def create(*_: Any) -> bytes:
        return b""

    def top_up(*_: Any) -> None:
        pass

    natives = (
        icp_ledger.icp_ledger(icp),
        CyclesLedger(cycles, b"", create, top_up).canister(),
        Minting(icp, cycles, b"", create, top_up).canister(),
    )
    return next(native for native in natives if native.id == canister)


def ask(raw: Raw, canister: bytes, name: str, *arguments: Any) -> Any:
    method = table(canister).methods[name]
    data = encode(method.arguments, list(arguments))
    answer = (raw.query if method.query else raw.update)(canister, name, data)
    return decode(answer, method.results)[0]


def account(owner: bytes, subaccount: bytes | None = None) -> dict[str, Any]:
    return {"owner": owner, "subaccount": subaccount}


def icrc1_transfer(raw: Raw, canister: bytes, to: bytes, amount: int, **more: Any) -> Any:
    return ask(raw, canister, "icrc1_transfer", {"to": account(to), "amount": amount, **more})


def icp_transfer(raw: Raw, to: bytes, e8s: int, memo: bytes, fee: int = 10_000) -> Any:
    wanted = {
        "to": to,
        "amount": {"e8s": e8s},
        "fee": {"e8s": fee},
        "memo": int.from_bytes(memo, "little"),
    }
    return ask(raw, ICP, "transfer", wanted)


@pytest.fixture
def user(raw: Raw) -> Callable[[int], Raw]:
    def make(seed: int) -> Raw:
        return Raw(raw.url, raw.root_key, Ed25519(seed))

    return make


def test_the_interface_is_public(raw: Raw) -> None:
    methods = {CYCLES: b"create_canister", ICP: b"transfer", MINTER: b"notify_top_up"}
    for canister, method in methods.items():
        path = [b"canister", canister, b"metadata", b"candid:service"]
        text = lookup(raw.read(canister, path), *path)
        assert text is not None
        assert text.startswith(b"service : {")
        assert method in text


def test_accounts_have_the_identifiers_of_the_platform() -> None:
    # The account of the anonymous principal, as the ledger's documentation gives it.
    expected = "1c7a48ba6a562aa9eaa2481a9049cdf0433b9738c992d698c31d8abf89cadc79"
    assert tokens.account_id(ANONYMOUS).hex() == expected


def test_users_start_with_tokens_and_move_them(raw: Raw, user: Callable[[int], Raw]) -> None:
    one, two = user(101), user(102)
    assert ask(one, CYCLES, "icrc1_balance_of", account(one.sender)) == 1_000 * T
    assert "Ok" in icrc1_transfer(one, CYCLES, two.sender, T)
    fee = 100_000_000
    assert ask(one, CYCLES, "icrc1_balance_of", account(one.sender)) == 999 * T - fee
    assert ask(one, CYCLES, "icrc1_balance_of", account(two.sender)) == 1_001 * T
    sub = account(one.sender, bytes(31) + b"\x01")
    assert ask(one, CYCLES, "icrc1_balance_of", sub) == 0
    refused = icrc1_transfer(one, CYCLES, two.sender, 999 * T)
    assert refused == {"Err": {"InsufficientFunds": {"balance": 999 * T - fee}}}
    assert icrc1_transfer(one, CYCLES, two.sender, 1, fee=1) == {
        "Err": {"BadFee": {"expected_fee": fee}}
    }
    decimals = decode(one.query(CYCLES, "icrc1_decimals", encode([], [])), [NAT8])
    assert decimals == [12]
    symbol = decode(one.query(ICP, "icrc1_symbol", encode([], [])), [TEXT])
    assert symbol == ["ICP"]


def test_a_transfer_with_a_time_counts_once(user: Callable[[int], Raw]) -> None:
    one, now = user(103), time.time_ns()
    first = icrc1_transfer(one, CYCLES, b"\x04", T, created_at_time=now)
    again = icrc1_transfer(one, CYCLES, b"\x04", T, created_at_time=now)
    assert again == {"Err": {"Duplicate": {"duplicate_of": first["Ok"]}}}
    old = icrc1_transfer(one, CYCLES, b"\x04", T, created_at_time=now - 2 * tokens.WINDOW)
    assert old == {"Err": {"TooOld": None}}
    early = icrc1_transfer(one, CYCLES, b"\x04", T, created_at_time=now + 2 * tokens.WINDOW)
    assert "CreatedInFuture" in early["Err"]


def test_allowances(user: Callable[[int], Raw]) -> None:
    owner, spender = user(104), user(105)
    approval = {"spender": account(spender.sender), "amount": 2 * T}
    assert "Ok" in ask(owner, CYCLES, "icrc2_approve", approval)
    asked = {"account": account(owner.sender), "spender": account(spender.sender)}
    assert ask(owner, CYCLES, "icrc2_allowance", asked)["allowance"] == 2 * T
    wanted = {"from": account(owner.sender), "to": account(spender.sender), "amount": T}
    assert "Ok" in ask(spender, CYCLES, "icrc2_transfer_from", wanted)
    left = T - 100_000_000
    assert ask(spender, CYCLES, "icrc2_transfer_from", wanted) == {
        "Err": {"InsufficientAllowance": {"allowance": left}}
    }
    assert ask(spender, CYCLES, "icrc1_balance_of", account(spender.sender)) == 1_001 * T


def test_canisters_from_cycles(user: Callable[[int], Raw]) -> None:
    one = user(106)
    made = ask(one, CYCLES, "create_canister", {"amount": 3 * T})["Ok"]
    status = one.status(made["canister_id"])
    assert status["settings"]["controllers"] == [one.sender]
    assert 2.4 * T < status["cycles"] <= 2.5 * T
    assert "Ok" in ask(one, CYCLES, "withdraw", {"amount": T, "to": made["canister_id"]})
    assert one.status(made["canister_id"])["cycles"] > 3.4 * T
    balance = ask(one, CYCLES, "icrc1_balance_of", account(one.sender))
    assert balance == 996 * T - 2 * 100_000_000
    # What can't be made is given back, less the fees.
    failed = ask(one, CYCLES, "create_canister", {"amount": 1_000_000_000})["Err"]
    assert "Insufficient cycles" in failed["FailedToCreate"]["error"]
    after = ask(one, CYCLES, "icrc1_balance_of", account(one.sender))
    assert balance - after == 2 * 100_000_000
    nowhere = ask(one, CYCLES, "withdraw", {"amount": T, "to": bytes(8) + b"\x01\x01"})
    assert "FailedToWithdraw" in nowhere["Err"]
    person = ask(one, CYCLES, "withdraw", {"amount": T, "to": one.sender})
    assert person == {"Err": {"InvalidReceiver": {"receiver": one.sender}}}


def test_cycles_from_icp(user: Callable[[int], Raw]) -> None:
    one = user(107)
    to = tokens.account_id(MINTER, tokens.principal_subaccount(one.sender))
    block = icp_transfer(one, to, 2 * 10**8, b"MINT")["Ok"]
    minted = ask(one, MINTER, "notify_mint_cycles", {"block_index": block})["Ok"]
    assert minted["minted"] == 6 * T
    assert minted["balance"] == 1_006 * T - 100_000_000
    again = ask(one, MINTER, "notify_mint_cycles", {"block_index": block})
    assert "used already" in again["Err"]["InvalidTransaction"]
    block = icp_transfer(one, to, 10**8, b"CREA")["Ok"]
    wrong = ask(one, MINTER, "notify_mint_cycles", {"block_index": block})
    assert "memo" in wrong["Err"]["InvalidTransaction"]
    wanted = {"block_index": block, "controller": one.sender}
    canister = ask(one, MINTER, "notify_create_canister", wanted)["Ok"]
    assert one.status(canister)["settings"]["controllers"] == [one.sender]
    to = tokens.account_id(MINTER, tokens.principal_subaccount(canister))
    block = icp_transfer(one, to, 10**8, b"TPUP")["Ok"]
    before = one.status(canister)["cycles"]
    wanted = {"block_index": block, "canister_id": canister}
    assert ask(one, MINTER, "notify_top_up", wanted) == {"Ok": 3 * T}
    assert one.status(canister)["cycles"] > before + 2.9 * T
    foreign = ask(one, MINTER, "notify_top_up", {"block_index": 10**9, "canister_id": canister})
    assert "no transfer" in foreign["Err"]["InvalidTransaction"]


def test_the_older_icp_interface(user: Callable[[int], Raw]) -> None:
    one = user(108)
    to = tokens.account_id(b"\x04")
    assert icp_transfer(one, to, 1, b"", fee=1) == {
        "Err": {"BadFee": {"expected_fee": {"e8s": 10_000}}}
    }
    rich = 1_000_000 * 10**8
    assert icp_transfer(one, to, rich, b"") == {
        "Err": {"InsufficientFunds": {"balance": {"e8s": rich}}}
    }
    assert "Ok" in icp_transfer(one, to, 1, b"")
    mine = {"account": tokens.account_id(one.sender)}
    assert ask(one, ICP, "account_balance", mine) == {"e8s": rich - 10_001}


def test_the_minting_canister_names_the_subnet(raw: Raw) -> None:
    subnets = ask(raw, MINTER, "get_default_subnets")
    assert subnets == [self_authenticating(raw.root_key)]
    assert ask(raw, MINTER, "get_icp_xdr_conversion_rate")["data"]["xdr_permyriad_per_icp"] > 0


def test_wrong_calls(raw: Raw) -> None:
    status, (code, text, error) = raw.call(CYCLES, "nothing", encode([], []))
    assert (status, code, error) == ("rejected", 5, "IC0536")
    assert "no update method 'nothing'" in text
    status, (_, text, error) = raw.call(CYCLES, "icrc1_transfer", b"rubbish")
    assert (status, error) == ("rejected", "IC0503")
    document = raw.query_document(CYCLES, "icrc1_transfer", encode([], []))
    assert document["error_code"] == "IC0536"
    odd = encode([Record({"owner": TEXT})], [{"owner": "x"}])
    assert raw.query_document(CYCLES, "icrc1_balance_of", odd)["error_code"] == "IC0503"
    # They are no canisters that somebody could control or take the place of.
    assert raw.simple("canister_status", CYCLES)[1][2] == "IC0301"
    assert raw.simple("stop_canister", CYCLES)[0] == "refused"
    method = "provisional_create_canister_with_cycles"
    taken = raw.manage(method, types.PROVISIONAL_CREATE, {"specified_id": CYCLES}, b"")
    assert taken[1][2] == "IC0205"


def test_canisters_call_them_too(raw: Raw) -> None:
    canister = raw.new()
    arg = encode([icrc1.ACCOUNT], [account(ANONYMOUS)])
    status, reply = raw.proxy(canister, CYCLES, "icrc1_balance_of", arg)
    assert status == "replied"
    assert decode(reply, [NAT])[0] > 10**30
    # Cycles that come along are taken by `deposit`, and given back by everything else.
    kind = Record({"to": icrc1.ACCOUNT})
    arg = encode([kind], [{"to": account(canister)}])
    before = raw.status(canister)["cycles"]
    assert raw.proxy(canister, CYCLES, "deposit", arg, cycles=T)[0] == "replied"
    assert before - 1.1 * T < raw.status(canister)["cycles"] < before - T
    assert ask(raw, CYCLES, "icrc1_balance_of", account(canister)) == T - 100_000_000


def test_balances_survive_a_restart(tmp_path: Any) -> None:
    info = network.start(tmp_path, port=0)
    raw = Raw(info.url, info.root_key)
    icrc1_transfer(raw, CYCLES, from_text("aaaaa-aa"), 7)
    network.stop(tmp_path)
    info = network.start(tmp_path, port=0)
    try:
        raw = Raw(info.url, info.root_key)
        assert ask(raw, CYCLES, "icrc1_balance_of", account(b"")) == 7
    finally:
        network.stop(tmp_path)


def test_only_the_last_blocks_are_kept() -> None:
    ledger = Ledger(cycles_ledger.TOKEN, LedgerState(), welcome=False)
    table_of = icrc1.Icrc1(ledger).methods()["icrc1_transfer"]
    wanted = decode(
        encode(
            [Record({"to": icrc1.ACCOUNT, "amount": NAT, "memo": Opt(NAT64)})],
            [{"to": account(b"x"), "amount": 1, "memo": None}],
        ),
        table_of.arguments,
    )[0]
    for index in range(tokens.KEPT_BLOCKS + 5):
        assert table_of.run(Call(ANONYMOUS, 0), wanted) == {"Ok": index}
    assert len(ledger.state.blocks) == tokens.KEPT_BLOCKS
    assert ledger.block(4) is None
    assert ledger.block(5) is not None
