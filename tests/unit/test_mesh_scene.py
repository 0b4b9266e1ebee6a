# SPDX-License-Identifier: GPL-3.0-or-later
"""Mesh refinement: runs towards known images, strength 0, resume and refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamwright.backend.cameras.poses import orbit_cameras
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.recipes.starter import REFINE
from dreamwright.backend.errors import CheckpointError, ConfigError, NonFiniteError
from dreamwright.backend.evaluation.silhouettes import iou
from dreamwright.backend.geometry.input_mesh import make_input_mesh
from dreamwright.backend.guidance.interfaces import GuidanceResult
from dreamwright.backend.mesh_rendering.rasterize import rasterize
from dreamwright.backend.scenes.derived_config import guidance_for
from dreamwright.backend.training.checkpoints import read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Checkpoint, Finished, Health, Preview, StepCompleted
from tests.testing.egg_runs import SIZE, ball, egg_images, mesh_trainer, refine_config, refine_job, run_of
from tests.testing.oracles import KnownImages
from tests.testing.primitive_meshes import icosphere


@pytest.fixture
def oracle() -> KnownImages:
    return KnownImages(egg_images, SIZE)


# --- runs


@pytest.mark.slow
def test_ball_becomes_the_known_egg(oracle: KnownImages) -> None:
    """SDS with a perfect denoiser is image fitting: a grey ball becomes an egg with a red and a blue half."""
    config = refine_config(
        "run.steps=150",
        "run.views_per_step=2",
        "refine.strength=1",
        "run.preview_interval=1000",
        "run.checkpoint_interval=1000",
        "camera.elevation_min=-60",
        "refine.laplacian=10",
        "refine.edges=10",
        "guidance.t_min=0.5",
        "guidance.t_max=0.5",
        "guidance.t_max_end=0.5",
    )
    run = run_of(config, oracle, ball(2))
    held_out = orbit_cameras([13, 85, 157, 229, 301], [10.0, -20.0, 30.0, -35.0, 5.0], 1.9, 1.45)
    egg, faces = icosphere(4, 0.5)
    egg = egg * [0.84, 0.84, 1.0]

    def measure() -> tuple[float, float]:
        where = (run.scene.rest + run.scene.displacements()).detach().double().numpy()
        tints = (run.scene.colors + run.scene.color_changes()).detach().numpy()
        overlaps, wrong = [], []
        for view in range(5):
            camera = (held_out.position[view].double().numpy(), held_out.rotation[view].double().numpy(), 1.45)
            own, wanted = (
                rasterize(where, run.scene.topology.faces.numpy(), *camera, 128),
                rasterize(egg, faces, *camera, 128),
            )
            overlaps.append(iou(own.mask, wanted.mask))
            clear = own.mask & wanted.mask & (np.abs(wanted.interpolate(faces, egg)[..., 2]) > 0.1)
            color = np.where(wanted.interpolate(faces, egg)[..., 2:] > 0, [0.9, 0.2, 0.1], [0.1, 0.3, 0.8])
            wrong.append(np.abs(own.interpolate(run.scene.input_mesh.faces, tints) - color)[clear].mean())
        return float(np.mean(overlaps)), float(np.mean(wrong))

    before = measure()
    for _ in run:
        pass
    after = measure()
    # Convergence: two thirds of the silhouette's error and three quarters of the color's are gone after 150 steps, and
    # at most three faces of 320 are folded. Rounding does not add up, as the perfect denoiser pulls back every
    # difference.
    assert before[0] < 0.87 and before[1] > 0.25
    assert 1 - after[0] < (1 - before[0]) / 3 and after[1] < before[1] / 4
    assert run.scene.figures()["folded"] < 0.01


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_strength_bounds_all_changes_and_0_changes_nothing(oracle: KnownImages, strength: float) -> None:
    subject = ball(2, shift=3.0, size=7.0)
    config = refine_config(
        f"refine.strength={strength}",
        "refine.position_rate=1",
        "refine.color_rate=1",
        "refine.reach=0.2",
        "refine.color_reach=0.5",
        "run.steps=8",
    )
    run = run_of(config, oracle, subject)
    for _ in run:
        pass
    mesh, _ = run.scene.to_mesh()
    moved = np.linalg.norm(mesh.vertices.astype(np.float64) - subject.vertices, axis=1) * subject.scale
    assert np.array_equal(mesh.faces, subject.faces) and len(mesh.vertices) == len(subject.vertices)
    if strength == 0:
        assert (
            mesh.vertices.tobytes() == subject.vertices.tobytes() and mesh.albedo.tobytes() == subject.albedo.tobytes()
        )
        return
    tints = run.scene.color_changes().detach().numpy()
    # The bounds are strength x reach, of which at least half is used. float32 vertices of up to 10 err by 5e-7, times
    # the scale of 0.5 / 7.
    assert 0.03 < moved.max() <= 0.3 * 0.2 + 1e-6
    assert 0.075 < np.abs(tints).max() <= 0.3 * 0.5 + 1e-7


def test_noise_range_grows_with_strength() -> None:
    highs = [guidance_for(REFINE.guidance, s).t_max for s in (0.0, 0.5, 1.0)]
    low, high = REFINE.guidance.t_min, REFINE.guidance.t_max
    assert highs == pytest.approx([(low + high) / 2, low + 0.75 * (high - low), high])


@pytest.mark.parametrize("kept", ["positions", "colors"])
def test_switched_off_parts_stay_bitwise(oracle: KnownImages, kept: str) -> None:
    subject = ball(2)
    run = run_of(refine_config(f"refine.{kept}=false", "refine.strength=1"), oracle, subject)
    for _ in run:
        pass
    mesh, _ = run.scene.to_mesh()
    assert np.array_equal(mesh.vertices, subject.vertices) == (kept == "positions")
    assert np.array_equal(mesh.albedo, subject.albedo) == (kept == "colors")


def test_split_vertices_stay_together(oracle: KnownImages) -> None:
    """A mesh with three vertices per face, as exporters write it for flat shading."""
    vertices, faces = icosphere(2, 1.0)
    soup = make_input_mesh(
        vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3), np.full((faces.size, 3), 0.4)
    )
    assert len(soup.unit) == len(vertices)
    run = run_of(refine_config("refine.strength=1"), oracle, soup)
    for _ in run:
        pass
    mesh, _ = run.scene.to_mesh()
    assert len(np.unique(mesh.vertices, axis=0)) == len(vertices) and not np.array_equal(mesh.vertices, soup.vertices)


@pytest.mark.parametrize("stop_at", [2, 4])
def test_resumed_run_equals_an_uninterrupted_one_bitwise(oracle: KnownImages, tmp_path, stop_at: int) -> None:
    config, subject = (
        refine_config("run.views_per_step=2", "shading.shaded_probability=0.7", "refine.strength=1"),
        ball(2),
    )
    job = refine_job(config, subject)
    whole = run_of(config, oracle, subject)
    for _ in whole:
        pass
    for event in run_of(config, oracle, subject):
        if isinstance(event, Checkpoint):
            write_checkpoint(tmp_path, job, event.state)
            if event.state.step == stop_at:
                break
    resumed = run_of(config, oracle, subject, resume=read_checkpoint(tmp_path, job).state)
    steps = [event.step for event in resumed if isinstance(event, StepCompleted)]
    assert steps == list(range(stop_at + 1, 7))
    first, second = whole.scene.state().tensors, resumed.scene.state().tensors
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert whole.scene.to_mesh()[0].vertices.tobytes() == resumed.scene.to_mesh()[0].vertices.tobytes()


def test_checkpoint_of_another_mesh_or_strength_is_refused(oracle: KnownImages, tmp_path) -> None:
    config, subject = refine_config(), ball(2)
    job = refine_job(config, subject)
    state = next(event.state for event in run_of(config, oracle, subject) if isinstance(event, Checkpoint))
    write_checkpoint(tmp_path, job, state)
    stronger = apply_settings(config, ["refine.strength=0.9"])
    for other in (
        refine_job(config, ball(2, size=1.1)),
        refine_job(stronger, subject),
    ):
        with pytest.raises(CheckpointError, match="another run"):
            read_checkpoint(tmp_path, other)
    with pytest.raises(CheckpointError, match="does not fit this mesh"):
        run_of(config, oracle, ball(1), resume=state)
    with pytest.raises(CheckpointError, match="optimizer's state is missing"):
        missing = {name: t for name, t in state.tensors.items() if not name.startswith("optimizer.")}
        run_of(config, oracle, subject, resume=replace(state, tensors=missing))


def test_events_of_a_run(oracle: KnownImages) -> None:
    ticks = iter(range(1000))
    events = list(run_of(refine_config(), oracle, ball(2), clock=lambda: float(next(ticks))))
    progress = [e for e in events if isinstance(e, StepCompleted)]
    assert [e.step for e in progress] == [1, 2, 3, 4, 5, 6]
    assert progress[2].eta_s == pytest.approx(progress[2].elapsed_s)
    assert {e.step for e in events if isinstance(e, Preview)} == {3, 6}
    assert all(e.image.shape == (96, 288, 3) for e in events if isinstance(e, Preview))
    assert [e.verdict for e in events if isinstance(e, Health)] == ["fine"] * 4
    assert events[-1] == Finished(6, True, 0)


def test_stop_takes_effect_within_a_step_and_leaves_a_checkpoint(oracle: KnownImages) -> None:
    stop_requests, events = [], []
    config = refine_config("run.checkpoint_interval=100")
    for event in run_of(config, oracle, ball(2), should_stop=lambda: bool(stop_requests)):
        events.append(event)
        if isinstance(event, StepCompleted) and event.step == 2:
            stop_requests.append(True)
    assert isinstance(events[-2], Checkpoint) and events[-2].state.step == 2
    assert events[-1] == Finished(2, False, 0)


def test_nan_gradient_ends_the_run_before_the_mesh_moves(oracle: KnownImages) -> None:
    class Broken:
        def gradient(self, image, cameras, conditioning, generator, progress):
            return GuidanceResult(torch.full_like(image, math.nan), {})

    config = refine_config()
    run = mesh_trainer(config, Broken(), oracle, ball(2))
    with pytest.raises(NonFiniteError, match="diverged at step 0.*strength"):
        list(run)
    assert float(run.scene.displacements().detach().abs().max()) == 0.0


# --- refusals


@pytest.mark.parametrize(
    ("vertices", "faces", "word"),
    [
        (np.zeros((3, 3)), np.array([[0, 1, 2]]), "one place"),
        (np.eye(3), np.array([[0, 1, 3]]), "vertex 3 of 3"),
        (np.eye(3), np.zeros((0, 3), int), "0 triangles"),
        (np.eye(3), np.array([[0, 1, 2, 0]]), "triangulate"),
        (np.full((3, 3), np.nan), np.array([[0, 1, 2]]), "not finite"),
    ],
)
def test_invalid_mesh_is_refused(vertices: np.ndarray, faces: np.ndarray, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as caught:
        make_input_mesh(vertices, faces, np.full(vertices.shape, 0.5))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["field.kind=mip-mlp", "mesh.resolution=64", "run.max_restarts=0", "render.samples=16"]
)
def test_settings_of_other_scenes_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        refine_job(apply_settings(REFINE, [setting]), ball(1))
