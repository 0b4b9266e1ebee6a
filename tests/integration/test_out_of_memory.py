# SPDX-License-Identifier: GPL-3.0-or-later
"""Out of memory during a run: a checkpoint, one line of advice, and an equal run after resuming with less memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamwright.backend.cli.main import main
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.recipes.starter import REFINE
from dreamwright.backend.config.schema import Config
from dreamwright.backend.errors import OutOfMemoryError, is_out_of_memory
from dreamwright.backend.geometry.input_mesh import make_input_mesh
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.rendering.renderer import Renderer
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.scenes.interfaces import RunState
from dreamwright.backend.scenes.mesh_scene import MeshScene
from dreamwright.backend.scenes.state_tensors import parameters_of
from dreamwright.backend.server.requests import job_of
from dreamwright.backend.server.workers.fencing import raise_fence
from dreamwright.backend.text.prompts import PromptEmbeddings
from dreamwright.backend.training import guidance_loading
from dreamwright.backend.training.checkpoints import read_checkpoint
from dreamwright.backend.training.events import Checkpoint, Event
from dreamwright.backend.training.field_training import field_trainer
from dreamwright.backend.training.job import identify_model, make_job
from dreamwright.backend.training.pipeline import TextTo3DPipeline
from dreamwright.backend.training.trainer import Trainer
from tests.testing.oracles import KnownImages
from tests.testing.primitive_meshes import icosphere
from tests.testing.recording_worker import RecordingWorker, job_order
from tests.testing.tiny_model import ONE_VIEW, QUICK, quick_config, save_tiny_model

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 8 GiB"
SHORTAGES = {
    "of a device": lambda: torch.OutOfMemoryError(CUDA),
    "of the machine": MemoryError,
    "in torch's allocator": lambda: RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    ),
}


def run_of(config: Config, resume: RunState | None = None) -> list[Event]:
    oracle = KnownImages(lambda cameras: torch.full((len(cameras), 3, 16, 16), 0.3), 16)
    return field_trainer(
        config, ScoreDistillation(oracle, config.guidance), PromptEmbeddings(oracle, "a ball", config.guidance), resume
    )


def fail_once(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, error: Callable[[], BaseException]
) -> None:
    """Make the `call`-th call of `owner.name` raise after half its work."""
    real, calls = getattr(owner, name), []

    def failing(self: object, *words: object, **options: object) -> object:
        result = real(self, *words, **options)
        calls.append(1)
        if len(calls) == call:
            raise error()
        return result

    monkeypatch.setattr(owner, name, failing)


def final_state(events: list[Event]) -> RunState:
    return [event.state for event in events if isinstance(event, Checkpoint)][-1]


@pytest.mark.parametrize("where", ["guidance", "renderer", "occupancy grid"])
@pytest.mark.parametrize("shortage", SHORTAGES)
def test_field_scene_resumes_bitwise_after_a_shortage(
    monkeypatch: pytest.MonkeyPatch, where: str, shortage: str
) -> None:
    """Random draws and updates of the failed step are undone."""
    config = quick_config(
        "run.checkpoint_interval=100", "run.preview_interval=100", "render.occupancy_interval=1", "run.views_per_step=2"
    )
    whole = final_state(list(run_of(config)))
    owner, name = {
        "guidance": (ScoreDistillation, "gradient"),
        "renderer": (Renderer, "render"),
        "occupancy grid": (Renderer, "update_occupancy"),
    }[where]
    step = 4
    # The health checks after steps 1, 2 and 4 of 6 render as well.
    fail_once(monkeypatch, owner, name, step + 2 if where == "renderer" else step, SHORTAGES[shortage])
    events: list[Event] = []
    with pytest.raises(OutOfMemoryError, match=f"after step {step - 1}.*checkpoint") as caught:
        events.extend(run_of(config))
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    assert isinstance(events[-1], Checkpoint) and events[-1].state.step == step - 1
    resumed = final_state(list(run_of(config, events[-1].state)))
    assert whole.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(whole.tensors[name], resumed.tensors[name]) for name in whole.tensors)


def test_inconsistent_state_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_once(monkeypatch, torch.optim.Adam, "step", 3, SHORTAGES["of a device"])
    events: list[Event] = []
    with pytest.raises(OutOfMemoryError, match="last checkpoint is kept"):
        events.extend(run_of(quick_config("run.checkpoint_interval=2")))
    assert [e.state.step for e in events if isinstance(e, Checkpoint)] == [2]


@pytest.mark.parametrize("where", ["guidance", "renderer"])
def test_mesh_scene_resumes_bitwise_after_a_shortage(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The checkpoint is of the last complete step, with its random streams, as for fields."""
    settings = ("run.steps=6", "run.checkpoint_interval=100", "run.preview_interval=100")
    config = apply_settings(
        REFINE, [*ONE_VIEW, "run.views_per_step=2", *settings, "render.resolution=16", "refine.strength=1"]
    )
    vertices, faces = icosphere(1, 0.5)
    mesh = make_input_mesh(vertices, faces, np.full(vertices.shape, 0.5))
    oracle = KnownImages(lambda cameras: torch.full((len(cameras), 3, 16, 16), 0.3), 16)
    guidance, prompts = ScoreDistillation(oracle, config.guidance), PromptEmbeddings(oracle, "a ball", config.guidance)

    def trainer(resume: RunState | None = None) -> Trainer:
        return Trainer(lambda seed: MeshScene(config, guidance, prompts, mesh, seed), config.run, resume)

    whole = final_state(list(trainer()))
    owner, name = {"guidance": (ScoreDistillation, "gradient"), "renderer": (MeshScene, "_render")}[where]
    fail_once(monkeypatch, owner, name, 4, SHORTAGES["of a device"])
    events: list[Event] = []
    with pytest.raises(OutOfMemoryError, match="after step 3.*checkpoint"):
        events.extend(trainer())
    assert isinstance(events[-1], Checkpoint) and events[-1].state.step == 3
    resumed = final_state(list(trainer(events[-1].state)))
    assert whole.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(value, resumed.tensors[name]) for name, value in whole.tensors.items())


def test_other_errors_are_not_out_of_memory() -> None:
    assert not any(is_out_of_memory(error) for error in (RuntimeError("shape mismatch"), ValueError("out of memory")))


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["adam", "shampoo"])
def test_views_at_once_gives_the_same_gradients(at_once: int, optimizer: str) -> None:
    """Gradients equal those of all four views at once to float tolerance, with the same cameras, shading and noise."""
    gradients, figures, streams = [], [], []
    for views in (0, at_once):
        config = quick_config(
            "run.views_per_step=4",
            f"run.views_at_once={views}",
            f"optimizer.kind={optimizer}",
            "shading.albedo_only_share=0",
            "background.random_probability=0.5",
            "guidance.omega=3",
            "regularizers.orientation_start=0.1",
        )
        oracle = KnownImages(lambda cameras: torch.full((len(cameras), 3, 16, 16), 0.3), 16)
        scene = FieldScene(
            config, ScoreDistillation(oracle, config.guidance), PromptEmbeddings(oracle, "a ball", config.guidance), 0
        )
        figures.append(scene._backward())
        gradients.append([p.grad.clone() for p in parameters_of(scene.optimizer)])
        streams.append(torch.cat([stream.get_state() for stream in scene.streams.values()]))
    assert torch.equal(*streams)
    for one, other in zip(*gradients, strict=True):
        # An entry is a float32 sum of at most 4 views x 16 x 16 pixels x 16 samples = 16,384 terms. Another order of
        # the sum changes it by about sqrt(16,384) x 6e-8 = 8e-6 of the largest; ten times that.
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(one.abs().max()))
    for figure in figures:
        del figure["clean_error"]  # a root of a mean over views, so that the mean of groups differs
    # Means of float32 figures over views and groups, and the norm of the gradient above: 1e-4 as there.
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)


def test_only_rounding_settings_may_change_on_resume() -> None:
    config = quick_config()
    wanted = make_job("a ball", "m", "draft", config).fingerprint()

    def same(setting: str) -> bool:
        return make_job("a ball", "m", "draft", apply_settings(config, [setting])).fingerprint() == wanted

    for setting in (
        "run.views_at_once=1",
        "run.ignore_memory=true",
        "model.dtype=bfloat16",
        "model.attention_slicing=true",
        "model.vae_tiling=true",
        "model.vae_recompute=true",
        "text.process=own",
        "text.device=cpu",
        "text.precision=int8",
        "text.cache=false",
        "mesh.resolution=48",
    ):
        assert same(setting), setting
    for setting in (
        "run.views_per_step=4",
        "run.steps=7",
        "run.seed=1",
        "model.image_size=256",
        "render.samples=17",
        "render.resolution=17",
        "guidance.omega=4",
        "guidance.negative_prompt=fog",
        "field.voxel_resolutions=6",
        "optimizer.kind=shampoo",
    ):
        assert not same(setting), setting


def test_generate_advises_and_resumes_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(save_tiny_model(tmp_path / "model")), tmp_path / "x.ply"
    words = ["generate", "a red mushroom", "--model", model, "--out", str(out)]
    words += [
        part
        for setting in (
            *QUICK,
            "run.views_per_step=4",
            "run.checkpoint_interval=100",
            "render.resolution=32",
            "render.samples=64",
        )
        for part in ("--set", setting)
    ]
    with monkeypatch.context() as patch:
        fail_once(patch, ScoreDistillation, "gradient", 4, SHORTAGES["of a device"])
        assert main(words) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "dreamwright: error" in line]
    for text in ("out of memory after step 3", "Tried to allocate 2.00 GiB", "--resume", "run.views_at_once=1"):
        assert text in line
    assert not out.exists()
    seen: list[int] = []
    real = FieldScene.train_step
    monkeypatch.setattr(FieldScene, "train_step", lambda self: (seen.append(len(self.chunks)), real(self))[1])
    assert main([*words, "--resume", "--set", "run.views_at_once=1"]) == 0
    assert out.is_file() and seen == [4, 4, 4]


def test_worker_out_of_memory_keeps_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(save_tiny_model(tmp_path / "model"))
    fail_once(monkeypatch, ScoreDistillation, "gradient", 3, SHORTAGES["of a device"])
    order = job_order(Path(model), tmp_path / "job", 1)
    order = replace(order, settings={**order.settings, "run.checkpoint_interval": "100"})
    worker = RecordingWorker()
    raise_fence(tmp_path / "job", 1)
    worker.run(order)
    ended = worker.ended
    assert ended.how == "failed" and not ended.meshed
    assert ended.message.startswith("out of memory after step 2") and "--resume" in ended.message
    job = identify_model(job_of(order))
    assert read_checkpoint(tmp_path / "job" / "checkpoints", job).state.step == 2


def test_model_that_does_not_fit_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(CUDA)

    monkeypatch.setattr(guidance_loading, "load_denoiser", too_large)
    job = make_job(
        "a red mushroom", str(save_tiny_model(tmp_path / "model")), "draft", quick_config("run.views_per_step=2")
    )
    with pytest.raises(OutOfMemoryError, match="while loading the model .*2.00 GiB") as caught:
        TextTo3DPipeline(job, "cpu", None, lambda: False)
    assert "\n" not in str(caught.value)
