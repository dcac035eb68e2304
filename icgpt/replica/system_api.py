"""What the system calls do: one `SystemApi` a canister, one method a function of `ic0`.

A method gets its arguments as unsigned integers (see `binding`) and raises `errors.Trap` when the
specification says trap. Charges: the fixed part is taken by `binding`, the part for each byte by
the methods.
"""

from __future__ import annotations

from icgpt.replica.system_messages import MessageCalls
from icgpt.replica.system_world import WorldCalls


class SystemApi(MessageCalls, WorldCalls):
    """All of `ic0`, for the message that runs."""
