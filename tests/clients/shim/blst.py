"""The part of blst's Python binding that icp-py-core uses, over another BLS library."""

from __future__ import annotations

from typing import Any

import py_arkworks_bls12381 as bls

BLST_SUCCESS, BLST_VERIFY_FAIL = 0, 5


class P2_Affine:  # noqa: N801 - the binding's name
    """A public key."""

    def __init__(self, data: bytes) -> None:
        self.point = bls.G2Point.from_compressed_bytes(bytes(data))


class P1_Affine:  # noqa: N801 - the binding's name
    """A signature."""

    def __init__(self, data: bytes) -> None:
        self.point = bls.G1Point.from_compressed_bytes(bytes(data))

    def core_verify(
        self, key: P2_Affine, _hash: bool, message: bytes, domain: bytes, augmentation: Any = None
    ) -> int:
        hashed = bls.G1Point.hash_to_curve(bytes(augmentation or b"") + message, domain)
        holds = bls.GT.pairing_check([self.point, hashed], [-bls.G2Point(), key.point])
        return BLST_SUCCESS if holds else BLST_VERIFY_FAIL


class Pairing:
    """Never reached: `core_verify` answers first."""
