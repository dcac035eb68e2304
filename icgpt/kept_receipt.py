"""A receipt to keep: one file that proves which canister, code and model wrote a text.

Three certificates of the subnet, and what hangs on them (`KeptReceipt.verify` checks all of it):

1. `asked`: the canister took this prompt with these options as this job, and ran this module.
2. `proof`: the canister's certified data has the hash of the job: prompt ids, options, seed, model
   and answer (`icgpt.receipts`).
3. `answered`: to `poll`, called as an update, the canister gave this text for that job, and ran the
   same module.

`shows` is the same for people; it must be exactly what is proven. The file is a stranger's: its
size is capped, its form is checked, and every fault in it is a VerificationError.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from icgpt import candid, receipts
from icgpt.candid import BLOB, NAT32
from icgpt.errors import IcgptError, UsageError, VerificationError
from icgpt.evidence import CallEvidence
from icgpt.files import write_atomically
from icgpt.interface import METHODS, OPTIONS, PROMPT
from icgpt.principal import from_text, to_text
from icgpt.results import Completion

VERSION: Final = 1
MAX_FILE_BYTES: Final = 16 << 20
_PARTS: Final = ("certificate", "witness", "receipt")
_CALL: Final = ("arg", "sender", "ingress_expiry", "nonce", "certificate")
_FIELDS: Final = (
    *("icgpt_receipt", "network", "canister", "job"),
    *("shows", "asked", "proof", "answered"),
)


@dataclass(frozen=True)
class Proven:
    """What a receipt proves."""

    canister: bytes
    job: bytes
    caller: bytes
    """The principal that asked."""
    prompt: str | list[int]
    """As it was asked."""
    prompt_ids: list[int]
    """As the model read it, a template's ids among them."""
    options: dict[str, Any]
    """As they were asked for; None where the canister's default was taken."""
    seed: int
    text: str | None
    """None when the model has no tokenizer."""
    token_ids: list[int]
    finish: str
    model: bytes
    """SHA-256 of the packed weights: `layout_sha256` of the model."""
    module_hash: bytes
    """SHA-256 of the canister's code, before and after the answer."""
    installed_ns: int | None
    """When that code was installed; None where the network does not certify it."""
    asked_ns: int
    answered_ns: int
    """The subnet's own time, in nanoseconds since 1970."""
    sequences: list[dict[str, Any]] | None = None
    """All answers, the first among them, where there are several: `text`, `token_ids`, `finish`
    and `score`."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `shows` has them in a file of this version."""
        several = {} if self.sequences is None else {"sequences": self.sequences}
        return {
            "prompt": self.prompt,
            "text": self.text,
            "finish": self.finish,
            "options": {name: one for name, one in self.options.items() if one is not None},
            "seed": self.seed,
            "prompt_ids": self.prompt_ids,
            "token_ids": self.token_ids,
            "model": self.model.hex(),
            "module_hash": self.module_hash.hex(),
            "installed_at": None if self.installed_ns is None else time_text(self.installed_ns),
            "caller": to_text(self.caller),
            "asked_at": time_text(self.asked_ns),
            "answered_at": time_text(self.answered_ns),
            **several,
        }


@dataclass(frozen=True)
class KeptReceipt:
    """What a file of a receipt holds; nothing of it is believed before `verify`."""

    network: str
    """The network's name for whoever made the file: "ic", "local" or an address."""
    canister: bytes
    job: bytes
    asked: CallEvidence
    proof: dict[str, bytes]
    answered: CallEvidence
    shows: dict[str, Any] | None = None
    """What the file says it shows; None before it was written."""

    def verify(self, root_key: bytes) -> Proven:
        """What is proven under a network's root key; VerificationError unless all of it holds.

        Args:
            root_key: DER of the network's root key, from where it is trusted: never from the file.
        """
        try:
            return self._verified(root_key)
        except VerificationError as error:
            if error.hint == VerificationError.usual_hint:  # speaks of live answers
                error.hint = _CHANGED
            raise

    def _verified(self, root_key: bytes) -> Proven:
        asked = self.asked.check(self.canister, "submit", root_key)
        answered = self.answered.check(self.canister, "poll", root_key)
        receipt = receipts.verify(self.proof, self.job, self.canister, root_key, fresh=False)

        prompt, options = _decoded(self.asked.arg, [PROMPT, OPTIONS])
        _expect(bytes(_ok(asked.reply, "submit")) == self.job, "another job was asked for")
        _expect(options == receipt.options, "the job's options are not those that were asked for")
        _expect(options["seed"] in (None, receipt.seed), "the seed is not the one asked for")
        ids = _prompt_ids(prompt)
        _expect(_within(ids, receipt.prompt), "the job's prompt is not the one that was asked")

        _expect(
            _decoded(self.answered.arg, [BLOB, NAT32]) == [self.job, 0],
            "the text is that of another job, or a part of it",
        )
        told = Completion.from_candid(_ok(answered.reply, "poll"))
        echoed = told.token_ids[: len(told.token_ids) - len(receipt.token_ids)]
        _expect(
            told.token_ids == echoed + receipt.token_ids
            and (_within(echoed, receipt.prompt) if options["echo"] else not echoed)
            and (told.finish, told.seed) == (receipt.finish, receipt.seed),
            "the text belongs to another answer",
        )
        sequences = _sequences(told, receipt, echoed)

        _expect(
            (asked.module_hash, asked.installed_ns)
            == (answered.module_hash, answered.installed_ns),
            "the canister's code was changed while it answered",
        )
        _expect(
            (asked.installed_ns or 0) <= asked.time_ns <= receipt.time_ns <= answered.time_ns,
            "the certificates are not in the order of what they show",
        )
        proven = Proven(
            canister=self.canister,
            job=self.job,
            caller=self.asked.sender,
            prompt=prompt.get("text", ids),
            prompt_ids=receipt.prompt,
            options=options,
            seed=receipt.seed,
            text=told.text,
            token_ids=receipt.token_ids,
            finish=receipt.finish,
            model=receipt.model,
            module_hash=asked.module_hash,
            installed_ns=asked.installed_ns,
            asked_ns=asked.time_ns,
            answered_ns=answered.time_ns,
            sequences=sequences,
        )
        if self.shows is not None and _canonical(self.shows) != _canonical(proven.to_json()):
            raise VerificationError("what the receipt shows is not what it proves")
        return proven

    def write(self, path: Path, root_key: bytes) -> Proven:
        """Checks the receipt once more and writes its file."""
        proven = self.verify(root_key)
        document = {
            "icgpt_receipt": VERSION,
            "network": self.network,
            "canister": to_text(self.canister),
            "job": self.job.hex(),
            "shows": proven.to_json(),
            "asked": _call_json(self.asked),
            "proof": {name: self.proof[name].hex() for name in _PARTS},
            "answered": _call_json(self.answered),
        }
        text = json.dumps(document, indent=1, ensure_ascii=False)
        try:
            write_atomically(path, text.encode() + b"\n")
        except OSError as error:
            raise IcgptError(
                f"can't write {path}: {error.strerror}",
                "Make room there, or name another file with --receipt.",
            ) from error
        return proven


def _sequences(
    told: Completion, receipt: receipts.Receipt, echoed: list[int]
) -> list[dict[str, Any]] | None:
    """All of several answers with their texts, which must be those of the receipt."""
    if told.sequences is None or receipt.sequences is None:
        none = told.sequences is None and receipt.sequences is None
        _expect(none, "the texts belong to other answers")
        return None
    _expect(
        [(one.token_ids, one.finish, one.score) for one in told.sequences]
        == [(echoed + one["token_ids"], one["finish"], one["score"]) for one in receipt.sequences],
        "the texts belong to other answers",
    )
    pairs = zip(told.sequences, receipt.sequences, strict=True)
    return [{"text": one.text, **proven} for one, proven in pairs]


def read(path: Path) -> KeptReceipt:
    """Reads a receipt's file. What it proves is for `verify` to say."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"can't read {path}: {error.strerror}", "Name a file that --receipt wrote."
        ) from error
    return parse(data)


def parse(data: bytes) -> KeptReceipt:
    """A receipt from the bytes of its file."""
    if len(data) > MAX_FILE_BYTES:
        raise _unreadable(f"it has more than {MAX_FILE_BYTES >> 20} MiB")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _unreadable("it is not valid JSON") from error
    if not isinstance(document, dict) or "icgpt_receipt" not in document:
        raise _unreadable("nothing in it says so")
    version = document["icgpt_receipt"]
    if type(version) is not int or version != VERSION:
        raise VerificationError(
            "the receipt has a form that this version of icgpt does not know",
            f"Form {VERSION} is known. Use the version of icgpt that wrote it, or a newer one.",
        )
    _exactly(document, _FIELDS, "the file")
    network, canister, shows = (document[name] for name in ("network", "canister", "shows"))
    if not isinstance(network, str) or not isinstance(canister, str):
        raise _unreadable("its network or canister is no text")
    if not isinstance(shows, dict):
        raise _unreadable("it shows nothing")
    try:
        canister_id = from_text(canister)
    except ValueError as error:
        raise _unreadable(str(error)) from error
    proof = document["proof"]
    _exactly(proof, _PARTS, "its proof")
    return KeptReceipt(
        network=network,
        canister=canister_id,
        job=_bytes(document["job"]),
        asked=_call(document["asked"]),
        proof={name: _bytes(proof[name]) for name in _PARTS},
        answered=_call(document["answered"]),
        shows=shows,
    )


def time_text(time_ns: int) -> str:
    """The subnet's time for people, to the second."""
    try:
        return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError) as error:
        raise VerificationError("the certificate's time is none") from error


# --- What is proven

_CHANGED: Final = "The file was changed after it was made, or it is of another network."


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise VerificationError(otherwise, "The file was put together from parts of others.")


def _decoded(data: bytes, types: Sequence[candid.Type]) -> list[Any]:
    try:
        return candid.decode(data, types)
    except candid.CandidError as error:
        raise VerificationError(
            "a call in the receipt can't be read", "It may be of another version of icgpt."
        ) from error


def _ok(reply: bytes, method: str) -> Any:
    (result,) = _decoded(reply, METHODS[method].results)
    if "Ok" not in result:
        raise VerificationError(f"the canister refused '{method}'")
    return result["Ok"]


def _prompt_ids(prompt: dict[str, Any]) -> list[int]:
    """Ids that were asked with; none when it was a text, which the canister's code has read."""
    return [int(one) for one in prompt.get("token_ids", ())]


def _within(part: list[int], whole: list[int]) -> bool:
    """Whether a list stands in another one as it is."""
    # As texts, because searching in those takes no longer when a stranger chose the lists.
    return max(part + whole, default=0) < sys.maxunicode and _text(part) in _text(whole)


def _text(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def _canonical(value: dict[str, Any]) -> str:
    """One text for equal values, in which 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True)


# --- The file


def _call_json(call: CallEvidence) -> dict[str, Any]:
    value = {name: getattr(call, name) for name in _CALL}
    return {name: one.hex() if isinstance(one, bytes) else one for name, one in value.items()}


def _call(value: Any) -> CallEvidence:
    _exactly(value, _CALL, "a call")
    expiry = value["ingress_expiry"]
    if type(expiry) is not int or not 0 <= expiry < 1 << 64:
        raise _unreadable("a call's expiry is no time")
    known = {name: _bytes(value[name]) for name in _CALL if name != "ingress_expiry"}
    return CallEvidence(**known, ingress_expiry=expiry)


def _bytes(value: Any) -> bytes:
    try:
        data = bytes.fromhex(value)
    except (ValueError, TypeError) as error:
        raise _unreadable("a part of it is no hexadecimal number") from error
    if data.hex() != value:
        raise _unreadable("a part of it is no hexadecimal number")
    return data


def _exactly(value: Any, names: Sequence[str], what: str) -> None:
    if not isinstance(value, dict) or set(value) != set(names):
        raise _unreadable(f"{what} has other fields than a receipt's")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands there twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _unreadable(why: str) -> VerificationError:
    return VerificationError(
        f"this is no receipt of icgpt: {why}", "Receipts are made with: icgpt generate --receipt"
    )
