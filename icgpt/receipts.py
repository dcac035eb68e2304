"""Receipts: proof that a canister gave an answer, which anyone can check later without a network.

The canister keeps a hash tree with the SHA-256 of each finished job's receipt, and the subnet signs
the tree's root with the rest of its state. So `certificate`, `witness` and `receipt` together prove
what was asked and answered, with which model, as of the certificate's own time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from icgpt import candid, certificate
from icgpt.errors import VerificationError
from icgpt.interface import RECEIPT


@dataclass(frozen=True)
class Receipt:
    """A finished job whose proof holds."""

    job: bytes
    prompt: list[int]
    """Token ids, the template's among them."""
    options: dict[str, Any]
    """As they were asked for; None where the canister's default was taken."""
    seed: int
    model: bytes
    """Names the model, as in the canister's tree."""
    token_ids: list[int]
    finish: str
    time_ns: int
    """When the subnet signed: nanoseconds since 1970."""
    sequences: list[dict[str, Any]] | None = None
    """All answers, where there are several: `token_ids`, `finish` and `score` of each."""


def verify(
    parts: dict[str, bytes],
    job: bytes,
    canister_id: bytes,
    root_key: bytes,
    *,
    fresh: bool = True,
) -> Receipt:
    """Checks what `job_certificate` gave; raises VerificationError unless all of it holds.

    Args:
        parts: `certificate`, `witness` and `receipt`.
        job: the job's id.
        canister_id: the canister that answered.
        root_key: DER of the network's root key.
        fresh: the certificate must be of the last five minutes; False for one that was kept.
    """
    proof = certificate.parse(parts["certificate"], root_key, canister_id, fresh=fresh)
    certified = proof.lookup(b"canister", canister_id, b"certified_data")
    witness = certificate.decode_cbor(parts["witness"], "the job's witness")
    if certified is None or certificate.root_hash(witness) != certified:
        raise VerificationError("the job's witness is not what the subnet certified")
    leaf = certificate.find(witness, [b"jobs", job])
    if leaf is None or leaf[0] != certificate.LEAF:
        raise VerificationError("the witness has no such job")
    if hashlib.sha256(parts["receipt"]).digest() != leaf[1]:
        raise VerificationError("the receipt is not the certified one")
    try:
        (value,) = candid.decode(parts["receipt"], [RECEIPT])
    except candid.CandidError as error:
        raise VerificationError(
            "the receipt can't be read", "It may be of another version of icgpt."
        ) from error
    return Receipt(
        job=job,
        prompt=list(value["prompt"]),
        options=dict(value["options"]),
        seed=value["seed"],
        model=value["model"],
        token_ids=list(value["token_ids"]),
        finish=next(iter(value["finish"])),
        time_ns=proof.time_ns,
        sequences=_sequences(value["sequences"]),
    )


def _sequences(value: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    return [{**one, "finish": next(iter(one["finish"]))} for one in value]
