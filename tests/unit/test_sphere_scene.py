# SPDX-License-Identifier: GPL-3.0-or-later
"""clip-mesh: the sphere and its regularizers in closed form, CLIP's gradient on vertices, and runs on a tiny CLIP."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamwright.backend.cameras.poses import orbit_cameras, sample_cameras
from dreamwright.backend.cli.generate import job_from
from dreamwright.backend.cli.main import build_parser, main
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import CLIP_MESH, CLIP_MESH_PAPER, DRAFT
from dreamwright.backend.config.schema import Config, SphereConfig
from dreamwright.backend.errors import CheckpointError, ConfigError, ModelError
from dreamwright.backend.geometry.topology import (
    Surface,
    edges_of,
    euler_number,
    face_pairs,
    is_manifold,
    signed_volume,
    vertex_normals,
)
from dreamwright.backend.guidance.clip_guidance import ClipGuidance
from dreamwright.backend.guidance.clip_model import ImageTextModel, load_image_text
from dreamwright.backend.mesh_rendering.render import Topology, render_mesh
from dreamwright.backend.rendering.shading import Shading
from dreamwright.backend.scenes.initial_field import InitialField
from dreamwright.backend.scenes.mesh_losses import bounds_penalty, normal_energy
from dreamwright.backend.scenes.sphere_scene import SphereScene, sphere_mesh
from dreamwright.backend.scenes.views import StepViews
from dreamwright.backend.server.requests import check_submission
from dreamwright.backend.text.prompts import PromptEmbeddings
from dreamwright.backend.training.checkpoints import read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Checkpoint, Finished, Health, Preview, StepCompleted
from dreamwright.backend.training.job import make_job
from dreamwright.backend.training.methods import METHODS, uses
from dreamwright.backend.training.pipeline import TextTo3DPipeline
from dreamwright.shared.messages import SubmitJob
from tests.testing.primitive_meshes import cube, grid, tetrahedron
from tests.testing.tiny_clip import SIDE, write_clip

PROMPT = "a red mushroom"
QUICK = (
    "run.steps=6",
    "run.views_per_step=2",
    "run.checkpoint_interval=2",
    "run.preview_interval=3",
    "render.resolution=24",
    "refine.supersampling=1",
    "clip.crops=2",
    "sphere.subdivisions=2",
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def model(clip: Path) -> ImageTextModel:
    return load_image_text(clip)


def quick(*settings: str) -> Config:
    return apply_settings(CLIP_MESH, [*QUICK, *settings])


def sphere_scene(model: ImageTextModel, *settings: str) -> SphereScene:
    config = quick(*settings)
    return SphereScene(
        config,
        ClipGuidance(model, config.clip),
        PromptEmbeddings(model, PROMPT, config.guidance),
        0,
    )


# --- the sphere and its regularizers


@pytest.mark.parametrize("subdivisions", [1, 3])
def test_sphere_is_round_closed_and_outward(subdivisions: int) -> None:
    """10 * 4^n + 2 vertices on the sphere; a closed manifold without handles; nearly 4 / 3 pi r^3, from below."""
    subject = sphere_mesh(SphereConfig(subdivisions=subdivisions, radius=0.3), 0)
    assert len(subject.vertices) == 10 * 4**subdivisions + 2 and len(subject.faces) == 20 * 4**subdivisions
    # Vertices are float32.
    assert np.linalg.norm(subject.unit, axis=1) == pytest.approx(0.3, abs=1e-6)
    assert is_manifold(subject.faces) and euler_number(subject.faces) == 2
    volume = signed_volume(Surface(subject.unit, subject.faces)) / (4 / 3 * math.pi * 0.3**3)
    assert 1 - 0.6 / 4**subdivisions < volume < 1


def test_sphere_colors_are_smooth_noise_of_the_seed() -> None:
    """Mean and deviation as configured where nothing is clipped; neighbors are similar; without noise it is grey."""
    config = SphereConfig(subdivisions=4, color_noise=0.1)
    subject = sphere_mesh(config, 1)
    # The noise is normalized to the configured mean and deviation.
    assert subject.display.mean(0) == pytest.approx(0.5, abs=1e-3) and subject.display.std(0) == pytest.approx(
        0.1, abs=1e-3
    )
    one, other = subject.display[edges_of(subject.faces).T]
    assert np.abs(one - other).mean() < 0.35 * np.abs(subject.display - subject.display[::-1]).mean()
    assert np.array_equal(subject.albedo, sphere_mesh(config, 1).albedo) and not np.array_equal(
        subject.albedo, sphere_mesh(config, 2).albedo
    )
    assert sphere_mesh(SphereConfig(color_noise=0.0), 1).display == pytest.approx(0.5, abs=1e-6)


def test_normal_energy_of_known_angles() -> None:
    """Flat: 0. A tetrahedron's normals have cosine -1/3. Of a cube's 18 edges 12 are right angles."""
    for (vertices, faces), wanted in ((grid(3), 0.0), (tetrahedron(), 4 / 3), (cube(0.7), 12 / 18)):
        pairs = torch.from_numpy(face_pairs(faces))
        assert float(normal_energy(torch.from_numpy(vertices), torch.from_numpy(faces), pairs)) == pytest.approx(
            wanted, abs=1e-12
        )
    vertices, faces = tetrahedron()
    assert len(face_pairs(faces)) == 6 and {tuple(sorted(pair)) for pair in face_pairs(faces).tolist()} == {
        (a, b) for a in range(4) for b in range(a + 1, 4)
    }
    assert len(face_pairs(np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))) == 0, (
        "an edge of three faces has no two neighbors"
    )


def test_bounds_penalty_counts_outside_vertices_only() -> None:
    where = torch.tensor([[0.0, 0, 0.8], [0.3, 0, 0], [0.0, -0.6, 0], [0.0, 0, 0]], dtype=torch.float64)
    assert float(bounds_penalty(where, 0.5)) == pytest.approx((0.09 + 0.01) / 4)
    where.requires_grad_()
    bounds_penalty(where, 0.5).backward()
    assert where.grad[1].abs().sum() == 0 and where.grad[0].tolist() == pytest.approx([0, 0, 2 * 0.3 / 4])
    moved = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pairs, faces = torch.from_numpy(face_pairs(tetrahedron()[1])), torch.from_numpy(tetrahedron()[1])
    assert torch.autograd.gradcheck(lambda x: normal_energy(x, faces, pairs) + bounds_penalty(x, 0.5), moved)


def test_laplacian_weight_falls_during_the_run(model: ImageTextModel) -> None:
    """One vertex is displaced: only the Laplacian and the edges change, the first by its schedule."""
    shape = sphere_scene(
        model,
        "refine.laplacian=3",
        "sphere.laplacian_end=1",
        "sphere.laplacian_share=0.5",
        "refine.edges=0",
        "sphere.normals=0",
    )
    moves = torch.zeros_like(shape.rest)
    moves[0, 2] = 0.01
    start, figures = shape.penalties(moves)
    # float32 sums over the vertices.
    assert float(start) == pytest.approx(3 * figures["laplacian"], rel=1e-4) and figures["laplacian"] > 0
    shape.step = 3
    # float32 sums over the vertices.
    assert float(shape.penalties(moves)[0]) == pytest.approx(figures["laplacian"], rel=1e-4)
    at_rest = shape.penalties(torch.zeros_like(moves))[1]
    assert (
        at_rest["laplacian"] == 0 and at_rest["stretching"] == pytest.approx(0, abs=1e-12) and at_rest["outside"] == 0
    )


# --- CLIP's score of the mesh


def test_plain_loss_is_the_score_before_white(model: ImageTextModel) -> None:
    """The same views rendered on white and passed to `scores` give the cosine that a step reports."""
    plain = (
        "clip.crops=1",
        "clip.crop_share=1",
        "clip.backgrounds=false",
        f"render.resolution={SIDE}",
        "shading.shaded_probability=0",
    )
    shape, twin = sphere_scene(model, *plain), sphere_scene(model, *plain)
    cosine = shape.train_step()["cosine"]
    cameras = sample_cameras(twin.config.camera, 2, twin.streams["cameras"])
    views = [Shading()] * 2
    seen = render_mesh(
        twin.topology, twin.rest, twin.colors, torch.ones(2, 3), cameras, views, cameras.position, SIDE, 1
    )
    # A cosine is at most 1; float32 images in another order of operations.
    assert cosine == pytest.approx(float(model.scores(seen.image, [PROMPT]).mean()), abs=1e-5)


def test_score_gradient_reaches_visible_vertices(model: ImageTextModel) -> None:
    shape = sphere_scene(model, "clip.backgrounds=false", "clip.crops=1", "clip.crop_share=1")
    topology: Topology = shape.topology
    cameras = orbit_cameras([0, 120, 240], 20.0, 1.9, 1.2)

    def score(where: torch.Tensor) -> torch.Tensor:
        seen = render_mesh(
            topology, where, shape.colors, torch.ones(3, 3), cameras, [Shading()] * 3, cameras.position, SIDE, 1
        )
        return (model.embed_images(seen.image) @ model.embed_prompts([PROMPT]).T).mean()

    where = shape.rest.clone().requires_grad_()
    before = score(where)
    gradient = torch.autograd.grad(before, where)[0]
    assert float((gradient.norm(dim=-1) > 0).float().mean()) > 0.25, "silhouettes from three sides"
    step = 0.002 / float(gradient.norm(dim=-1).max())
    assert float(score(where.detach() + step * gradient)) > float(before.detach())


def test_step_gradient_is_the_gradient_of_the_score(model: ImageTextModel) -> None:
    """Layer gradients through the rasterizer against plain autograd from the score to the sphere's parameters."""
    shape = sphere_scene(
        model, "clip.backgrounds=false", "clip.crops=1", "clip.crop_share=1", f"render.resolution={SIDE}"
    )
    cameras, views = orbit_cameras([10, 130], 20.0, 1.9, 1.2), [Shading()] * 2
    drawn = StepViews(cameras, cameras.position, tuple(views), torch.full((2, 3), 0.3), torch.ones(2, dtype=torch.bool))
    loss, figures = shape._chunk_loss(shape.displacements(), shape.color_changes(), drawn)
    gradients = torch.autograd.grad(loss, (shape.vertex_offsets, shape.color_offsets))
    where, colors = shape.rest + shape.displacements(), shape.colors + shape.color_changes()
    seen = render_mesh(shape.topology, where, colors, torch.ones(2, 3), cameras, views, cameras.position, SIDE, 1)
    score = (model.embed_images(seen.image) @ model.embed_prompts([PROMPT]).T).mean()
    # A cosine is at most 1; float32 images in another order of operations.
    assert figures["cosine"] == pytest.approx(float(score.detach()), abs=1e-5)
    for found, wanted in zip(
        gradients, torch.autograd.grad(-score, (shape.vertex_offsets, shape.color_offsets)), strict=True
    ):
        # float32 gradients through a network and a rasterizer, summed over pixels in another order.
        assert float(wanted.abs().max()) > 1e-6 and torch.allclose(
            found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())
        )


def test_textureless_views_come_in_the_first_part_only(model: ImageTextModel) -> None:
    shape = sphere_scene(
        model,
        "run.steps=8",
        "run.views_per_step=4",
        "shading.shaded_probability=1",
        "shading.textureless_probability=1",
        "sphere.textureless_share=0.5",
    )
    shown: list[set[str]] = []
    render = shape._render
    shape._render = lambda *given: shown.append({s.kind for s in given[4]}) or render(*given)
    for _ in range(8):
        shape.train_step()
    assert shown == [{"textureless"}] * 4 + [{"shaded"}] * 4


def test_views_at_once_changes_rounding_only(model: ImageTextModel) -> None:
    whole, parts = (
        sphere_scene(model, "run.views_per_step=3"),
        sphere_scene(model, "run.views_per_step=3", "run.views_at_once=2"),
    )
    for _ in range(2):
        figures_whole, figures_parts = whole.train_step(), parts.train_step()
        # Means over three views in float32, in groups of two and one.
        assert figures_whole == pytest.approx(figures_parts, abs=1e-4)
    one, other = whole.vertex_offsets.detach(), parts.vertex_offsets.detach()
    # Adam divides by the gradient's size, so rounding of small entries is enlarged; 0.1% of the largest step is
    # allowed.
    assert float(one.abs().max()) > 0.01 and torch.allclose(one, other, atol=1e-3 * float(one.abs().max()))
    assert torch.equal(whole.streams["noise"].get_state(), parts.streams["noise"].get_state())


# --- whole runs


@pytest.mark.slow
def test_run_raises_the_cosine_and_resumes_bitwise(clip: Path, tmp_path: Path) -> None:
    job = make_job(
        PROMPT, str(clip), "clip-mesh", quick("run.steps=30", "run.checkpoint_interval=10", "run.preview_interval=15")
    )
    whole, cosines, states, events = TextTo3DPipeline(job, "cpu", None, lambda: False), [], {}, []
    for event in whole.events():
        events.append(event)
        if isinstance(event, StepCompleted):
            cosines.append(event.scalars["cosine"])
        if isinstance(event, Checkpoint):
            states[event.state.step] = event.state
    assert np.mean(cosines[-5:]) > np.mean(cosines[:5])
    assert [e.step for e in events if isinstance(e, Preview)] == [15, 30] and any(isinstance(e, Health) for e in events)
    assert events[-1] == Finished(30, True, 0) and sorted(states) == [10, 20, 30]
    write_checkpoint(tmp_path, job, states[10])
    resumed = TextTo3DPipeline(job, "cpu", read_checkpoint(tmp_path, job).state, lambda: False)
    last = [event.state for event in resumed.events() if isinstance(event, Checkpoint)][-1]
    for name, value in states[30].tensors.items():
        assert value.equal(last.tensors[name]), name
    (one, report), (other, _) = whole.mesh(), resumed.mesh()
    assert np.array_equal(one.vertices, other.vertices) and np.array_equal(one.albedo, other.albedo)
    assert is_manifold(one.faces) and report.watertight and report.components == 1 and 0 <= report.folded < 1
    # Vertices are stored in float32.
    assert (
        signed_volume(Surface(one.vertices.astype(float), one.faces)) == pytest.approx(report.volume, rel=1e-3)
        and report.volume > 0
    )
    # Vertices are float32.
    assert float(np.ptp(one.vertices[:, 2])) == pytest.approx(1.0, abs=1e-5), "mesh.height_m"


def test_inside_out_sphere_is_corrected(model: ImageTextModel) -> None:
    shape = sphere_scene(model, "refine.reach=1", "mesh.height_m=2")
    wanted = -2 * shape.rest  # every vertex mirrored through the center
    bound = 1.0
    length = wanted.norm(dim=-1, keepdim=True)
    offset = shape._vertex_steps.matrix @ (wanted * bound / torch.sqrt(bound**2 - length**2)).double().numpy()
    assert shape.figures()["inside"] == 0
    with torch.no_grad():
        shape.vertex_offsets.copy_(torch.from_numpy(np.asarray(offset)).float())
    # A float32 solve with a condition number of some hundred.
    assert torch.allclose(shape.rest + shape.displacements(), -shape.rest, atol=1e-4) and shape.figures()["inside"] == 1
    mesh, report = shape.to_mesh()
    assert report.volume > 0 and signed_volume(Surface(mesh.vertices.astype(float), mesh.faces)) > 0
    middle = mesh.vertices - mesh.vertices.mean(0)
    assert ((mesh.normals * middle).sum(1) > 0).all()
    # Normals are float32, of vertices rounded to float32.
    assert np.allclose(vertex_normals(Surface(mesh.vertices.astype(float), mesh.faces)), mesh.normals, atol=1e-4)


def test_stopped_run_has_a_mesh(clip: Path) -> None:
    asked: list[bool] = []
    pipeline = TextTo3DPipeline(make_job(PROMPT, str(clip), "clip-mesh", quick()), "cpu", None, lambda: bool(asked))
    events = []
    for event in pipeline.events():
        events.append(event)
        if isinstance(event, StepCompleted) and event.step == 3:
            asked.append(True)
    assert isinstance(events[-2], Checkpoint) and events[-2].state.step == 3 == pipeline.step
    assert events[-1] == Finished(3, False, 0) and len(pipeline.mesh()[0].faces) == 320


def arguments(clip: Path, out: Path, *extra: str) -> list[str]:
    settings = [part for setting in QUICK for part in ("--set", setting)]
    return [
        "generate",
        PROMPT,
        "--method",
        "clip-mesh",
        "--model",
        str(clip),
        "--out",
        str(out),
        "--device",
        "cpu",
        *settings,
        *extra,
    ]


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
@pytest.mark.slow
def test_generate_writes_prop_facts_and_turntable(
    suffix: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"prop{suffix}"
    assert (
        main(arguments(clip, out, "--previews", str(tmp_path / "previews"), "--seed", "3", "--negative", "blue")) == 0
    )
    output = capsys.readouterr()
    assert "320 triangles, 162 vertices, watertight" in output.out and "% of the faces folded over" in output.out
    assert "clip-mesh has no use for a negative prompt" in output.err and "a sphere of 162 vertices" in output.err
    assert (tmp_path / "previews" / "turntable.png").is_file() and (tmp_path / "previews" / "step-000003.png").is_file()
    written = out.read_bytes().replace(b" ", b"").replace(b'\\"', b'"')
    assert (b'"method":"clip-mesh"' if suffix == ".glb" else b'method:"clip-mesh"') in written
    assert not out.with_name(out.name + ".work").exists()


# --- refusals


def asked(*given: str) -> object:
    return job_from(build_parser().parse_args(["generate", PROMPT, "--method", "clip-mesh", *given]))


def test_method_sets_preset_and_model() -> None:
    job = asked()
    assert (job.preset, job.model, job.config) == ("clip-mesh", "starter-clip", CLIP_MESH)
    assert asked("--preset", "clip-mesh-paper").config == CLIP_MESH_PAPER
    assert METHODS["clip-mesh"].kind == "image-text"


@pytest.mark.parametrize(
    "setting",
    [
        "field.kind=voxels",
        "guidance.omega=7",
        "guidance.guidance_scale=7",
        "mesh.resolution=64",
        "mesh.texture=512",
        "optimizer.learning_rate=0.1",
        "render.samples=16",
        "background.random_probability=0.5",
        "regularizers.transmittance=0.5",
        "refine.strength=0.5",
        "refine.positions=false",
        "run.max_restarts=1",
        "text.cache=false",
    ],
)
def test_settings_of_fields_are_refused_by_name(setting: str) -> None:
    name = setting.partition("=")[0].replace("guidance_scale", "omega")
    with pytest.raises(
        ConfigError,
        match=f"{name} means nothing to clip-mesh; allowed are the settings that .*settings.md lists.*leave it out",
    ) as caught:
        asked("--set", setting)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["sphere.subdivisions=7", "sphere.radius=0.9", "sphere.normals=-1", "sphere.grey=0.5"]
)
def test_invalid_sphere_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="sphere.*(allowed|did you mean)"):
        asked("--set", setting)


def test_sphere_settings_are_refused_for_fields() -> None:
    for preset in ("draft", "dream-fields"):
        with pytest.raises(ConfigError, match="sphere.radius means nothing to"):
            job_from(build_parser().parse_args(["generate", PROMPT, "--preset", preset, "--set", "sphere.radius=0.2"]))
    assert (
        uses("clip-mesh", "sphere.radius")
        and uses("clip-mesh", "run.steps")
        and not uses("clip-mesh", "nonsense.x")
        and uses("dreamfusion", "field.kind")
    )


def test_initial_field_and_several_processes_are_refused(clip: Path) -> None:
    from dreamwright.backend.runtime.distributed import SingleProcess

    job = make_job(PROMPT, str(clip), "clip-mesh", quick())
    with pytest.raises(CheckpointError, match="begins from a sphere"):
        TextTo3DPipeline(job, "cpu", None, lambda: False, initial_field=InitialField({}, "a ball", "0" * 64))

    class Two(SingleProcess):
        world_size = 2

    with pytest.raises(ConfigError, match="runs in one process, not in 2"):
        TextTo3DPipeline(job, "cpu", None, lambda: False, Two())


def test_checkpoint_of_another_sphere_is_refused(clip: Path) -> None:
    job = make_job(PROMPT, str(clip), "clip-mesh", quick())
    others = [quick("sphere.normals=0.9"), quick("refine.stiffness=3"), quick("refine.laplacian=3")]
    same = [
        quick("run.threads=1"),
        quick("run.views_at_once=1"),
        quick("mesh.height_m=2"),
        quick("run.preview_interval=1"),
    ]
    assert len({job.fingerprint(), *(replace(job, config=config).fingerprint() for config in others)}) == 4
    assert {replace(job, config=config).fingerprint() for config in same} == {job.fingerprint()}
    field = make_job(PROMPT, "starter", "draft", DRAFT)  # unfinished runs of versions without sphere scenes must resume
    assert field.fingerprint() == replace(field, config=replace(DRAFT, sphere=SphereConfig(radius=0.2))).fingerprint()
    state = next(
        e.state for e in TextTo3DPipeline(job, "cpu", None, lambda: False).events() if isinstance(e, Checkpoint)
    )
    with pytest.raises(CheckpointError, match="does not fit this mesh"):
        TextTo3DPipeline(
            make_job(PROMPT, str(clip), "clip-mesh", quick("sphere.subdivisions=1")), "cpu", state, lambda: False
        )


def test_submission_is_checked_by_preset() -> None:
    job = check_submission(SubmitJob("t" * 16, PROMPT, "", "starter-clip", "clip-mesh", 5, {}))
    assert job.config.run.method == "clip-mesh" and job.config.run.seed == 5
    with pytest.raises(ModelError, match="cannot guide clip-mesh; allowed are starter-clip"):
        check_submission(SubmitJob("t" * 16, PROMPT, "", "starter", "clip-mesh", 0, {}))
    with pytest.raises(ConfigError, match="mesh.triangles means nothing to clip-mesh"):
        check_submission(SubmitJob("t" * 16, PROMPT, "", "starter-clip", "clip-mesh", 0, {"mesh.triangles": 100}))
