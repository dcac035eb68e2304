"""Where the built WebAssembly modules lie: in the package, or in the checkout that it runs from."""

from __future__ import annotations

from pathlib import Path


def find_built(name: str) -> Path | None:
    """The path of a module such as "model.wasm.gz"; None where nothing was built."""
    package = Path(__file__).resolve().parent
    places = (package / "_canister", package.parent / "canister" / "build")
    return next((place / name for place in places if (place / name).is_file()), None)
