"""Calls and queries over HTTP: what canisters answer, and what they do to each other."""

from __future__ import annotations

import struct
import threading
import time

import pytest
from replica_kit import BEATING, INSPECTING, Raw, hash_of, lookup, number, wasm

from icgpt.candid import BLOB, NAT, Record, decode, encode
from icgpt.principal import MANAGEMENT, to_text
from icgpt.replica import fees
from icgpt.replica import management_types as types


def wait_for(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_updates_change_and_queries_do_not(raw: Raw, canister: bytes) -> None:
    assert number(raw.update(canister, "inc")) == 1
    assert number(raw.update(canister, "inc")) == 2
    assert number(raw.query(canister, "query_inc")) == 3
    assert number(raw.query(canister, "get")) == 2
    # A query method called as an update answers, and leaves nothing behind either.
    assert number(raw.update(canister, "query_inc")) == 3
    assert number(raw.query(canister, "get")) == 2
    assert raw.query(canister, "whoami") == raw.sender
    assert raw.update(canister, "whoami") == raw.sender


def test_a_trap_undoes_and_says_why(raw: Raw, canister: bytes) -> None:
    status, (code, text, error) = raw.call(canister, "boom")
    assert (status, code, error) == ("rejected", 5, "IC0503")
    assert text.startswith(f"Error from Canister {to_text(canister)}: Canister called `ic0.trap`")
    assert "boom!" in text
    assert number(raw.query(canister, "get")) == 0


def test_rejections(raw: Raw, canister: bytes) -> None:
    assert raw.call(canister, "reject") == ("rejected", (4, "no, thanks", "IC0406"))
    assert number(raw.query(canister, "get")) == 1
    document = raw.query_document(canister, "reject_query")
    assert document["status"] == "rejected"
    assert (document["reject_code"], document["reject_message"]) == (4, "no, thanks")
    status, (code, text, error) = raw.call(canister, "silent")
    assert (status, code, error) == ("rejected", 5, "IC0506")
    assert "did not reply" in text


def test_methods_and_canisters_that_are_not_there(raw: Raw, canister: bytes) -> None:
    status, (code, text, error) = raw.call(canister, "nope")
    assert (status, code, error) == ("rejected", 5, "IC0536")
    assert "has no update method 'nope'" in text
    document = raw.query_document(canister, "inc")
    assert (document["reject_code"], document["error_code"]) == (5, "IC0536")
    nobody = bytes(7) + b"\x09\x01\x01"
    expected = ("refused", (3, f"Canister {to_text(nobody)} not found", "IC0301"))
    assert raw.call(nobody, "inc") == expected
    assert raw.query_document(nobody, "get")["error_code"] == "IC0301"
    empty = raw.create()
    assert raw.call(empty, "inc")[1][2] == "IC0537"


def test_self_calls_and_the_instructions_of_all_that_follows(raw: Raw, canister: bytes) -> None:
    before = raw.update(canister, "chain", struct.pack("<I", 0))
    assert before == b"done"
    assert raw.update(canister, "chain", struct.pack("<I", 25)) == b"done"
    assert number(raw.query(canister, "get")) == 27
    *_, short, long = raw.http.get(f"{raw.url}/_/messages?last=2").json()
    assert (short["method"], short["canister"]) == ("chain", to_text(canister))
    assert (long["messages"], long["status"]) == (51, "replied")
    assert long["instructions"] > 20 * short["instructions"] > 0


def test_calls_to_other_canisters(raw: Raw, canister: bytes) -> None:
    other = raw.new()
    assert number(raw.proxy(canister, other, "inc")[1]) == 1
    assert raw.proxy(canister, other, "whoami") == ("replied", canister)
    status, answer = raw.proxy(canister, other, "boom")
    assert status == "replied"
    assert answer[0] == 5
    assert b"boom!" in answer
    assert raw.proxy(canister, other, "reject") == ("replied", b"\x04no, thanks")
    nobody = bytes(7) + b"\x09\x01\x01"
    assert raw.proxy(canister, nobody, "inc")[1][0] == 3
    # The calling context ends without an answer of its own.
    status, (code, _, error) = raw.proxy(canister, other, "inc", by="proxy_silent")
    assert (status, code, error) == ("rejected", 5, "IC0506")


def test_cleanup_after_a_callback_that_traps(raw: Raw, canister: bytes) -> None:
    status, (code, text, error) = raw.proxy(canister, canister, "get", by="proxy_trap")
    assert (status, code, error) == ("rejected", 5, "IC0503")
    assert "boom!" in text
    assert number(raw.query(canister, "get")) == 0
    assert number(raw.query(canister, "cleaned")) == 1


def test_cycles_travel_with_calls_and_come_back(raw: Raw, canister: bytes) -> None:
    other = raw.new()
    theirs, ours = raw.status(other)["cycles"], raw.status(canister)["cycles"]
    sent = 10**12
    status, accepted = raw.proxy(canister, other, "accept", cycles=sent)
    assert status == "replied"
    assert int.from_bytes(accepted, "little") == sent // 2
    assert 0 < theirs + sent // 2 - raw.status(other)["cycles"] < 10**9
    assert 0 < ours - sent // 2 - raw.status(canister)["cycles"] < 10**9
    # Rejected calls give everything back; more than there is can't be sent.
    ours = raw.status(canister)["cycles"]
    raw.proxy(canister, other, "boom", cycles=sent)
    assert 0 < ours - raw.status(canister)["cycles"] < 10**9
    assert raw.proxy(canister, other, "accept", cycles=10**18)[0] == "rejected"


def test_canisters_use_the_management_canister(raw: Raw, canister: bytes) -> None:
    status, reply = raw.proxy(canister, MANAGEMENT, "raw_rand", b"DIDL\x00\x00")
    assert status == "replied"
    assert len(decode(reply, [BLOB])[0]) == 32
    create = encode([types.CREATE], [{}])
    status, reply = raw.proxy(canister, MANAGEMENT, "create_canister", create, 3 * 10**12)
    child = decode(reply, [types.CANISTER])[0]["canister_id"]
    argument = encode([types.CANISTER], [{"canister_id": child}])
    status, reply = raw.proxy(canister, MANAGEMENT, "canister_status", argument)
    born = decode(reply, [types.STATUS])[0]
    assert born["cycles"] == 3 * 10**12 - fees.CREATE
    assert born["settings"]["controllers"] == [canister]
    raw.proxy(canister, MANAGEMENT, "deposit_cycles", argument, 10**12)
    status, reply = raw.proxy(canister, MANAGEMENT, "canister_status", argument)
    assert decode(reply, [types.STATUS])[0]["cycles"] == born["cycles"] + 10**12
    ours = raw.status(canister)["cycles"]
    status, reply = raw.proxy(canister, MANAGEMENT, "create_canister", create, 10**9)
    assert reply[0] == 4
    assert b"requires a fee of" in reply
    assert 0 < ours - raw.status(canister)["cycles"] < 10**9
    status, reply = raw.proxy(canister, MANAGEMENT, "no_such", b"")
    assert reply[0] == 5


def test_timers_and_heartbeats(raw: Raw, canister: bytes) -> None:
    raw.update(canister, "timer", struct.pack("<Q", 50_000_000))
    wait_for(lambda: number(raw.query(canister, "get")) == 1)
    raw.update(canister, "timer", struct.pack("<Q", 1))
    wait_for(lambda: number(raw.query(canister, "get")) == 2)
    beating = raw.new(wasm(BEATING))
    wait_for(lambda: number(raw.query(beating, "get")) >= 2)
    raw.simple("stop_canister", beating)
    raw.simple("delete_canister", beating)


def test_messages_are_inspected(raw: Raw) -> None:
    picky = raw.new(wasm(INSPECTING))
    assert raw.call(picky, "good") == ("replied", b"")
    status, (code, text, error) = raw.call(picky, "another")
    assert (status, code, error) == ("refused", 4, "IC0406")
    assert text == "Canister rejected the message"


def test_logs(raw: Raw, canister: bytes) -> None:
    raw.update(canister, "print", b"hello")
    raw.update(canister, "print", b"x" * 5_000)
    raw.update(canister, "print", b"world")
    argument = encode([types.CANISTER], [{"canister_id": canister}])

    def logs(client: Raw) -> bytes:
        content = client.content(
            "query", canister_id=b"", method_name="fetch_canister_logs", arg=argument
        )
        path = f"v2/canister/{to_text(canister)}/query"
        return client.post(path, client.envelope(content)).content

    import cbor2

    document = cbor2.loads(logs(raw))
    records = decode(document["reply"]["arg"], [types.LOGS])[0]["canister_log_records"]
    assert [record["content"] for record in records][-1] == b"world"
    assert sum(len(record["content"]) for record in records) <= 4_096
    refused = cbor2.loads(logs(Raw(raw.url, raw.root_key, None)))
    assert refused["status"] == "rejected"


def test_certified_data_in_queries(raw: Raw, canister: bytes) -> None:
    from replica_kit import verified

    raw.update(canister, "certify", b"a hash")
    tree = verified(raw.query(canister, "certificate"), raw.root_key)
    assert lookup(tree, b"canister", canister, b"certified_data") == b"a hash"
    assert abs(read_time(tree) - time.time_ns()) < 60 * 10**9


def read_time(tree: list[object]) -> int:
    data = lookup(tree, b"time")
    assert data is not None
    return sum((byte & 127) << 7 * index for index, byte in enumerate(data))


def test_what_a_call_costs(raw: Raw, canister: bytes) -> None:
    before = raw.status(canister)["cycles"]
    asked = raw.status(canister)["cycles"]
    status_costs = before - asked  # what asking costs itself
    raw.update(canister, "size", bytes(1_000))
    after = raw.status(canister)["cycles"]
    message = raw.http.get(f"{raw.url}/_/messages?last=2").json()[0]
    assert message["method"] == "size"
    expected = fees.ingress(1_004) + fees.execution(message["instructions"])
    # Storage is charged by the second, so that a little more may have gone.
    assert expected <= asked - after - status_costs < expected + 1_000_000


def test_a_poor_canister_is_frozen(raw: Raw) -> None:
    poor = raw.new(amount=fees.PREPAID + 2 * 10**9)
    assert raw.update(poor, "inc")
    settings = {"canister_id": poor, "settings": {"freezing_threshold": 10**9}}
    raw.managed("update_settings", types.UPDATE_SETTINGS, settings, poor)
    status, (code, text, error) = raw.call(poor, "inc")
    assert (status, code, error) == ("rejected", 2, "IC0207")
    assert "out of cycles" in text
    kind = Record({"canister_id": types.CANISTER.fields[0][2], "amount": NAT})
    top_up = {"canister_id": poor, "amount": 10**15}
    raw.managed("provisional_top_up_canister", kind, top_up, poor)
    assert number(raw.update(poor, "inc")) == 2


def test_the_network_answers_while_a_message_runs(raw: Raw, canister: bytes) -> None:
    content = raw.call_content(canister, "work", struct.pack("<Q", 2_000_000_000))
    path = f"v2/canister/{to_text(canister)}/call"
    assert raw.post(path, raw.envelope(content)).status_code == 202
    seen = set()
    done = threading.Event()

    def watch() -> None:
        other = Raw(raw.url, raw.root_key, raw.key)
        while not done.is_set():
            tree = other.read(canister, [b"request_status", hash_of(content)])
            seen.add(other.outcome(tree, hash_of(content))[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert raw.http.get(f"{raw.url}/api/v2/status", timeout=5).status_code == 200
    assert raw.poll(canister, hash_of(content))[0] == "replied"
    done.set()
    watcher.join()
    assert "processing" in seen


@pytest.mark.parametrize("size", [0, 1, 1_900_000])
def test_large_arguments(raw: Raw, canister: bytes, size: int) -> None:
    assert number(raw.update(canister, "size", bytes(size))) == size
