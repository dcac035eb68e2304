"""Keys as dfx and icp write them, the default key, and files that hold none."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

from icgpt import identity
from icgpt.errors import IdentityError
from icgpt.principal import self_authenticating

SEED = bytes(range(32))
ED = ed25519.Ed25519PrivateKey.from_private_bytes(SEED)
K1 = ec.derive_private_key(int.from_bytes(SEED, "big"), ec.SECP256K1())


def pem(label: str, der: bytes) -> bytes:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


def version_2(key: ed25519.Ed25519PrivateKey) -> bytes:
    """PKCS#8 version 2, with the public key, as ring and with it dfx write it."""
    inner = bytes.fromhex("020101300506032b657004220420") + key.private_bytes_raw()
    inner += bytes.fromhex("a123032100") + key.public_key().public_bytes_raw()
    return b"\x30" + bytes([len(inner)]) + inner


PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
FORMS = {
    "ed25519": ED.private_bytes(*PKCS8),
    "ed25519 of dfx": pem("PRIVATE KEY", version_2(ED)),
    "secp256k1 of icp": K1.private_bytes(*PKCS8),
    "secp256k1": K1.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
    "secp256k1 of dfx": pem("EC PARAMETERS", bytes.fromhex("06052b8104000a"))
    + K1.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
}


@pytest.mark.parametrize("form", FORMS)
def test_keys_of_every_form_sign(form: str) -> None:
    who = identity.from_pem(FORMS[form])
    public = (ED if form.startswith("ed") else K1).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert who.principal == self_authenticating(der)
    shown, signature = who.signer.sign(b"message")
    assert shown == der
    key = load_der_public_key(der)
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, b"message")
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        halves = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        key.verify(utils.encode_dss_signature(*halves), b"message", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "no private key"),
        (b"hello", "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----", "damaged"),
        (pem("PRIVATE KEY", b"\x30\x03\x02\x01\x00"), "no key"),
        (pem("PRIVATE KEY", version_2(ED)[:30]), "no key"),
        (ec.generate_private_key(ec.SECP256R1()).private_bytes(*PKCS8), "of a kind"),
        (
            ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
            "encrypted",
        ),
        (b"x" * 100_000, "too large"),
    ],
)
def test_what_is_no_key(data: bytes, word: str) -> None:
    with pytest.raises(IdentityError, match=word):
        identity.from_pem(data)


def test_the_default_key_is_made_once_and_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICGPT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("ICGPT_IDENTITY", raising=False)
    first = identity.load()
    path = tmp_path / "config" / "identity.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert identity.load().principal == first.principal
    assert [one.name for one in path.parent.iterdir()] == ["identity.pem"]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setenv("ICGPT_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("ICGPT_IDENTITY", raising=False)
    assert identity.load().principal == identity.load().principal
    assert [one.name for one in tmp_path.iterdir()] == ["identity.pem"]


def test_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "me.pem"
    file.write_bytes(FORMS["ed25519"])
    assert identity.load("anonymous").anonymous
    monkeypatch.setenv("ICGPT_IDENTITY", str(file))
    assert identity.load().principal == identity.from_pem(FORMS["ed25519"]).principal
    assert identity.load("anonymous").anonymous
    with pytest.raises(IdentityError, match="can't read"):
        identity.load(str(tmp_path / "none.pem"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_place_for_the_default_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("ICGPT_CONFIG_DIR", str(tmp_path / "config"))
    with pytest.raises(IdentityError, match="can't make"):
        identity.load()
