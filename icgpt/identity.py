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
from typing import TYPE_CHECKING, Any, Protocol

from icgpt.errors import IdentityError
from icgpt.principal import ANONYMOUS, self_authenticating, to_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

MAX_PEM_BYTES = 64 << 10
_ED25519_OID = bytes.fromhex("06032b6570")
_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9 ]*PRIVATE KEY)-----(?P<body>[^-]*)-----END (?P=label)-----"
)


class Signer(Protocol):
    """What signs: a key of this module, or any identity of ic-py."""

    def sign(self, message: bytes) -> tuple[bytes | None, bytes | None]:
        """Public key in DER, and signature; None twice for nobody."""


@dataclass(frozen=True)
class Identity:
    """Who calls.

    An identity of ic-py is taken as it is, one with delegations too: `Identity.of(identity)`.
    """

    signer: Signer
    principal: bytes
    source: str
    """Where the key came from, for messages."""

    @classmethod
    def of(cls, signer: Any, source: str = "ic-py") -> Identity:
        """The identity that an identity of ic-py stands for."""
        return cls(signer, bytes(signer.sender().bytes), source)

    def sign(self, message: bytes) -> dict[str, Any]:
        """The fields of an envelope that show that this identity sent the message."""
        key, signature = self.signer.sign(message)
        if key is None:
            return {}
        shown = {"sender_pubkey": key, "sender_sig": signature}
        delegations = getattr(self.signer, "delegations", None)
        if delegations is None:
            return shown
        own = getattr(self.signer, "der_pubkey", key)
        return {**shown, "sender_pubkey": own, "sender_delegation": delegations}

    @property
    def anonymous(self) -> bool:
        """Whether calls go unsigned."""
        return self.principal == ANONYMOUS

    def __str__(self) -> str:
        return to_text(self.principal)

    def to_ic_py(self) -> Any:
        """The same as an identity of ic-py, for use with its own agent."""
        from ic.identity import Identity as Other

        match self.signer:
            case _Nobody():
                return Other(anonymous=True)
            case _Ed25519(key):
                return Other(key.private_bytes_raw().hex(), "ed25519")
            case _Secp256k1(key):
                return Other(f"{key.private_numbers().private_value:064x}", "secp256k1")
        return self.signer


def anonymous() -> Identity:
    """The identity of those who don't sign."""
    return Identity(_Nobody(), ANONYMOUS, "anonymous")


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
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    signer: Signer
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key, Ed25519PrivateKey):
        signer = _Ed25519(key, der)
    elif isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256K1):
        signer = _Secp256k1(key, der)
    else:
        raise IdentityError(
            f"the key in {source} is of a kind that we don't sign with",
            "Ed25519 and secp256k1 keys are supported.",
        )
    return Identity(signer, self_authenticating(der), source)


class _Nobody:
    def sign(self, message: bytes) -> tuple[None, None]:
        return None, None


@dataclass(frozen=True)
class _Ed25519:
    key: Ed25519PrivateKey
    der: bytes

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        return self.der, self.key.sign(message)


@dataclass(frozen=True)
class _Secp256k1:
    key: EllipticCurvePrivateKey
    der: bytes

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        halves = decode_dss_signature(self.key.sign(message, ECDSA(SHA256())))
        return self.der, b"".join(half.to_bytes(32, "big") for half in halves)


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
