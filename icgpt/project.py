"""Which canister a name means: the id files that dfx and icp keep beside dfx.json and icp.yaml.

The project is the nearest folder upwards that holds one of the two. Files, per network:
  local   .dfx/local/canister_ids.json {"model": {"local": ID}}  and icp's local.ids.json
  ic      canister_ids.json            {"model": {"ic": ID}}     and icp's ic.ids.json
icp keeps {"model": ID} in .icp/cache/mappings/ENVIRONMENT.ids.json for networks that it starts
itself, and in .icp/data/mappings/ for those that it only connects to. Outside of any project, ids
are kept in canister_ids.json in the platform's configuration folder.

Several canisters with one model are a fleet: .icgpt/fleets.json {"model": {"local": ["model",
"model-2"]}} says which names answer together. Each has its own id in the files above.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icgpt.errors import ProjectError, UnknownCanisterError, UsageError
from icgpt.files import write_atomically
from icgpt.identity import config_dir
from icgpt.principal import from_text, to_text

MAX_FILE_BYTES = 1 << 20
MAX_FLEET = 1000
DEFAULT_NAME = "model"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_ID = re.compile(r"([a-z0-9]{5}-){3,}[a-z0-9]{1,5}")  # what looks like one, mistyped or not


@dataclass(frozen=True)
class Project:
    """Where ids are kept. `root` is None outside of any project."""

    root: Path | None

    def lookup(self, name: str, network: str) -> bytes | None:
        """The id that a name has on a network, or None."""
        for path, keys in self._places(name, network):
            value: Any = _read(path)
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, str):
                try:
                    return from_text(value)
                except ValueError as error:
                    raise ProjectError(
                        f"{path} gives '{name}' a malformed id: {error}", f"Correct {path}."
                    ) from error
        return None

    def resolve(self, name_or_id: str, network: str) -> bytes:
        """The canister that is meant: a principal's text as it is, or a name from the files."""
        try:
            return from_text(name_or_id)
        except ValueError as error:
            malformed = error
        if not _NAME.fullmatch(name_or_id):
            raise UnknownCanisterError(
                f"'{name_or_id}' is neither a name nor a canister id",
                "Give a name that the project knows, such as model, or an id.",
            )
        found = self.lookup(name_or_id, network)
        if found is not None:
            return found
        if _ID.fullmatch(name_or_id):
            raise UnknownCanisterError(
                str(malformed), "Compare it with the id that `icgpt deploy` printed."
            )
        raise UnknownCanisterError(
            f"no canister '{name_or_id}' is known on the network '{network}'",
            "Create it with: icgpt deploy"
            + ("" if name_or_id == DEFAULT_NAME else f" --canister {name_or_id}")
            + ("" if network == "local" else f" --network {network}"),
        )

    def remember(self, name: str, network: str, canister: bytes) -> list[Path]:
        """Writes a name's id where the usual tools look for it; the files written."""
        text = to_text(canister)
        written = []
        for path, keys in self._places(name, network, writing=True):
            data = _read(path)
            entry = data
            for key in keys[:-1]:
                entry = entry.setdefault(key, {})
                if not isinstance(entry, dict):
                    raise ProjectError(f"{path} is not a file of canister ids", f"Remove {path}.")
            entry[keys[-1]] = text
            _write(path, data)
            written.append(path)
        return written

    def fleet(self, name: str, network: str) -> dict[str, bytes]:
        """The canisters that answer together to a name, with their ids; that one alone is none."""
        entry = _read(self._fleets_file()).get(name)
        names = entry.get(network) if isinstance(entry, dict) else None
        if not isinstance(names, list):
            return {}
        known = [one for one in names[:MAX_FLEET] if isinstance(one, str) and _NAME.fullmatch(one)]
        found = {one: self.lookup(one, network) for one in known}
        members = {one: id_ for one, id_ in found.items() if id_ is not None}
        return members if len(members) > 1 else {}

    def remember_fleet(self, name: str, network: str, names: Sequence[str]) -> None:
        """Lets these canisters answer together to a name from now on."""
        path = self._fleets_file()
        data = _read(path)
        entry = data.setdefault(name, {})
        if not isinstance(entry, dict):
            raise ProjectError(f"{path} is not a file of fleets", f"Remove {path}.")
        if entry.get(network) != list(names):
            entry[network] = list(names)
            _write(path, data)

    def _fleets_file(self) -> Path:
        return (config_dir() if self.root is None else self.root / ".icgpt") / "fleets.json"

    def names(self) -> list[str]:
        """All names that some file has an id for, on whatever network."""
        if self.root is None:
            files = [config_dir() / "canister_ids.json"]
        else:
            files = [self.root / "canister_ids.json"]
            files += sorted((self.root / ".dfx").glob("*/canister_ids.json"))
            files += sorted((self.root / ".icp").glob("*/mappings/*.ids.json"))
        return sorted({name for path in files for name in _read(path) if _NAME.fullmatch(name)})

    def check_name(self, name: str) -> None:
        """Raises unless a canister may go by this name."""
        if not _NAME.fullmatch(name) or _ID.fullmatch(name):
            raise UsageError(
                f"'{name}' is no name for a canister",
                "Names are letters, digits, '_', '-' and '.'; an id is given as --canister-id.",
            )

    def built(self, module: str) -> Path | None:
        """A module such as "model.wasm.gz", if this project has built it."""
        if self.root is None:
            return None
        path = self.root / "canister" / "build" / module
        return path if path.is_file() else None

    def _places(
        self, name: str, network: str, *, writing: bool = False
    ) -> list[tuple[Path, tuple[str, ...]]]:
        """Files and the keys in them, the ones to believe first."""
        key = re.sub(r"[^A-Za-z0-9]", "_", network)
        if self.root is None:
            return [(config_dir() / "canister_ids.json", (name, key))]
        dfx_file = "canister_ids.json" if network == "ic" else f".dfx/{key}/canister_ids.json"
        dfx = (self.root / dfx_file, (name, key))
        icp = [
            (self.root / ".icp" / kind / "mappings" / f"{key}.ids.json", (name,))
            for kind in ("cache", "data")
        ]
        if not writing:
            return [dfx, *icp]
        places: list[tuple[Path, tuple[str, ...]]] = (
            [dfx] if (self.root / "dfx.json").is_file() else []
        )
        if (self.root / "icp.yaml").is_file():
            places.append(icp[0] if self._managed(network) else icp[1])
        return places

    def _managed(self, network: str) -> bool:
        """Whether icp starts this network itself; it does unless icp.yaml says `connected`."""
        import yaml

        if network != "local" or self.root is None:
            return False
        path = self.root / "icp.yaml"
        try:
            manifest = yaml.safe_load(_read_text(path))
        except (yaml.YAMLError, RecursionError) as error:
            raise ProjectError(f"{path} is not valid YAML", f"Correct {path}.") from error
        networks = manifest.get("networks") if isinstance(manifest, dict) else None
        for entry in networks if isinstance(networks, list) else []:
            if isinstance(entry, dict) and entry.get("name") == network:
                return entry.get("mode") != "connected"
        return True


def find(start: Path | None = None) -> Project:
    """The project that a folder (the current one when left out) lies in."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "dfx.json").is_file() or (folder / "icp.yaml").is_file():
            return Project(folder)
    return Project(None)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ProjectError(f"can't read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ProjectError(f"{path} is too large for what it should be")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path} is not text", f"Correct or remove {path}.") from error


def _read(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    if not text.strip():
        return {}
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProjectError(f"{path} is not valid JSON", f"Correct or remove {path}.") from error
    if not isinstance(data, dict):
        raise ProjectError(f"{path} is not a file of canister ids", f"Correct or remove {path}.")
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(data, indent=2).encode() + b"\n")
    except OSError as error:
        raise ProjectError(
            f"can't write {path}: {error.strerror}", "Make room there, or allow it to be written."
        ) from error
