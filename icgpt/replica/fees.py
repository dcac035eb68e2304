"""What things cost, in cycles, on a subnet of 13 nodes.

The figures are the platform's; one trillion cycles cost one XDR.
"""

from __future__ import annotations

GIB = 1 << 30
MESSAGE = 5_000_000
INSTRUCTION = 1
INGRESS = 1_200_000
INGRESS_BYTE = 2_000
CALL = 260_000
CALL_BYTE = 1_000
GIB_SECOND = 127_000
COMPUTE_PERCENT_SECOND = 10_000_000
CREATE = 500_000_000_000
# Taken before a message runs, as much as it could cost, and given back but for what it did.
MOST_INSTRUCTIONS = 40_000_000_000
PREPAID = MESSAGE + MOST_INSTRUCTIONS * INSTRUCTION
# Taken when a call is sent, for its response: given back but for what the response really costs.
RESPONSE_PREPAID = CALL_BYTE * (2 << 20) + PREPAID
MAX_HEAP = 4 << 30


def execution(instructions: int) -> int:
    """Cost of a message that has run."""
    return MESSAGE + instructions * INSTRUCTION


def ingress(size: int) -> int:
    """Cost of taking in a message of a user, `size` being that of method name and argument."""
    return INGRESS + size * INGRESS_BYTE


def call(size: int) -> int:
    """Cost of sending a call to a canister."""
    return CALL + size * CALL_BYTE


def idle_per_second(memory: int, compute_allocation: int) -> int:
    """Cost of being there."""
    return memory * GIB_SECOND // GIB + compute_allocation * COMPUTE_PERCENT_SECOND
