"""Hands inside a canister: its stable memory read and written between two upgrades."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import wasmtime

from icgpt import deploy
from icgpt.agent import Agent
from icgpt.client import ModelCanister
from icgpt.project import Project

CHUNK = 1_900_000
MAGIC = b"\x89icgptW\n"

# A program that reads and writes its stable memory as it is told, to stand in between two upgrades.
HANDS = """
(module
  (import "ic0" "msg_arg_data_size" (func $size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
  (import "ic0" "stable64_size" (func $pages (result i64)))
  (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
  (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
  (memory (export "memory") 40)
  (data (i32.const 2600000) "DIDL\\00\\00")
  (func $arg (call $copy (i32.const 0) (i32.const 0) (call $size)))
  (func $done (call $append (i32.const 2600000) (i32.const 6)) (call $reply))
  (func (export "canister_update set_public_mode") (call $done))
  (func (export "canister_update put")
    (call $arg)
    (drop (call $grow (i64.sub (i64.load (i32.const 8)) (call $pages))))
    (call $write (i64.load (i32.const 0)) (i64.const 16)
      (i64.extend_i32_u (i32.sub (call $size) (i32.const 16))))
    (call $done))
  (func (export "canister_update get")
    (local $n i64)
    (call $arg)
    (local.set $n (i64.sub (i64.mul (call $pages) (i64.const 65536)) (i64.load (i32.const 0))))
    (if (i64.gt_u (local.get $n) (i64.load (i32.const 8)))
      (then (local.set $n (i64.load (i32.const 8)))))
    (call $read (i64.const 0) (i64.load (i32.const 0)) (local.get $n))
    (call $append (i32.const 0) (i32.wrap_i64 (local.get $n)))
    (call $reply)))
"""


class Hands:
    """Stable memory of a canister, between two upgrades."""

    def __init__(self, agent: Agent, network: Any, folder: Path) -> None:
        self.agent, self.network, self.folder = agent, network, folder
        (folder / "dfx.json").write_text("{}")
        self.module = bytes(wasmtime.wat2wasm(HANDS))

    def new(self) -> bytes:
        """A canister that is nothing but stable memory."""
        project = Project(self.folder)
        return deploy.deploy(self.agent, self.network, project, "model", self.module).canister_id

    def into(self, canister: bytes, wasm: bytes | None = None) -> None:
        """Upgrades a canister to this module, or to another."""
        module = wasm or self.module
        project = Project(self.folder)
        deploy.deploy(self.agent, self.network, project, "model", module, "upgrade", canister)

    def write(self, canister: bytes, data: bytes, at: int = 0, size: int = 0) -> None:
        for i in range(0, len(data), CHUNK):
            piece = data[i : i + CHUNK]
            head = struct.pack("<qq", at + i, max(size, at + len(data)) // 65_536)
            self.agent.update(canister, "put", head + piece)

    def read(self, canister: bytes) -> bytes:
        out = b""
        while piece := self.agent.update(canister, "get", struct.pack("<qq", len(out), CHUNK)):
            out += piece
        return out


def magics(stable: bytes) -> list[int]:
    """Where packed files begin."""
    return [i for i in range(0, len(stable), 65_536) if stable[i : i + 8] == MAGIC]


def packed_files(hands: Hands, canister: ModelCanister) -> list[bytes]:
    """The packed files in a canister, small ones; nothing but stable memory is left of it."""
    hands.into(canister.id)
    stable = hands.read(canister.id)
    lengths = [(i, *struct.unpack_from("<Q", stable, i + 16)) for i in magics(stable)]
    return [stable[i : i + length] for i, length in lengths]
