"""Root keys that this machine trusts already, for what is checked without a network.

Mainnet's is a constant; the local network's comes from its own state folder, and those of other
addresses were pinned when they were first used. `--root-key` gives any other.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from icgpt import connect, network
from icgpt.certificate import MAINNET_ROOT_KEY, bls_key
from icgpt.errors import UsageError, VerificationError

_MAX_KEY_FILE: Final = 4096
_FORM: Final = "A root key has 133 bytes of DER: in hexadecimal, or in a file."


def name_of(url: str, root_key: bytes) -> str:
    """The name by which `known_root_key` finds the key of a network again."""
    if root_key == MAINNET_ROOT_KEY:
        return "ic"
    return "local" if root_key == network.root_key(network.default_state_dir()) else url


def known_root_key(name: str) -> bytes:
    """The root key of a network: "ic", "local", or an address that was used before."""
    if name == "ic":
        return MAINNET_ROOT_KEY
    if name == "local":
        key = network.root_key(network.default_state_dir())
    else:
        pinned = connect.read_pins().get(connect.checked_url(name))
        key = None if pinned is None else _key(pinned.encode())
    if key is None:
        raise UsageError(
            f"no root key is known here for the network '{name}'",
            "Give it with --root-key; `icgpt network status --json` shows a local network's.",
        )
    return key


def read_root_key(text: str) -> bytes:
    """A root key in hexadecimal, or from a file that holds it so or in DER."""
    try:
        key = _key(text.encode(errors="replace"))
        if key is None:
            with Path(text).open("rb") as file:
                key = _key(file.read(_MAX_KEY_FILE))
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"can't read {text}: {words}", _FORM) from error
    if key is None:
        raise UsageError(f"{text} holds no root key", _FORM)
    return key


def _key(data: bytes) -> bytes | None:
    forms = [data]
    with contextlib.suppress(ValueError):
        forms.append(bytes.fromhex(data.decode().strip()))
    for form in forms:
        with contextlib.suppress(VerificationError):
            bls_key(form)
            return form
    return None
