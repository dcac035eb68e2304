"""The wheel: a machine with Python alone goes from it to generated text."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from model_kit import ROOT

CODE = "icgpt/_canister/model.wasm.gz"
BUILT = "canister/build/model.wasm.gz"


def build(root: Path, out: Path, target: str) -> subprocess.CompletedProcess[str]:
    """Packs without a network; hatchling is a development dependency for this."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


def outline(folder: Path) -> Path:
    """As much of the checkout as packing needs, without the built canister."""
    folder.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml", "hatch_build.py"):
        shutil.copy(ROOT / name, folder)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "performance.json", folder / "docs")
    (folder / "icgpt").mkdir()
    shutil.copy(ROOT / "icgpt" / "__init__.py", folder / "icgpt")
    return folder


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_nothing_is_packed_without_the_canister(tmp_path: Path, target: str) -> None:
    done = build(outline(tmp_path / "checkout"), tmp_path / "out", target)
    assert done.returncode != 0
    assert f"{BUILT} is missing" in done.stderr
    assert "./scripts/build-canister" in done.stderr
    # The engine in process and the page are not left out either.
    module = tmp_path / "checkout" / BUILT
    module.parent.mkdir(parents=True)
    for there, missing in (("model", "engine"), ("engine", "frontend")):
        module.with_name(f"{there}.wasm.gz").write_bytes(b"code")
        done = build(tmp_path / "checkout", tmp_path / "out", target)
        assert done.returncode != 0
        assert f"{missing}.wasm.gz is missing" in done.stderr


def test_what_is_packed(tmp_path: Path) -> None:
    checkout = outline(tmp_path / "checkout")
    module = checkout / BUILT
    module.parent.mkdir(parents=True)
    module.write_bytes(b"code")
    module.with_name("engine.wasm.gz").write_bytes(b"more")
    module.with_name("frontend.wasm.gz").write_bytes(b"page")
    for target in ("wheel", "sdist"):
        done = build(checkout, tmp_path / "out", target)
        assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(CODE) == b"code"
        assert archive.read(CODE.replace("model", "engine")) == b"more"
        assert archive.read(CODE.replace("model", "frontend")) == b"page"
        assert b"gpt2-124m" in archive.read("icgpt/_canister/performance.json")
    # From the sdist the same wheel can be made, without Rust.
    (sdist,) = (tmp_path / "out").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    done = build(unpacked, tmp_path / "again", "wheel")
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(again) as archive:
        assert archive.read(CODE) == b"code"


@pytest.mark.slow
def test_the_demo_from_the_wheel(tmp_path: Path) -> None:
    """In an environment of its own, with no program but Python on the path.

    The dependencies are those that this environment has: no network is used.
    """
    done = build(ROOT, tmp_path / "out", "wheel")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "out").glob("*.whl")
    home = tmp_path / "clean"
    venv.create(home, with_pip=True)
    paths = {"base": str(home), "platbase": str(home)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([str(home / "bin" / "python"), *install], check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {
        "PATH": str(home / "bin"),
        "HOME": str(tmp_path / "home"),
        "ICGPT_STATE_DIR": str(tmp_path / "state"),
    }

    def run(*command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(home / "bin" / command[0]), *command[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    where = run("python", "-c", "import icgpt; print(icgpt.__file__)").stdout
    assert Path(where.strip()).is_relative_to(home)
    try:
        first = run("icgpt", "demo", "--keep")
        assert first.stdout.startswith("ROMEO:")
        assert len(first.stdout) > 190
        assert "Setting up" in first.stderr
        assert run("icgpt", "generate", "ROMEO:", "-n", "5", "--seed", "1").stdout
        assert "Setting up" not in run("icgpt", "demo").stderr
        assert "USD" in run("icgpt", "cost", "--shape", "gpt2-124m").stdout
    finally:
        run("icgpt", "network", "stop")
    assert (tmp_path / "home").is_dir(), "the identity is kept below the home folder"
