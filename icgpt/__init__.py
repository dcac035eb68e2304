"""GPT models on the Internet Computer, from Python.

    from icgpt import ModelCanister

    with ModelCanister.connect("model") as model:
        print(model.generate("what is the capital of France?", 10, 0.2))

Names are loaded on first use, so that `import icgpt` and `icgpt --help` are quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icgpt.agent import Agent, AsyncAgent, Limits
    from icgpt.client import AsyncModelCanister, AsyncStream, ModelCanister, Stream
    from icgpt.errors import (
        CanisterError,
        CheckpointError,
        IcgptError,
        NetworkError,
        RefusedError,
        RejectedError,
        UsageError,
        VerificationError,
    )
    from icgpt.fleet import AsyncFleet, Fleet
    from icgpt.identity import Identity
    from icgpt.results import Access, Completion, Encoding, ModelInfo
    from icgpt.tokens import EOT, PREFIX_TOKENS, SUFFIX_TOKENS

__version__ = "0.1.0"

_HOMES = {
    "Access": "results",
    "Agent": "agent",
    "AsyncAgent": "agent",
    "AsyncFleet": "fleet",
    "AsyncModelCanister": "client",
    "AsyncStream": "client",
    "CanisterError": "errors",
    "CheckpointError": "errors",
    "Completion": "results",
    "EOT": "tokens",
    "Encoding": "results",
    "Fleet": "fleet",
    "IcgptError": "errors",
    "Identity": "identity",
    "Limits": "agent",
    "ModelCanister": "client",
    "ModelInfo": "results",
    "NetworkError": "errors",
    "PREFIX_TOKENS": "tokens",
    "RefusedError": "errors",
    "RejectedError": "errors",
    "SUFFIX_TOKENS": "tokens",
    "Stream": "client",
    "UsageError": "errors",
    "VerificationError": "errors",
}

__all__ = [
    "EOT",
    "PREFIX_TOKENS",
    "SUFFIX_TOKENS",
    "Access",
    "Agent",
    "AsyncAgent",
    "AsyncFleet",
    "AsyncModelCanister",
    "AsyncStream",
    "CanisterError",
    "CheckpointError",
    "Completion",
    "Encoding",
    "Fleet",
    "IcgptError",
    "Identity",
    "Limits",
    "ModelCanister",
    "ModelInfo",
    "NetworkError",
    "RefusedError",
    "RejectedError",
    "Stream",
    "UsageError",
    "VerificationError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'icgpt' has no attribute '{name}'")
    value = getattr(import_module(f"icgpt.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
