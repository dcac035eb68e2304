"""What things cost on mainnet, by the prices of a 13-node subnet.

Update message 5 M cycles + 1 cycle per instruction, ingress 1.2 M + 2,000 per byte, a second of a
GiB of memory 127,000, a new canister 0.5 T; a trillion cycles 1 XDR, about 1.37 USD.
https://docs.internetcomputer.org/building-apps/essentials/gas-cost
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

USD_PER_TRILLION: Final = 1.37
MESSAGE_CYCLES: Final = 5_000_000
INGRESS_CYCLES: Final = 1_200_000
INGRESS_BYTE_CYCLES: Final = 2_000
ENVELOPE_BYTES: Final = 350  # sender, key, signature and names round an argument
GIB_SECOND_CYCLES: Final = 127_000
CREATE_CYCLES: Final = 500_000_000_000
MONTH_SECONDS: Final = 30 * 86_400
SHORT_CONTEXT: Final = "128"  # what tokens are priced at, unless they are measured
MESSAGE_INSTRUCTIONS: Final = 4_000_000_000  # what a message of a job does at most


def generation_cycles(instructions: int, prompt_bytes: int) -> int:
    """Cycles of one generation: its call, its instructions, and the messages they take."""
    messages = 2 + -(-instructions // MESSAGE_INSTRUCTIONS)
    ingress = INGRESS_CYCLES + INGRESS_BYTE_CYCLES * (ENVELOPE_BYTES + prompt_bytes)
    return ingress + messages * MESSAGE_CYCLES + instructions


def calls_cycles(messages: int, argument_bytes: int) -> int:
    """Cycles of taking in so many calls with so many bytes of arguments, without their work."""
    framed = argument_bytes + messages * ENVELOPE_BYTES
    return messages * (INGRESS_CYCLES + MESSAGE_CYCLES) + INGRESS_BYTE_CYCLES * framed


def usd(cycles: int) -> float:
    """What cycles cost."""
    return cycles / 1e12 * USD_PER_TRILLION


def storage_cycles(memory_bytes: int, seconds: int = MONTH_SECONDS) -> int:
    """Cycles of keeping heap and stable memory, idle, for a while; a month when left out."""
    return memory_bytes * GIB_SECOND_CYCLES * seconds >> 30


@dataclass(frozen=True)
class Figures:
    """What was measured of one model in one precision, in instructions with their page charges."""

    token: int
    """A token in the middle of a long answer."""
    prompt_token: int


def shapes() -> dict[str, dict[str, Figures]]:
    """What the package knows from its own benchmarks, by model and precision."""
    here = Path(__file__).resolve().parent
    packed, checkout = here / "_canister" / "performance.json", here.parent / "docs"
    path = packed if packed.is_file() else checkout / "performance.json"
    if not path.is_file():
        return {}
    values = json.loads(path.read_bytes())
    return {
        shape: {name: _figures(one) for name, one in precisions.items() if "decode" in one}
        for shape, precisions in values.items()
        if isinstance(precisions, dict)
    }


def _figures(value: dict[str, Any]) -> Figures:
    pages, token = value["pages"], value["decode"][SHORT_CONTEXT]
    # Weights are touched once a message, however many tokens it writes.
    tokens = max(1, MESSAGE_INSTRUCTIONS // (token + 1))
    prompt = value["prefill"][SHORT_CONTEXT] + pages["prefill"][SHORT_CONTEXT]
    return Figures(
        token=token + pages["decode"] // tokens,
        prompt_token=prompt // int(SHORT_CONTEXT),
    )
