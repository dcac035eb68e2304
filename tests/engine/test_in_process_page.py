"""The example of docs/in-process.md does what it shows."""

from __future__ import annotations

import re
from typing import Any

from model_kit import ROOT


def test_the_example() -> None:
    page = (ROOT / "docs" / "in-process.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own page
    answers = names["answers"]
    assert len(answers) == 8
    assert all(len(tokens) == 20 for tokens in answers.values())
    assert len({tuple(tokens) for tokens in answers.values()}) > 4
