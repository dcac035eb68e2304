"""docs/reference/python.md, from the signatures, docstrings and annotations of the package.

`SECTIONS` says what is public and in which order; a test holds it against `icgpt.__all__`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import icgpt

WIDTH = 92
SECTIONS: dict[str, dict[str, list[str]]] = {
    "A model in a canister": {
        "icgpt": [
            "ModelCanister",
            "Stream",
            "AsyncModelCanister",
            "AsyncStream",
            "Fleet",
            "AsyncFleet",
        ],
    },
    "What it answers": {
        "icgpt.results": [
            "Completion",
            "TokenLogprobs",
            "Logprob",
            "Encoding",
            "ModelInfo",
            "Architecture",
            "Template",
            "Access",
            "Quotas",
            "Usage",
            "FileInfo",
            "FileState",
            "Arrived",
        ],
        "icgpt.tokens": ["EOT", "PREFIX_TOKENS", "SUFFIX_TOKENS"],
    },
    "Networks and callers": {
        "icgpt": ["Agent", "AsyncAgent", "Limits", "Identity"],
        "icgpt.identity": ["load"],
        "icgpt.connect": ["Network", "resolve", "connect", "connect_async"],
        "icgpt.network": ["NetworkInfo", "start", "status", "stop", "reset"],
    },
    "Models and canisters": {
        "icgpt.checkpoint": ["open_checkpoint", "Checkpoint"],
        "icgpt.upload": ["upload", "Upload"],
        "icgpt.fleet_upload": ["upload_fleet"],
        "icgpt.deploy": ["deploy", "Deployment", "new_canister", "find_wasm", "read_wasm"],
        "icgpt.project": ["find", "Project"],
    },
    "The engine in this process": {
        "icgpt.engine": ["Engine", "Submitted", "Event", "pack", "Packed"],
    },
    "Conversations and proofs": {
        "icgpt.chat": ["Conversation", "Turn", "Request"],
        "icgpt.proving": ["Asked"],
        "icgpt.kept_receipt": ["read", "KeptReceipt", "Proven"],
        "icgpt.receipts": ["verify", "Receipt"],
    },
    "Tests": {"icgpt.testing": ["replica", "model_canister", "Replica"]},
}
INNER = ("to_json", "from_candid", "run")
AWAITED = {
    "AsyncAgent": icgpt.Agent,
    "AsyncFleet": icgpt.Fleet,
    "AsyncModelCanister": icgpt.ModelCanister,
    "AsyncStream": icgpt.Stream,
}
ERRORS = ("icgpt.errors", "icgpt.network", "icgpt.engine", "icgpt.train.errors")
HEAD = """\
# The Python API

Made from signatures and docstrings by `scripts/reference`. Whatever is not named here may change.
The package is typed (`py.typed`). Everything that fails on purpose raises an error of [the last
table](#errors): it says what happened, and `hint` what to do next.

<!-- needs: network model -->

```python
from icgpt import ModelCanister

with ModelCanister.connect("model") as model:
    done = model.complete("ROMEO:", max_new_tokens=20, temperature=0)
    print(done.text, done.finish, done.instructions)
```
"""


def page() -> str:
    """The page."""
    parts = [HEAD]
    for title, modules in SECTIONS.items():
        parts.append(f"## {title}\n")
        for module, names in modules.items():
            for name in names:
                parts += _entry(module, name)
    parts += _errors()
    return "\n".join(parts)


def _entry(module: str, name: str) -> Iterator[str]:
    value = getattr(import_module(module), name)
    yield f"### {module}.{name}\n"
    if inspect.isclass(value):
        yield from _class(name, value)
    elif callable(value) or hasattr(value, "_get_wrapped_function"):
        function = getattr(value, "_get_wrapped_function", lambda: value)()
        if function is not value:  # a fixture: tests name it among their arguments
            result = inspect.signature(function).return_annotation
            yield from _docs(f"A fixture of pytest, `{result}`. {inspect.getdoc(function)}")
        else:
            yield _code(f"{name}{_signature(function)}")
            yield from _docs(inspect.getdoc(function))
    else:
        yield f"`{value!r}`\n"


def _class(name: str, value: type) -> Iterator[str]:
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    if fields:
        yield from _docs(value.__doc__)
        words = _field_docs(value)
        yield "| field | type | |\n|---|---|---|"
        for field in fields:
            kind = str(field.type).replace("|", "\\|")
            yield f"| `{field.name}` | `{kind}` | {words.get(field.name, '')} |"
        yield ""
    else:
        yield _code(f"{name}{_signature(value)}")
        yield from _docs(value.__doc__)
    for method, how, function in _methods(value):
        if name in AWAITED and hasattr(AWAITED[name], method) and method != "connect":
            continue
        yield f"#### {name}.{method}\n"
        signature = _signature(function, bound=True)
        result = signature.partition(" -> ")[2]
        yield _code(f"{method}: {result}" if how == "property " else f"{how}{method}{signature}")
        yield from _docs(inspect.getdoc(function))


def _methods(value: type) -> Iterator[tuple[str, str, Any]]:
    """The public methods in the order of the code, those of its bases last."""
    names = [
        name
        for one in value.__mro__
        if one.__module__.startswith("icgpt")
        for name in vars(one)
        if not name.startswith("_") and name not in INNER
    ]
    for name in dict.fromkeys(names):
        raw = inspect.getattr_static(value, name)
        if isinstance(raw, property):
            yield name, "property ", raw.fget
            continue
        found = getattr(value, name)
        if callable(found) and inspect.getdoc(found):
            yield name, "async " if inspect.iscoroutinefunction(found) else "", found


def _signature(function: Any, bound: bool = False) -> str:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if bound and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    shown = []
    keyword_only = False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            shown.append("*")
        keyword_only = keyword_only or parameter.kind is parameter.VAR_POSITIONAL
        shown.append(_parameter(parameter))
    result = _annotation(signature.return_annotation)
    arrow = f" -> {result}" if result and result != "None" else ""
    line = f"({', '.join(shown)}){arrow}"
    if len(line) <= WIDTH - 30:
        return line
    return "(\n" + "".join(f"    {one},\n" for one in shown) + f"){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    many = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    text = many.get(parameter.kind.name, "") + parameter.name
    kind = _annotation(parameter.annotation)
    text += f": {kind}" if kind else ""
    if parameter.default is not parameter.empty:
        default = parameter.default
        plain = isinstance(default, (str, int, float, type(None)))
        shown = (
            (json.dumps(default) if isinstance(default, str) else repr(default)) if plain else "…"
        )
        text += f" = {shown}" if kind else f"={shown}"
    return text


def _annotation(value: Any) -> str:
    if value is inspect.Signature.empty:
        return ""
    return str(value if isinstance(value, str) else inspect.formatannotation(value))


def _field_docs(value: type) -> dict[str, str]:
    """The texts that stand under the fields of a class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    words = {}
    if isinstance(tree, ast.ClassDef):
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                words[field.target.id] = " ".join(str(text.value.value).split())
    return words


def _docs(text: str | None) -> Iterator[str]:
    """A docstring as Markdown: arguments as a list, examples fenced."""
    if not text:
        return
    text = inspect.cleandoc(text)
    words, _, arguments = text.partition("\nArgs:\n")
    parts = re.split(r"\n\n((?: {4}.*\n?|\n)+)", words)
    for place, part in enumerate(parts):
        if place % 2:
            yield _code(textwrap.dedent(part).strip("\n"))
        elif part.strip():
            yield part.strip() + "\n"
    found = [
        f"- `{name}`: {' '.join(said.split())}"
        for name, said in re.findall(r"^ {4}(\S+): ((?:.*\n?)(?: {5,}.*\n?)*)", arguments, re.M)
        if name != "canister" or "id" in said
    ]
    if found:
        yield "\n".join(found) + "\n"


def _code(text: str) -> str:
    return f"<!-- signature -->\n\n```python\n{text}\n```\n"


def _errors() -> Iterator[str]:
    yield "## Errors\n"
    yield "`kind` is what `--json` calls them; the exit code is that of the command line.\n"
    yield "| error | is a | kind | exit code | when |\n|---|---|---|---|---|"
    shown = set()
    for module in map(import_module, ERRORS):
        for name, value in vars(module).items():
            if not inspect.isclass(value) or not issubclass(value, icgpt.IcgptError):
                continue
            if value in shown:
                continue
            shown.add(value)
            words = " ".join((inspect.getdoc(value) or "").split())
            base, home = value.__bases__[0].__name__, value.__module__
            yield (f"| `{home}.{name}` | `{base}` | {value.kind} | {value.exit_code} | {words} |")
    yield ""
