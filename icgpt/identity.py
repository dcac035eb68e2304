"""Who signs the calls: keys in PEM files as dfx and icp write them, or nobody (anonymous).

Ed25519 and secp256k1 keys, in PKCS#8 (both versions) or SEC1. Without a choice the default key in
the platform's configuration folder is used, and made on first use, readable by its owner alone.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icgpt.errors import IdentityError
from icgpt.principal import to_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MAX_PEM_BYTES = 64 << 10
_ED25519_OID = bytes.fromhex("06032b6570")
_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9 ]*PRIVATE KEY)-----(?P<body>[^-]*)-----END (?P=label)-----"
)


@dataclass(frozen=True)
class Identity:
    """A key that signs calls; `signer` is the identity of ic-py."""

    signer: Any
    principal: bytes
    source: str
    """Where the key came from, for messages."""

    @property
    def anonymous(self) -> bool:
        """Whether calls go unsigned."""
        return self.principal == b"\x04"

    def __str__(self) -> str:
        return to_text(self.principal)


def anonymous() -> Identity:
    """The identity of those who don't sign."""
    return _wrap("anonymous", anonymous=True)


def load(choice: str | os.PathLike[str] | None = None) -> Identity:
    """The identity that a choice names.

    Args:
        choice: a PEM file, "anonymous", or None: $ICGPT_IDENTITY, or else the default key.
    """
    if choice is None:
        choice = os.environ.get("ICGPT_IDENTITY") or None
    if choice is None:
        return _default()
    if str(choice) == "anonymous":
        return anonymous()
    return from_file(Path(choice).expanduser())


def from_file(path: Path) -> Identity:
    """Reads a PEM file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"can't read the key file {path}: {error.strerror}") from error
    return from_pem(data, str(path))


def from_pem(data: bytes, source: str = "PEM") -> Identity:
    """Reads a key from the text of a PEM file."""
    if len(data) > MAX_PEM_BYTES:
        raise IdentityError(f"{source} is too large for a key file")
    block = _BLOCK.search(data)
    if block is None:
        raise IdentityError(
            f"{source} holds no private key in PEM form",
            "dfx writes one with `dfx identity export NAME`, icp with `icp identity export NAME`.",
        )
    if block["label"].startswith(b"ENCRYPTED") or b"ENCRYPTED" in block["body"]:
        raise IdentityError(
            f"the key in {source} is encrypted",
            "Export it unencrypted: `dfx identity export NAME` or `icp identity export NAME`.",
        )
    try:
        der = base64.b64decode(b"".join(block["body"].split()), validate=True)
    except binascii.Error as error:
        raise IdentityError(f"{source} is damaged: {error}") from error
    return _from_key(_read_der(der, source), source)


def _read_der(der: bytes, source: str) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    # PKCS#8 version 2 carries the public key too, which OpenSSL refuses: take the seed by hand.
    # SEQUENCE, version 1, SEQUENCE { 1.3.101.112 }, OCTET STRING { OCTET STRING { 32 bytes } }
    if (
        der[2:5] == b"\x02\x01\x01"
        and der[7:12] == _ED25519_OID
        and der[12:16] == b"\x04\x22\x04\x20"
    ):
        seed = der[16:48]
        if len(seed) == 32:
            return Ed25519PrivateKey.from_private_bytes(seed)
    try:
        return load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{source} holds no key that we can read: {error}") from error


def _from_key(key: PrivateKeyTypes, source: str) -> Identity:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256K1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if isinstance(key, Ed25519PrivateKey):
        return _wrap(source, privkey=key.private_bytes_raw().hex(), type="ed25519")
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256K1):
        number = key.private_numbers().private_value
        return _wrap(source, privkey=f"{number:064x}", type="secp256k1")
    raise IdentityError(
        f"the key in {source} is of a kind that we don't sign with",
        "Ed25519 and secp256k1 keys are supported.",
    )


def _wrap(source: str, **arguments: Any) -> Identity:
    from ic.identity import Identity as Signer

    signer = Signer(**arguments)
    return Identity(signer, bytes(signer.sender().bytes), source)


def config_dir() -> Path:
    """The folder of our own settings; $ICGPT_CONFIG_DIR moves it."""
    if moved := os.environ.get("ICGPT_CONFIG_DIR"):
        return Path(moved)
    import platformdirs

    return Path(platformdirs.user_config_dir("icgpt"))


def default_path() -> Path:
    """Where the default key is kept."""
    return config_dir() / "identity.pem"


def _default() -> Identity:
    path = default_path()
    if not path.exists():
        _create(path)
    return from_file(path)


def _create(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    # Written beside and linked into place, so that two first uses at once agree on one key.
    beside = path.with_name(f".identity-{os.getpid()}.pem")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        try:
            os.link(beside, path)
        except FileExistsError:
            pass  # another process was first: its key it is
        except OSError:
            os.replace(beside, path)  # a file system without links
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise IdentityError(f"can't make the default key {path}: {error.strerror}") from error
