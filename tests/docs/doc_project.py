"""A newcomer's folder in which the blocks of a page are run, in order, on a network of its own.

The folder has dfx.json, the built canister, and a model in ./gpt2. What else a page takes for given
it names itself; `NEEDS` makes it. Variables that a bash block exports are there in the next one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from clients_kit import find_icp, own_home, write_project
from doc_pages import Block
from hub_server import TOKEN, HubServer
from instruct import instruct_tokenizer
from model_kit import GOLDEN, ROOT, new_identity, tiny_config, tiny_tensors, write_model

BIN = Path(sys.executable).parent
SECONDS = 600


class DocProject:
    """The folder and the environment of one page."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.opened = ExitStack()
        self.folder = scratch / "project"
        self.folder.mkdir()
        (self.folder / "dfx.json").write_bytes((ROOT / "dfx.json").read_bytes())
        (self.folder / "canister").symlink_to(ROOT / "canister")
        config = tiny_config(vocab_size=50260, n_positions=128)
        write_model(self.folder / "gpt2", config, tiny_tensors(config))
        instruct_tokenizer().save(str(self.folder / "gpt2" / "tokenizer.json"))
        self.stands_for: dict[str, str] = {}
        """What is written in another way on the page than it is here: addresses."""
        self.exports = scratch / "exports"
        self.exports.write_text("")
        self.environment = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "ICGPT_STATE_DIR": str(scratch / "state"),
            "ICGPT_CONFIG_DIR": str(scratch / "config"),
            "ICGPT_CACHE_DIR": str(scratch / "cache"),
        }

    def need(self, name: str) -> None:
        """Makes what a page takes for given."""
        NEEDS[name](self)

    def put(self, name: str, content: str) -> None:
        """Writes a file of the page."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def export(self, **variables: str) -> None:
        """Sets variables for what follows, where an earlier block has exported them too."""
        self.environment |= variables
        with self.exports.open("a") as file:
            file.writelines(f"export {name}={shlex.quote(v)}\n" for name, v in variables.items())

    def copy(self, file: Path, name: str) -> None:
        """Copies a file into the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, path)

    def run(self, block: Block, where: str) -> None:
        """Runs a block and holds it to what its page says."""
        done = self.bash(block.code) if block.language == "bash" else self.python(block.code)
        said = f"{where}:{block.line}\n{block.code}\n--- printed ---\n{done.stdout}"
        assert done.returncode == int(block.marks.get("status", "0")), said
        if block.printed is not None:
            assert matches(block.printed, done.stdout), f"{said}\n--- wanted ---\n{block.printed}"

    def bash(self, code: str) -> subprocess.CompletedProcess[str]:
        """Runs lines of bash, each of which must succeed."""
        kept = shlex.quote(str(self.exports))
        code = self._here(code)
        script = f"set -euo pipefail\nsource {kept}\n{code}\nexport -p >{kept}\n"
        return self._run(["bash", "-c", script])

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Runs a program."""
        (self.scratch / "example.py").write_text(self._here(code))
        return self._run([str(BIN / "python"), str(self.scratch / "example.py")])

    def _here(self, code: str) -> str:
        for written, here in self.stands_for.items():
            code = code.replace(written, here)
        return code

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def close(self) -> None:
        """Stops the network, if the page has left one running."""
        self.bash("icgpt network stop --state-dir " + shlex.quote(str(self.scratch / "state")))
        self.opened.close()


def matches(wanted: str, printed: str) -> bool:
    """Whether a text is as a page says; … is anything, and space at the ends of lines is not."""
    parts = (re.escape(part) for part in _trimmed(wanted).split("…"))
    return re.fullmatch(".*?".join(parts), _trimmed(printed), re.S) is not None


def _trimmed(text: str) -> str:
    """Without spaces at the ends of lines; the port is the one that a newcomer gets."""
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:4943", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _network(project: DocProject) -> None:
    _must(project, "icgpt network start")


def _canister(project: DocProject) -> None:
    _must(project, "icgpt deploy")


def _model(project: DocProject) -> None:
    _canister(project)
    _must(project, "icgpt upload model shakespeare-char")


def _must(project: DocProject, line: str) -> None:
    done = project.bash(line)
    assert done.returncode == 0, done.stdout


def _checkpoints(project: DocProject) -> None:
    """A checkpoint of nanoGPT, and a state dict with its config.json in a folder."""
    project.copy(GOLDEN / "torch-files" / "nanogpt.pt", "ckpt.pt")
    project.copy(GOLDEN / "torch-files" / "plain.pth", "mine/model.pth")
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16, "vocab_size": 11}
    config = {"model_type": "gpt2", "activation_function": "gelu", **sizes}
    project.put("mine/config.json", json.dumps(config))


def _hub(project: DocProject) -> None:
    """A hub on loopback, which has the instruct model."""
    models = {"vicgalle/gpt2-open-instruct-v1": project.folder / "gpt2"}
    hub = project.opened.enter_context(HubServer(models))
    project.export(
        HF_ENDPOINT=hub.url,
        HF_HOME=str(project.scratch / "hub"),
        HF_TOKEN=TOKEN,
        HF_HUB_DISABLE_XET="1",
    )


def _story(project: DocProject) -> None:
    """A text, and a model in ./story as `icgpt train` leaves it."""
    project.put("story.txt", "To be, or not to be, that is the question:\n" * 8)
    for file in (ROOT / "icgpt" / "models" / "shakespeare-char").iterdir():
        project.copy(file, f"story/{file.name}")


def _mainnet(project: DocProject) -> None:
    """The local network in mainnet's place: its address and its root key, and nothing else.

    $CANISTER_ID is an empty canister of me.pem, as one has it after buying cycles.
    """
    new_identity(project.folder / "me.pem")
    made = """
from icgpt import connect, deploy, identity, principal
network = connect.resolve("local")
with connect.connect(network, identity.load("me.pem")) as agent:
    print(principal.to_text(deploy._create(agent, network, lambda text: None)))
    print(network.url, network.root_key.hex())
"""
    canister, place = project.python(made).stdout.splitlines()
    url, key = place.split()
    project.put(
        "../patched/sitecustomize.py",
        "from icgpt import connect\n"
        f"connect.MAINNET_URL = {url!r}\n"
        f"connect.MAINNET_ROOT_KEY = bytes.fromhex({key!r})\n",
    )
    paths = [str(project.scratch / "patched"), os.environ.get("PYTHONPATH", "")]
    project.export(PYTHONPATH=os.pathsep.join(paths), CANISTER_ID=canister)


def _service(project: DocProject) -> None:
    """The built-in model over HTTP, on another port than the usual one."""
    pytest.importorskip("fastapi", reason="FastAPI is missing: pip install 'icgpt[serve]'")
    served = subprocess.Popen(
        [str(BIN / "python"), "-m", "icgpt", "serve", "--port", "0"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def end() -> None:
        served.terminate()
        served.wait(SECONDS)

    project.opened.callback(end)
    assert served.stdout is not None
    project.stands_for["http://127.0.0.1:8080"] = served.stdout.readline().strip()


def _icp(project: DocProject) -> None:
    """The icp command line, whose project this folder is too."""
    program = find_icp()
    if program is None:
        pytest.skip("icp is not installed")
    url = project.bash("icgpt network start").stdout.splitlines()[-1]
    write_project(project.folder, **{"http://127.0.0.1:4943": url})
    path = os.pathsep.join((str(Path(program).parent), project.environment["PATH"]))
    project.export(PATH=path, DO_NOT_TRACK="1", **own_home(project.scratch))


NEEDS: dict[str, Callable[[DocProject], None]] = {
    "network": _network,
    "canister": _canister,
    "model": _model,
    "checkpoints": _checkpoints,
    "hub": _hub,
    "story": _story,
    "mainnet": _mainnet,
    "service": _service,
    "icp": _icp,
}
