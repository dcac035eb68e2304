"""What a generation costs on mainnet, by the prices of a 13-node subnet.

Update message 5 M cycles + 1 cycle per instruction, ingress 1.2 M + 2,000 per byte, a trillion
cycles 1 XDR, about 1.37 USD. https://docs.internetcomputer.org/building-apps/essentials/gas-cost
"""

from __future__ import annotations

from typing import Final

USD_PER_TRILLION: Final = 1.37
MESSAGE_CYCLES: Final = 5_000_000
INGRESS_CYCLES: Final = 1_200_000
INGRESS_BYTE_CYCLES: Final = 2_000
ENVELOPE_BYTES: Final = 350  # sender, key, signature and names round an argument
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
