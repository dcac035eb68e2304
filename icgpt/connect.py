"""From the name of a network to an agent: its address, and the root key to verify it by.

`local` is the network of `icgpt network start`, whose key is read from its own state. `ic` is
mainnet, with the key that this package carries. Anything else is an address, such as that of a
network that dfx or icp runs on port 4943; its key is pinned on first use.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from icgpt.agent import Agent, AsyncAgent, fetch_root_key
from icgpt.certificate import MAINNET_ROOT_KEY
from icgpt.errors import NetworkError, UsageError, VerificationError
from icgpt.files import write_atomically
from icgpt.identity import Identity, config_dir
from icgpt.transport import LOOPBACK

MAINNET_URL = "https://icp-api.io"
LOCAL_URL = "http://127.0.0.1:4943"
_MAINNET_HOSTS = ("icp-api.io", "icp0.io", "ic0.app")


@dataclass(frozen=True)
class Network:
    """A network that can be talked to."""

    name: str
    """As the id files call it: "local", "ic", or the address."""
    url: str
    root_key: bytes
    effective_canister_id: str | None = None
    """Where a new canister may be asked for, on networks that give them away."""

    @property
    def mainnet(self) -> bool:
        """Whether cycles cost money here."""
        return self.root_key == MAINNET_ROOT_KEY


def resolve(choice: str | None = None) -> Network:
    """The network that a choice names; None is $ICGPT_NETWORK, or else `local`."""
    choice = choice or os.environ.get("ICGPT_NETWORK") or "local"
    if choice == "ic":
        return Network("ic", MAINNET_URL, MAINNET_ROOT_KEY)
    if choice == "local":
        return _local()
    url = checked_url(choice)
    host = urlsplit(url).hostname or ""
    if any(host == one or host.endswith("." + one) for one in _MAINNET_HOSTS):
        return Network("ic", url, MAINNET_ROOT_KEY)
    # The tools' own local network goes by the tools' name for it, so that their ids are found.
    return Network("local" if url == LOCAL_URL else url, url, pinned_key(url))


def connect(network: Network, identity: Identity | None = None) -> Agent:
    """An agent for a network."""
    return Agent(network.url, network.root_key, identity)


def connect_async(network: Network, identity: Identity | None = None) -> AsyncAgent:
    """An agent for a network, for asyncio."""
    return AsyncAgent(network.url, network.root_key, identity)


def _local() -> Network:
    from icgpt import network

    info = network.status(network.default_state_dir())
    if info is not None:
        return Network("local", info.url, info.root_key, info.default_effective_canister_id)
    hint = "Start it with: icgpt network start"
    try:
        fetch_root_key(LOCAL_URL)
    except (NetworkError, VerificationError):
        pass  # nobody there, or nobody that we could talk to
    else:
        hint += f"; or use the one of another program: --network {LOCAL_URL}"
    raise NetworkError("the local network isn't running", hint)


def checked_url(text: str) -> str:
    """An address in one form; UsageError for what is none, or sends calls in the clear."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"'{text}' is no network", "Networks are: local, ic, or an http(s) address."
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UsageError(
            f"'{text}' would be spoken to unencrypted", "Use https, or a network on this machine."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


# --- Keys pinned on first use


def pins_path() -> Path:
    """The file of pinned root keys: {"address": "key in hex"}."""
    return config_dir() / "root_keys.json"


def pinned_key(url: str) -> bytes:
    """The network's root key: as pinned, or the one it gives now, which is then pinned."""
    offered = fetch_root_key(url)
    known = read_pins().get(url) or pin(url, offered, again=False)
    if known != offered.hex():
        raise VerificationError(
            f"{url} shows another root key than when it was first used",
            f"If that network was set up anew, trust its new key with: icgpt network trust {url}",
        )
    return offered


def pin(url: str, key: bytes, again: bool = True) -> str:
    """Trusts this key for this address from now on; the key that is trusted, in hex.

    Args:
        url: the network's address.
        key: its root key.
        again: also when another one is trusted already.
    """
    path = pins_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Two processes must not drop each other's pins.
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            pins = read_pins()
            if again or url not in pins:
                pins[url] = key.hex()
                write_atomically(path, json.dumps(pins, indent=2).encode() + b"\n")
            return pins[url]
    except OSError as error:
        raise VerificationError(
            f"can't keep the root key in {path}: {error.strerror}",
            "Make room there, or set ICGPT_CONFIG_DIR to another folder.",
        ) from error


def read_pins() -> dict[str, str]:
    """What `pins_path` holds."""
    path = pins_path()
    try:
        pins = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise VerificationError(
            f"can't read the pinned root keys in {path}", "Correct or remove that file."
        ) from error
    if not isinstance(pins, dict) or not all(isinstance(v, str) for v in pins.values()):
        raise VerificationError(f"{path} is malformed", "Correct or remove that file.")
    return pins
