"""The package's face: what `from icgpt import …` gives, and what it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import icgpt

ROOT = Path(__file__).resolve().parents[2]


def test_all_is_exact_and_loads() -> None:
    source = ast.parse((ROOT / "icgpt" / "__init__.py").read_text())
    imported = {
        alias.name
        for block in source.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert set(icgpt.__all__) == imported | {"__version__"}
    assert list(icgpt.__all__) == sorted(
        icgpt.__all__, key=lambda name: (not name.isupper(), name.startswith("_"), name)
    )
    for name in icgpt.__all__:
        assert getattr(icgpt, name) is not None
    assert set(icgpt.__all__) <= set(dir(icgpt))
    with pytest.raises(AttributeError, match="nothing"):
        icgpt.nothing  # noqa: B018


def test_the_seeds_constants() -> None:
    assert icgpt.EOT == 50257
    assert icgpt.PREFIX_TOKENS == [50258, 198]
    assert icgpt.SUFFIX_TOKENS == [628, 50259, 198]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, icgpt, icgpt.cli;"
        "print([m for m in ('numpy', 'ic', 'requests', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
