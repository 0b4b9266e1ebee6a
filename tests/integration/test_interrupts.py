# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGINT, SIGTERM and SIGHUP: the first keeps the results so far, the second exits at once; two runs in one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamwright.backend.cli import sample
from dreamwright.backend.cli.main import main
from dreamwright.backend.cli.signals import StopSignal
from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.io.mesh_export import export_mesh
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.scenes.mesh_scene import MeshScene
from dreamwright.backend.training.run_lock import locked_work_folder
from tests.testing.primitive_meshes import icosphere
from tests.testing.tiny_model import ONE_VIEW, QUICK, save_tiny_model

SETTINGS = [part for setting in QUICK for part in ("--set", setting)]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAIT_S = 120.0  # limit for waits on another process; reached only on failure


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def signal_at_step(monkeypatch: pytest.MonkeyPatch) -> object:
    """Returns a function that makes the process send itself a signal after a step of a scene."""

    def install(scene: type, step: int, number: int, times: int = 1) -> None:
        plain = scene.train_step

        def train_step(self: FieldScene | MeshScene) -> dict[str, float]:
            values = plain(self)
            if self.step == step:
                for _ in range(times):
                    os.kill(os.getpid(), number)
            return values

        monkeypatch.setattr(scene, "train_step", train_step)

    return install


def generate(model: str, out: Path, *extra: str) -> int:
    return main(["generate", "a red mushroom", "--model", model, "--out", str(out), *SETTINGS, *extra])


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_keeps_checkpoint_and_mesh(
    number: int, model: str, tmp_path: Path, signal_at_step, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    signal_at_step(FieldScene, 3, number)
    out = tmp_path / "prop.glb"
    assert generate(model, out) == 130
    errors = capsys.readouterr().err
    assert "stopped at step 3; continue with the same command and --resume" in errors
    assert out.read_bytes()[:4] == b"glTF" and (tmp_path / "prop.glb.work" / "checkpoint.safetensors").is_file()
    assert generate(model, out, "--resume") == 0 and not (tmp_path / "prop.glb.work").exists()
    assert "resuming at step 3" in capsys.readouterr().err
    assert [signal.getsignal(each) for each in SIGNALS] == before, "the handlers are restored"


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_keeps_a_refined_mesh(
    number: int, model: str, tmp_path: Path, signal_at_step, capsys: pytest.CaptureFixture[str]
) -> None:
    vertices, faces = icosphere(1, 0.8)
    corners = vertices.astype(np.float32)
    ball = Mesh(corners, faces.astype(np.int32), np.full_like(corners, 0.5), (vertices / 0.8).astype(np.float32))
    export_mesh(ball, tmp_path / "ball.glb", {})
    signal_at_step(MeshScene, 3, number)
    command = ["refine", str(tmp_path / "ball.glb"), "a red mushroom", "--model", model]
    command += ["--out", str(tmp_path / "out.glb"), "--steps", "6"]
    command += [part for setting in (*ONE_VIEW, "render.resolution=16") for part in ("--set", setting)]
    assert main(command) == 130
    assert "stopped at step 3" in capsys.readouterr().err and (tmp_path / "out.glb").is_file()
    assert main([*command, "--resume"]) == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_second_signal_ends_at_once(
    number: int, model: str, tmp_path: Path, signal_at_step, capsys: pytest.CaptureFixture[str]
) -> None:
    signal_at_step(FieldScene, 3, number, times=2)
    out = tmp_path / "prop.glb"
    out.write_bytes(b"precious")
    assert generate(model, out) == 130
    assert "interrupted; nothing was overwritten" in capsys.readouterr().err
    assert out.read_bytes() == b"precious" and (tmp_path / "prop.glb.work" / "checkpoint.safetensors").is_file()


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_while_sampling_overwrite_nothing(
    number: int, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def states(*_: object) -> Iterator[torch.Tensor]:
        os.kill(os.getpid(), number)
        yield torch.zeros(1, 3, 8, 8)

    monkeypatch.setattr(sample, "_states", states)
    out = tmp_path / "x.png"
    out.write_bytes(b"precious")
    assert main(["sample", "a red mushroom", "--model", model, "--out", str(out)]) == 130
    assert "interrupted; nothing was overwritten" in capsys.readouterr().err
    assert out.read_bytes() == b"precious" and [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_between_jobs_of_an_evaluation(
    number: int, model: str, tmp_path: Path, signal_at_step, capsys: pytest.CaptureFixture[str]
) -> None:
    signal_at_step(FieldScene, 2, number)
    command = ["evaluate", "starter", "--prompts", "a red mug", "--model", model, "--out", str(tmp_path), *SETTINGS]
    assert main(command) == 130
    assert "0 of 1 jobs are kept, and the same command continues" in capsys.readouterr().err
    assert (tmp_path / "a-red-mug.0" / "work" / "checkpoint.safetensors").is_file()


def test_nohup_is_respected() -> None:
    """A command started with SIGHUP ignored survives the end of its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop() and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_two_runs_in_one_folder_and_a_killed_one(model: str, tmp_path: Path) -> None:
    """Another process holds the folder, so a new run and a resumed one are refused. SIGKILL leaves no lock."""
    out = tmp_path / "prop.ply"
    command = [sys.executable, "-m", "dreamwright.backend.cli.main", "generate", "a red mushroom", "--model", model]
    command += ["--out", str(out), *SETTINGS, "--steps", "100000"]
    work = tmp_path / "prop.ply.work"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + WAIT_S
            while not (work / "checkpoint.safetensors").exists():
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.05)
            for extra in ((), ("--resume",)):
                refused = subprocess.run([*command, *extra], capture_output=True, text=True, timeout=WAIT_S)
                assert refused.returncode == 2 and refused.stderr.count("\n") == 1
                assert f"process {process.pid}" in refused.stderr and "--work" in refused.stderr
        finally:
            process.kill()
    assert not out.exists() and (work / "run.lock").exists()
    with locked_work_folder(work, resume=True):
        pass
