"""The picture of a run's losses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from icgpt.train import figure, log
from icgpt.train.errors import OutputError


def _log(folder: Path) -> None:
    log.begin(folder)
    for step in range(1, 6):
        entry = {"step": 10 * step, "train": 3.0 / step, "validation": 3.2 / step + 0.1 * step}
        log.append(folder, entry | {"seconds": 1.0, "tokens_per_second": 1.0})


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _log(tmp_path)
    assert figure.write(tmp_path, "token", 1.5)
    content = (tmp_path / "figure" / "loss.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[i : i + 4]) for i in (16, 20))
    assert (width, height) == (1200, 675)


def test_nothing_to_draw(tmp_path: Path) -> None:
    log.begin(tmp_path)
    assert not figure.write(tmp_path, "token", None)
    assert not (tmp_path / "figure").exists()


def test_without_matplotlib_there_is_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _log(tmp_path)
    for name in [one for one in sys.modules if one.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not figure.write(tmp_path, "token", None)


def test_a_folder_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    _log(tmp_path)
    (tmp_path / "figure").write_bytes(b"a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        figure.write(tmp_path, "token", None)
