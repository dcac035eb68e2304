"""A network that is killed while a job of GPT-2's 124M shape runs, and started on what it left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import shapes
from model_kit import ended, kill, new_identity, target

from icgpt import deploy, network
from icgpt.checkpoint import open_checkpoint
from icgpt.client import ModelCanister
from icgpt.connect import connect
from icgpt.project import Project
from icgpt.upload import upload

pytestmark = pytest.mark.slow

PROMPT = [464, 3290, 318]
TOKENS = 150
OPTIONS = {"max_new_tokens": TOKENS, "temperature": 0.9, "seed": 11, "logprobs": 2}


def test_a_job_goes_on_after_two_kills_as_if_there_were_none(tmp_path: Path) -> None:
    who = new_identity(tmp_path / "identity.pem")
    state, project = tmp_path / "network", tmp_path / "project"
    project.mkdir()
    (project / "dfx.json").write_text("{}")
    wasm = shapes.WASM.read_bytes()
    info = network.start(state, port=0)
    try:
        with connect(target(info), who) as agent:
            done = deploy.deploy(agent, target(info), Project(project), "model", wasm)
            model = ModelCanister(agent, done.canister_id)
            folder = shapes.folder_of("gpt2-124m", tmp_path)
            upload(model, open_checkpoint(str(folder)), precision="int8")
            whole = model.complete(PROMPT, **OPTIONS)
            assert len(whole.token_ids) == TOKENS
            job = model.submit(PROMPT, **OPTIONS)
        seen = 0
        for least in (10, 60):
            with connect(target(info), who) as agent:
                model = ModelCanister(agent, done.canister_id)
                while (found := len(model.poll(job).token_ids)) < least:
                    time.sleep(0.05)
                # What was found before the last kill has not been lost with it.
                assert seen <= found < TOKENS
                seen = found
            kill(info)
            info = network.start(state, port=0)
        with connect(target(info), who) as agent:
            model = ModelCanister(agent, done.canister_id)
            assert len(model.poll(job).token_ids) >= seen
            after = ended(model, job)
            assert (after.token_ids, after.logprobs) == (whole.token_ids, whole.logprobs)
            assert after.finish == "length"
            assert model.receipt(job).token_ids == whole.token_ids
            assert model.complete(PROMPT, **OPTIONS).token_ids == whole.token_ids
    finally:
        network.stop(state)
