"""What an upload takes before it is made: bytes, messages, cycles, dollars and time.

Prices are those of a 13-node subnet (`icgpt.cost`). Instructions were measured, with the charges
for touched pages, on GPT-2's shape (`./scripts/bench upload`; a test holds the table below to what
it found), and so was the time on a local network. Time on mainnet can't be measured here: what is
given is the least that the platform's limits allow, when nobody else uses the subnet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from icgpt import cost
from icgpt.checkpoint import Checkpoint
from icgpt.sending import CHUNK_BYTES

# Instructions, from docs/performance-upload.json and docs/performance.json.
PER_BYTE: Final = {"write": 95.0, "append": 94.8}
SETUP_PER_PACKED_BYTE: Final = {"f32": 10.2, "int16": 7.9, "int8": 8.4}
SETUP_PER_PARAMETER: Final = {"f32": 398.0, "int16": 300.0, "int8": 202.0}
# Of the machine that the figures were measured on.
LOCAL_BYTES_PER_SECOND: Final = 100e6
LOCAL_LOADED_PER_SECOND: Final = 180e6  # bytes of packed weights, in a set-up
LOCAL_INSTRUCTIONS_PER_SECOND: Final = 8e9  # of a set-up that packs
MORE_BYTES: Final = 0.05  # of padding, that a set-up with nothing to convert is worth
# Of the platform.
BLOCK_BYTES: Final = 4_000_000
BLOCK_SECONDS: Final = 1.0
SLICE_INSTRUCTIONS: Final = 2_000_000_000  # of one canister in one block
MESSAGE_INSTRUCTIONS: Final = 32_000_000_000  # of a set-up in one message


@dataclass(frozen=True)
class Estimate:
    """What an upload into a canister that has nothing of it takes."""

    files: dict[str, int]
    """Bytes, by kind of file."""
    precision: str
    messages: int
    instructions: int
    cycles: int
    local_seconds: float
    mainnet_seconds: float
    """At least."""

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "precision": self.precision,
            "messages": self.messages,
            "instructions": self.instructions,
            "cycles": self.cycles,
            "usd": round(cost.usd(self.cycles), 6),
            "seconds": {
                "local": round(self.local_seconds, 1),
                "mainnet": round(self.mainnet_seconds, 1),
            },
        }


def estimate(
    checkpoint: Checkpoint, precision: str | None = None, seed_flow: bool = False
) -> Estimate:
    """Reckons `icgpt.upload.upload` with the same arguments."""
    wanted = precision or checkpoint.config.precision or "f32"
    files = {kind: file.length for kind, file in checkpoint.files.items()}
    setup = SETUP_PER_PARAMETER[wanted] * checkpoint.parameters
    local_setup = setup / LOCAL_INSTRUCTIONS_PER_SECOND
    if not seed_flow and is_converted(checkpoint, precision):
        from icgpt.engine import packed_length

        del files["safetensors"]
        files["packed"] = packed_length(checkpoint, wanted)
        setup = SETUP_PER_PACKED_BYTE[wanted] * files["packed"]
        local_setup = files["packed"] / LOCAL_LOADED_PER_SECOND
    total = sum(files.values())
    chunks = sum(-(-length // CHUNK_BYTES) for length in files.values())
    around = 2 * len(files)  # begin and commit, or store and load
    # What a set-up sends to itself, set_precision and set_name.
    own = 2 * int(setup // MESSAGE_INSTRUCTIONS) + 3
    sent = PER_BYTE["append" if seed_flow else "write"] * total
    instructions = int(sent + setup)
    messages = chunks + around + own
    blocks = max(-(-chunks // (BLOCK_BYTES // CHUNK_BYTES)), sent / SLICE_INSTRUCTIONS)
    return Estimate(
        files=files,
        precision=wanted,
        messages=messages,
        instructions=instructions,
        cycles=cost.calls_cycles(messages, total) + instructions,
        local_seconds=total / LOCAL_BYTES_PER_SECOND + local_setup,
        mainnet_seconds=BLOCK_SECONDS * (blocks + around + setup / SLICE_INSTRUCTIONS),
    )


def is_converted(checkpoint: Checkpoint, precision: str | None) -> bool:
    """Whether the weights are converted before they are sent.

    As the precision is chosen, unless that would make more bytes of them, as of halves f32.
    """
    wanted = precision or checkpoint.config.precision
    if wanted != "f32":
        return wanted is not None
    from icgpt.engine import packed_length

    weights = checkpoint.files["safetensors"].length
    return packed_length(checkpoint, wanted) <= weights * (1 + MORE_BYTES)
