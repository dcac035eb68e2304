"""A suite of canbench: its benchmarks, the results that stand beside it, and what they come to.

A suite is a folder with `canbench.yml`, which names a module, what it is installed with, and the
file of results. A benchmark is a query of the module that measures itself; canbench calls it
without a query's limits, and so does this. Nothing is built here: `build_cmd` of a suite is
anybody's shell script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from icgpt import candid
from icgpt.replica import weights
from icgpt.replica.execution import Canister
from icgpt.replica.messages import Environment, Kind, Message

CONFIGURATION = "canbench.yml"
RESULTS = "canbench_results.yml"
MAX_YAML = 16 << 20
FIELDS = ("calls", "instructions", "heap_increase", "stable_memory_increase")

_PREFIX = "canister_query __canbench__"
_ARGUMENT = b"DIDL\0\1\x7f"  # what canbench sends, to the byte: decoding it is often counted
_ANONYMOUS = b"\4"
_PAGE = weights.WASM_PAGE
# As on the subnet that canbench asks for, which exists for benchmarks alone.
_NO_LIMITS = weights.Limits(
    update=10**14,
    query=10**14,
    install=10**14,
    query_stable=1 << 40,
    install_stable=1 << 40,
    method_names=1 << 20,
)
_MEASUREMENT = candid.Record({name: candid.Opt(candid.NAT64) for name in FIELDS})
_RESULT = candid.Record(
    {
        "total": _MEASUREMENT,
        "scopes": candid.Vec(candid.Record({0: candid.TEXT, 1: _MEASUREMENT})),
    }
)

# What was measured, by scope; the whole benchmark is the scope without a name.
Measured = dict[str, dict[str, int]]


class SuiteError(Exception):
    """The suite can't be read, is not built, or one of its benchmarks fails."""


@dataclass(frozen=True)
class Suite:
    """What `canbench.yml` says, and the results that were committed."""

    folder: Path
    wasm: Path
    build: str
    init_args: bytes
    stable_memory: Path | None
    variables: tuple[tuple[str, str], ...]
    results: dict[str, Measured]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


@dataclass(frozen=True)
class Difference:
    """One figure that is not what was committed; None where there is none."""

    scope: str
    field: str
    committed: int | None
    here: int | None


@dataclass
class Comparison:
    """One benchmark: the instructions of all of it, and whatever differs."""

    benchmark: str
    committed: int | None
    here: int | None
    differences: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether every committed figure is met."""
        return not self.differences


def find(folder: Path) -> list[Path]:
    """The folders of all suites below a folder that have results, itself included."""
    found = (file.parent for file in folder.rglob(CONFIGURATION) if ".git" not in file.parts)
    return sorted(path for path in found if (path / RESULTS).is_file())


def read(folder: Path) -> Suite:
    """Read a suite; raises `SuiteError`."""
    folder = folder.resolve()
    told = _mapping(folder / CONFIGURATION)
    init, stable, variables = (
        _part(told, name) for name in ("init_args", "stable_memory", "env_vars")
    )
    try:
        arg = bytes.fromhex(str(init.get("hex", "")))
        pairs = _variables(folder / str(variables["file"])) if variables else ()
    except (ValueError, OSError) as error:
        raise SuiteError(f"{folder / CONFIGURATION}: {error}") from None
    results = folder / str(told.get("results_path", RESULTS))
    return Suite(
        folder=folder,
        wasm=folder / str(told.get("wasm_path", "")),
        build=str(told.get("build_cmd", "")),
        init_args=arg,
        stable_memory=folder / str(stable["file"]) if stable else None,
        variables=pairs,
        results={
            str(name): _committed(result)
            for name, result in _part(_mapping(results), "benches").items()
        },
    )


def _mapping(path: Path) -> Mapping[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        if path.stat().st_size > MAX_YAML:
            raise SuiteError(f"{path} has more than {MAX_YAML} bytes")
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SuiteError(f"{path} can't be read: {error}") from None
    if not isinstance(found, dict):
        raise SuiteError(f"{path} holds no mapping")
    return found


def _part(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = told.get(name) or {}
    if not isinstance(part, dict):
        raise SuiteError(f"'{name}' should be a mapping")
    return part


def _variables(path: Path) -> tuple[tuple[str, str], ...]:
    """A line `NAME,VALUE` for each variable."""
    pairs = (line.partition(",") for line in path.read_text().splitlines())
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


def _committed(result: Any) -> Measured:
    """One benchmark's figures in the file of results."""
    if not isinstance(result, dict) or not isinstance(result.get("total"), dict):
        raise SuiteError("a result has no 'total'")
    scopes = {"": result["total"], **_part(result, "scopes")}
    return {str(scope): _known(figures) for scope, figures in scopes.items()}


def _known(figures: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(figures[name]) for name in FIELDS if figures.get(name) is not None}


def run(
    suite: Suite, release: weights.Release, folder: Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, Measured]]:
    """Install the suite's module in a folder and run what is wanted of it; raises `SuiteError`."""
    if not suite.wasm.is_file():
        raise SuiteError(
            f"{suite.wasm} is missing; build it first, in {suite.folder}: {suite.build}"
        )
    canister = Canister(folder / "canister", replace(release, limits=_NO_LIMITS))
    try:
        environment = Environment(
            canister_id=bytes(8) + b"\1\1",
            time=1_620_328_630_000_000_000,
            balance=10**15,
            controllers=(_ANONYMOUS,),
            version=1,
            variables=suite.variables,
        )
        module = suite.wasm.read_bytes()
        done = canister.install(module, suite.init_args, _ANONYMOUS, environment, "install")
        if done.trap is not None:
            raise SuiteError(f"{suite.name} can't be installed: {done.trap.message}")
        if suite.stable_memory is not None:
            _load_stable(canister, suite.stable_memory, folder / "state")
        for export in sorted(canister.exports):
            name = export.removeprefix(_PREFIX)
            if name != export and wanted(name):
                yield name, _benchmark(canister, environment, name)
    finally:
        canister.close()


def _benchmark(canister: Canister, environment: Environment, name: str) -> Measured:
    """Run one benchmark; every one finds the canister as it was installed."""
    method = _PREFIX.partition(" ")[2] + name
    outcome = canister.execute(
        Message(
            Kind.QUERY,
            environment,
            method=method,
            arg=_ARGUMENT,
            caller=_ANONYMOUS,
            replicated=False,
        )
    )
    if outcome.trap is not None or outcome.reply is None:
        refusal = outcome.trap or outcome.reject
        raise SuiteError(f"{name}: {refusal.message if refusal else 'no reply'}")
    (result,) = candid.decode(outcome.reply, [_RESULT], max_values=1 << 20)
    return {"": _known(result["total"])} | {
        scope[0]: _known(scope[1]) for scope in result["scopes"]
    }


def _load_stable(canister: Canister, file: Path, state: Path) -> None:
    """Put a file into stable memory, as long as it is and filled up to a whole page."""
    state.mkdir()
    canister.copy_to(state)
    content = file.read_bytes()
    size = -(-len(content) // _PAGE) * _PAGE
    (state / "stable").write_bytes(content.ljust(size, b"\0"))
    values = tuple((kind, raw) for _, kind, raw in canister.globals)
    canister.adopt(state, canister.heap_bytes, size, values)


def compare(name: str, committed: Measured | None, here: Measured | None) -> Comparison:
    """Hold one benchmark's figures against the committed ones, figure by figure."""
    left, right = committed or {"": {}}, here or {"": {}}
    differences = [
        Difference(scope, figure, wanted, found)
        for scope in sorted(left.keys() | right.keys())
        for figure in FIELDS
        if (wanted := left.get(scope, {}).get(figure)) is not None or committed is None
        if wanted != (found := right.get(scope, {}).get(figure))
    ]
    totals = left[""].get("instructions"), right[""].get("instructions")
    return Comparison(name, *totals, differences)
