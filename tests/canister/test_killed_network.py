"""A network that is killed in the middle of jobs, and started again on what it has left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from model_kit import ended, kill, new_identity, target, tiny_config, with_model, write_model

from icgpt import deploy, network
from icgpt.client import ModelCanister
from icgpt.connect import connect
from icgpt.errors import IcgptError
from icgpt.project import Project


def test_jobs_go_on_after_a_kill(tmp_path: Path, wasm: bytes) -> None:
    who = new_identity(tmp_path / "identity.pem")
    state, project = tmp_path / "network", tmp_path / "project"
    project.mkdir()
    (project / "dfx.json").write_text("{}")
    folder = write_model(tmp_path / "model", tiny_config(n_positions=1024))
    options = {"max_new_tokens": 1_000, "temperature": 1.0}

    info = network.start(state, port=0)
    try:
        with connect(target(info), who) as agent:
            done = deploy.deploy(agent, target(info), Project(project), "model", wasm)
            model = with_model(ModelCanister(agent, done.canister_id), folder)
            expected = [model.complete([1, 2], seed=i, **options).token_ids for i in range(4)]
            model.call("set_per_message", 1_000_000)
            first = model.submit([3], max_new_tokens=5, temperature=0)
            before = ended(model, first)
            jobs = [model.submit([1, 2], seed=i, **options) for i in range(4)]
            while not all(model.poll(job).token_ids for job in jobs):
                time.sleep(0.01)
        for _ in range(2):
            kill(info)
            info = network.start(state, port=0)
        with connect(target(info), who) as agent:
            model = ModelCanister(agent, done.canister_id)
            assert model.poll(first) == before
            assert [ended(model, job).token_ids for job in jobs] == expected
            assert model.receipt(jobs[0]).token_ids == expected[0]
            assert len(model.complete([1], max_new_tokens=2).token_ids) == 2
    finally:
        network.stop(state)


def test_a_call_that_was_killed_ends_with_a_clear_error_and_blocks_nothing(
    tmp_path: Path, wasm: bytes
) -> None:
    who = new_identity(tmp_path / "identity.pem")
    state, project = tmp_path / "network", tmp_path / "project"
    project.mkdir()
    (project / "dfx.json").write_text("{}")
    folder = write_model(tmp_path / "model", tiny_config(n_positions=64))
    info = network.start(state, port=0)
    try:
        with connect(target(info), who) as agent:
            done = deploy.deploy(agent, target(info), Project(project), "model", wasm)
            model = with_model(ModelCanister(agent, done.canister_id), folder)
            model.call("set_per_message", 1_000_000)
            pid = os.fork()
            if pid == 0:
                time.sleep(1)
                os.kill(info.pid, signal.SIGKILL)
                os._exit(0)
            with pytest.raises(IcgptError):
                model.complete([1], max_new_tokens=30_000, context="slide")
            os.waitpid(pid, 0)
        info = network.start(state, port=0)
        with connect(target(info), who) as agent:
            model = ModelCanister(agent, done.canister_id)
            assert len(model.complete([1], max_new_tokens=20, temperature=0).token_ids) == 20
    finally:
        network.stop(state)
