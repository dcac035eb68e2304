"""Puts the built canisters and engine into the wheel, so that who installs it needs no Rust.

`canister/build/model.wasm.gz` becomes `icgpt/_canister/model.wasm.gz`; other modules that lie there
go with it, and the figures that were measured with it. An editable install takes them from the
checkout instead. The sdist carries them too, so a wheel can be made from it where there is no Rust.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "canister/build"
FIGURES = Path("docs/performance.json")  # what `icgpt cost --shape` goes by
NEEDED = ("model.wasm.gz", "engine.wasm.gz", "frontend.wasm.gz")


class CanisterHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the built modules to what is packed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs."""
        if version == "editable":
            return
        modules = sorted((Path(self.root) / BUILT).glob("*.wasm.gz"))
        there = [path.name for path in modules]
        for name in NEEDED:
            if name not in there:
                raise FileNotFoundError(
                    f"{BUILT}/{name} is missing: the package carries what ./scripts/build-canister "
                    "builds. Run that first"
                )
        folder = "icgpt/_canister" if self.target_name == "wheel" else BUILT
        if self.target_name == "wheel":
            build_data["force_include"][str(Path(self.root) / FIGURES)] = f"{folder}/{FIGURES.name}"
        for path in modules:
            build_data["force_include"][str(path)] = f"{folder}/{path.name}"
