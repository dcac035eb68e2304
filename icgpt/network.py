"""Starting, finding and stopping the local network, which runs as a process of its own.

The process holds a lock on its state folder for as long as it lives, and `network.json` in there
says where it answers; so a file that a killed process left behind is told from a live one, and a
process id is never trusted on its own. The log is `network.log` in the same folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cbor2
import platformdirs
import requests

from icgpt.errors import IcgptError

DEFAULT_PORT = 4943
START_SECONDS = 60.0
STOP_SECONDS = 180.0
_EXIT_PORT, _EXIT_IN_USE = 3, 4
_OURS = (
    *("canisters", "chunks", "snapshots", "secret", "subnet.0", "subnet.1", "subnet.log"),
    *("network.json", "network.log", "lock"),
)
_children: dict[int, subprocess.Popen[bytes]] = {}


class LocalNetworkError(IcgptError):
    """The local network could not be started or stopped."""

    kind = "local_network"


class PortInUseError(LocalNetworkError):
    """Something else listens on the wanted port."""

    kind = "port_in_use"


class AlreadyRunningError(LocalNetworkError):
    """A network runs in this state folder."""

    kind = "already_running"


@dataclass(frozen=True)
class NetworkInfo:
    """A local network that runs."""

    url: str
    port: int
    pid: int
    root_key: bytes
    state_dir: Path
    default_effective_canister_id: str


def default_state_dir() -> Path:
    """Return where the network keeps its state: $ICGPT_STATE_DIR, or the user's data folder."""
    chosen = os.environ.get("ICGPT_STATE_DIR")
    if chosen:
        return Path(chosen)
    return Path(platformdirs.user_data_dir("icgpt", appauthor=False)) / "network"


def start(
    state_dir: Path | None = None,
    port: int | None = None,
    background: bool = True,
    *,
    sync: bool = False,
) -> NetworkInfo:
    """Start the network and return once it answers; in the foreground, once it has ended.

    Without a port it is 4943, or a free one when that is taken; 0 always takes a free one.
    With `sync` it waits for the disk before anything counts as done, so that power failures
    lose nothing either.
    """
    folder = state_dir or default_state_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    running = status(folder)
    if running is not None:
        raise AlreadyRunningError(
            f"a network runs at {running.url} already (state in {folder})",
            "Use it, or end it with: icgpt network stop",
        )
    (folder / "network.json").unlink(missing_ok=True)
    try:
        wanted = DEFAULT_PORT if port is None else port
        process, info = _launch(folder, wanted, background, sync=sync)
    except PortInUseError:
        if port is not None:
            raise
        process, info = _launch(folder, 0, background, sync=sync)
    if background:
        _children[process.pid] = process
    else:
        _wait_in_foreground(process)
    return info


def _launch(
    folder: Path, port: int, background: bool, *, sync: bool
) -> tuple[subprocess.Popen[bytes], NetworkInfo]:
    command = [sys.executable, "-m", "icgpt.replica"]
    command += ["--state-dir", str(folder), "--port", str(port)]
    command += ["--sync"] if sync else []
    log_file = folder / "network.log"
    with log_file.open("ab") as log:
        start_of_log = log.tell()
        process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=log if background else None,
            stderr=log if background else None,
            start_new_session=background,
        )
    try:
        info = _await_answer(folder, process)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if info is not None:
        return process, info
    if process.returncode == _EXIT_PORT:
        raise PortInUseError(
            f"port {port} is in use by another program", "Choose another one with --port."
        )
    if process.returncode == _EXIT_IN_USE:
        raise AlreadyRunningError(
            f"another process works on {folder}",
            "Wait until it ends, or set ICGPT_STATE_DIR to another folder.",
        )
    said = log_file.read_bytes()[start_of_log:].decode(errors="replace").strip()
    raise LocalNetworkError(
        "the local network did not start: " + (said.splitlines() or ["it said nothing"])[-1],
        f"Its log is {log_file}.",
    )


def _await_answer(folder: Path, process: subprocess.Popen[bytes]) -> NetworkInfo | None:
    """Wait until the process answers; None when it ended, or had to be ended, before."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None:
        info = _read(folder)
        if info is not None and info.pid == process.pid and _answers(info):
            return info
        if time.monotonic() > deadline:
            process.terminate()
            process.wait()
        time.sleep(0.02)
    return None


def _wait_in_foreground(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            process.wait()
        except KeyboardInterrupt:
            # The terminal has sent the signal to the process as well; it ends in good order.
            continue


def status(state_dir: Path | None = None) -> NetworkInfo | None:
    """Return the network of this state folder if it runs and answers."""
    folder = state_dir or default_state_dir()
    info = _read(folder)
    if info is None:
        return None
    if not _locked(folder):
        (folder / "network.json").unlink(missing_ok=True)
        return None
    return info if _answers(info) else None


def root_key(state_dir: Path) -> bytes | None:
    """Return the root key of the network of this state folder, running or not."""
    secret = state_dir / "secret"
    if not secret.is_file():
        return None
    from icgpt.replica.certification import Keys

    return Keys.open(secret).root_key


def stop(state_dir: Path | None = None) -> bool:
    """End the network after its message at hand; False when none was running."""
    folder = state_dir or default_state_dir()
    info = _read(folder)
    if info is None or not _locked(folder):
        (folder / "network.json").unlink(missing_ok=True)
        return False
    if not _answers(info):
        raise LocalNetworkError(
            f"the network in {folder} does not answer at {info.url}",
            f"It may be ending already; otherwise end process {info.pid} by hand.",
        )
    os.kill(info.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _locked(folder):
        if time.monotonic() > deadline:
            raise LocalNetworkError(
                f"the network has not ended within {STOP_SECONDS:.0f} seconds",
                "A long message may still be running; try again in a while.",
            )
        time.sleep(0.02)
    child = _children.pop(info.pid, None)
    if child is not None:
        child.wait()
    return True


def has_canisters(state_dir: Path | None = None) -> bool:
    """Whether canisters or snapshots are kept there, which `reset` would remove."""
    folder = state_dir or default_state_dir()
    return any(any((folder / name).glob("*")) for name in ("canisters", "snapshots"))


def reset(state_dir: Path | None = None) -> None:
    """End the network and remove everything that it kept: canisters, keys, history."""
    folder = state_dir or default_state_dir()
    stop(folder)
    if _locked(folder):
        raise LocalNetworkError(
            f"another process works on {folder}", "Wait a moment and try again."
        )
    left = [
        path.name for name in _OURS for path in folder.glob(f".{name}.*")
    ]  # by a killed process
    for name in (*_OURS, *left):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _read(folder: Path) -> NetworkInfo | None:
    try:
        document = json.loads((folder / "network.json").read_bytes())
        return NetworkInfo(
            url=str(document["url"]),
            port=int(document["port"]),
            pid=int(document["pid"]),
            root_key=bytes.fromhex(document["root_key"]),
            state_dir=folder,
            default_effective_canister_id=str(document["default_effective_canister_id"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _locked(folder: Path) -> bool:
    """Tell whether a network's process holds the folder."""
    try:
        stream = (folder / "lock").open("rb")
    except FileNotFoundError:
        return False
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _answers(info: NetworkInfo) -> bool:
    """Tell whether the address is answered by the network that the file speaks of."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # a proxy has no part in talking to this machine
            answer = session.get(f"{info.url}/api/v2/status", timeout=5)
        document = cbor2.loads(answer.content)
        return isinstance(document, dict) and document.get("root_key") == info.root_key
    except (requests.RequestException, ValueError):
        return False
