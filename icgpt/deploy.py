"""Creates a canister where the network gives them away, and installs or upgrades its code.

The module goes through the management canister: in one message when it is small enough, in chunks
otherwise. What is installed is compared by its certified hash first, so a second run does nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from icgpt import candid, cost
from icgpt.agent import Agent
from icgpt.built import find_built
from icgpt.candid import BLOB, NULL, PRINCIPAL, Opt, Record, Type, Variant, Vec
from icgpt.client import ModelCanister
from icgpt.connect import Network
from icgpt.errors import IcgptError, NetworkError, UsageError
from icgpt.principal import MANAGEMENT, from_text, to_text
from icgpt.project import DEFAULT_NAME, Project

Mode: TypeAlias = Literal["auto", "install", "reinstall", "upgrade"]

MAX_WASM_BYTES: Final = 100 << 20
ONE_MESSAGE_BYTES: Final = 1_900_000
CHUNK_BYTES: Final = 1 << 20  # the platform's limit of a stored chunk
LOCAL_CYCLES: Final = 10**16  # costs nothing where it is given, and lasts for 10 P instructions
MODULE: Final = "model.wasm.gz"
_MODULE: Final = "Name the built canister with --wasm FILE, such as canister/build/model.wasm.gz."
# Compiling an instruction is charged as running 6,000 of them, and none is shorter than a byte.
COMPILE_CYCLES_PER_BYTE: Final = 6_000
EMPTY_ARGUMENT: Final = b"DIDL\x00\x00"

_DOING: Final = {"install": "Installing", "reinstall": "Reinstalling", "upgrade": "Upgrading"}
_MODE: Final = Variant({"install": NULL, "reinstall": NULL, "upgrade": NULL})
_ID: Final = Record({"canister_id": PRINCIPAL})
_HASH: Final = Record({"hash": BLOB})
_CREATE: Final = Record({"amount": Opt(candid.NAT)})
_INSTALL: Final = Record(
    {"mode": _MODE, "canister_id": PRINCIPAL, "wasm_module": BLOB, "arg": BLOB}
)
_CHUNK: Final = Record({"canister_id": PRINCIPAL, "chunk": BLOB})
_INSTALL_CHUNKED: Final = Record(
    {
        "mode": _MODE,
        "target_canister": PRINCIPAL,
        "chunk_hashes_list": Vec(_HASH),
        "wasm_module_hash": BLOB,
        "arg": BLOB,
    }
)


@dataclass(frozen=True)
class Deployment:
    """What a deployment did."""

    canister_id: bytes
    created: bool
    action: str
    """"install", "reinstall", "upgrade", or "none" when the module was there already."""
    module_hash: bytes
    made_public: bool
    files: list[Path]
    """Where the canister's id was written down."""

    def to_json(self, name: str) -> dict[str, Any]:
        """The deployment of a canister of this name as the command line tells of it."""
        return {
            "canister": name,
            "canister_id": to_text(self.canister_id),
            "created": self.created,
            "action": self.action,
            "module_hash": self.module_hash.hex(),
            "made_public": self.made_public,
            "files": [str(path) for path in self.files],
        }


def find_wasm(project: Project, chosen: Path | None = None) -> Path:
    """The module to install: the chosen one, the project's own build, or icgpt's."""
    if chosen is not None:
        return chosen
    path = project.built(MODULE) or find_built(MODULE)
    if path is None:
        raise IcgptError(
            "the canister's module is not built yet",
            "Build it with ./scripts/build-canister, or name one with --wasm FILE.",
        )
    return path


def read_wasm(path: Path) -> bytes:
    """A module's bytes, gzipped or not; UsageError when it is neither."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_WASM_BYTES + 1)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", _MODULE) from error
    if len(data) > MAX_WASM_BYTES:
        raise UsageError(f"{path} is larger than any module may be (100 MiB)", _MODULE)
    if not data.startswith((b"\x00asm", b"\x1f\x8b")):
        raise UsageError(f"{path} is no WebAssembly module", _MODULE)
    return data


def deploy(
    agent: Agent,
    network: Network,
    project: Project,
    name: str,
    wasm: bytes,
    mode: Mode = "auto",
    canister_id: bytes | None = None,
    say: Callable[[str], None] = lambda text: None,
    agree: Callable[[int], None] = lambda cycles: None,
) -> Deployment:
    """Brings a model's canister to run this module.

    Args:
        agent: signs as the canister's controller.
        network: where.
        project: keeps the canister's id under `name`.
        name: such as "model".
        wasm: the module.
        mode: "auto" installs into an empty canister and upgrades one that has code.
        canister_id: use this one, and keep its id.
        say: told in words what is being done.
        agree: told what the installation costs at most, before it is begun; raises to prevent it.
    """
    done = install(agent, network, project, name, wasm, mode, canister_id, say=say, agree=agree)
    if network.name == "local" and done.action in ("install", "reinstall"):
        ModelCanister(agent, done.canister_id).set_public(True)
        return replace(done, made_public=True)
    return done


def install(
    agent: Agent,
    network: Network,
    project: Project,
    name: str,
    wasm: bytes,
    mode: Mode = "auto",
    canister_id: bytes | None = None,
    *,
    argument: bytes = EMPTY_ARGUMENT,
    settled: bool = True,
    what: str = "the code",
    say: Callable[[str], None] = lambda text: None,
    agree: Callable[[int], None] = lambda cycles: None,
) -> Deployment:
    """Brings any canister to run a module. Takes what `deploy` takes, and more.

    `argument` is what the module is told when it is installed or upgraded, `settled` says that a
    canister which runs the module already needs no telling, and `what` is installed, in words.
    """
    project.check_name(name)
    known = canister_id or project.lookup(name, network.name)
    created = False
    if known is not None and agent.controllers(known) is None:
        if canister_id is not None or network.mainnet:
            raise UsageError(
                f"there is no canister {to_text(known)} on '{network.name}'",
                "Compare the id with the one that `icp` or `dfx` gave when it was created.",
            )
        known = None  # a local network that was set up anew has forgotten it
    if known is None:
        known = _create(agent, network, say, name)
        created = True
    files = project.remember(name, network.name, known)

    digest = hashlib.sha256(wasm).digest()
    action = _action(mode, agent.module_hash(known), digest, settled)
    if action != "none":
        agree(installation_cycles(wasm))
        say(f"{_DOING[action]} {what}, {len(wasm) / 1e6:.1f} MB")
        if action == "upgrade":
            # A call of the old code that is still open must not be answered by the new code.
            with _stopped(agent, known):
                _install(agent, known, wasm, digest, action, argument)
        else:
            _install(agent, known, wasm, digest, action, argument)
        if agent.module_hash(known) != digest:
            raise IcgptError("the canister runs other code than was installed", "Deploy again.")
    return Deployment(known, created, action, digest, False, files)


def deploy_fleet(
    agent: Agent,
    network: Network,
    project: Project,
    name: str,
    replicas: int,
    wasm: bytes,
    mode: Mode = "auto",
    say: Callable[[str], None] = lambda text: None,
    agree: Callable[[int], None] = lambda cycles: None,
) -> dict[str, Deployment]:
    """Brings so many canisters to run this module, and lets them answer together to a name.

    They are called `name`, `name`-2, `name`-3 and so on; takes what `deploy` takes.
    """
    done = {}
    for member in fleet_names(name, replicas):
        done[member] = deploy(agent, network, project, member, wasm, mode, say=say, agree=agree)
    project.remember_fleet(name, network.name, list(done))
    return done


def fleet_names(name: str, replicas: int) -> list[str]:
    """What the canisters of a fleet are called; the first has the fleet's own name."""
    return [name, *(f"{name}-{number}" for number in range(2, replicas + 1))]


def new_canister(
    agent: Agent, network: Network, wasm: bytes, argument: bytes = EMPTY_ARGUMENT
) -> bytes:
    """Creates a canister with any module in it; its id is returned and written down nowhere."""
    canister = _create(agent, network, lambda text: None)
    _install(agent, canister, wasm, hashlib.sha256(wasm).digest(), "install", argument)
    return canister


def installation_cycles(wasm: bytes) -> int:
    """What installing a module costs at most, not counting what its own start-up does."""
    messages = 1 if len(wasm) <= ONE_MESSAGE_BYTES else 3 + -(-len(wasm) // CHUNK_BYTES)
    return cost.calls_cycles(messages, len(wasm)) + COMPILE_CYCLES_PER_BYTE * _plain_length(wasm)


def _plain_length(wasm: bytes) -> int:
    """Bytes of a module when it is unpacked."""
    if not wasm.startswith(b"\x1f\x8b"):
        return len(wasm)
    unpacker = zlib.decompressobj(wbits=31)
    try:
        return len(unpacker.decompress(wasm, MAX_WASM_BYTES))
    except zlib.error as error:
        raise UsageError(f"the packed module is damaged: {error}", _MODULE) from error


def _action(mode: Mode, installed: bytes | None, digest: bytes, settled: bool) -> str:
    if mode == "auto":
        if installed == digest and settled:
            return "none"
        return "upgrade" if installed else "install"
    if mode == "install" and installed:
        raise UsageError(
            "the canister has code already", "Use --mode upgrade, or reinstall to lose its model."
        )
    if mode == "upgrade" and not installed:
        raise UsageError("the canister has no code to upgrade", "Use --mode install.")
    return mode


def _create(
    agent: Agent, network: Network, say: Callable[[str], None], name: str = DEFAULT_NAME
) -> bytes:
    if network.mainnet:
        which = "" if name == DEFAULT_NAME else f" --canister {name}"
        raise UsageError(
            "a canister on mainnet costs cycles, and icgpt does not spend them unasked",
            f"Create one with `icp canister create` or `dfx canister create {name} --network ic`, "
            f"then name it: icgpt deploy --network ic --identity PEM{which} --canister-id ID",
        )
    say("Creating a canister")
    effective = MANAGEMENT
    if network.effective_canister_id:
        effective = from_text(network.effective_canister_id)
    (answer,) = _manage(
        agent,
        "provisional_create_canister_with_cycles",
        _CREATE,
        {"amount": LOCAL_CYCLES},
        effective,
        results=(_ID,),
    )
    return bytes(answer["canister_id"])


@contextlib.contextmanager
def _stopped(agent: Agent, canister: bytes) -> Iterator[None]:
    """Stops a canister, which lets its open calls end, and starts it again in any case."""
    _manage(agent, "stop_canister", _ID, {"canister_id": canister}, canister)
    try:
        yield
    finally:
        _manage(agent, "start_canister", _ID, {"canister_id": canister}, canister)


def _install(
    agent: Agent,
    canister: bytes,
    wasm: bytes,
    digest: bytes,
    action: str,
    argument: bytes = EMPTY_ARGUMENT,
) -> None:
    mode = {action: None}
    if len(wasm) <= ONE_MESSAGE_BYTES:
        value = {
            "mode": mode,
            "canister_id": canister,
            "wasm_module": wasm,
            "arg": argument,
        }
        _manage(agent, "install_code", _INSTALL, value, canister)
        return
    _manage(agent, "clear_chunk_store", _ID, {"canister_id": canister}, canister)
    hashes = []
    for start in range(0, len(wasm), CHUNK_BYTES):
        chunk = wasm[start : start + CHUNK_BYTES]
        value = {"canister_id": canister, "chunk": chunk}
        _manage(agent, "upload_chunk", _CHUNK, value, canister)
        hashes.append({"hash": hashlib.sha256(chunk).digest()})
    value = {
        "mode": mode,
        "target_canister": canister,
        "chunk_hashes_list": hashes,
        "wasm_module_hash": digest,
        "arg": argument,
    }
    _manage(agent, "install_chunked_code", _INSTALL_CHUNKED, value, canister)
    _manage(agent, "clear_chunk_store", _ID, {"canister_id": canister}, canister)


def _manage(
    agent: Agent,
    method: str,
    kind: Type,
    value: dict[str, Any],
    effective: bytes,
    results: tuple[Type, ...] = (),
) -> list[Any]:
    """A call on the management canister."""
    reply = agent.update(MANAGEMENT, method, candid.encode([kind], [value]), effective)
    try:
        return candid.decode(reply, results)
    except candid.CandidError as error:
        raise NetworkError(
            f"the network answered '{method}' in a form that we don't know"
        ) from error
