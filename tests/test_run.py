# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs: convergence on known images, exact resume, health, restarts, cancelling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreamwright.backend.cameras import Cameras, orbit_cameras
from dreamwright.backend.checkpoints import FORMAT, NEWEST, PREVIOUS, VERSION, has_checkpoint, read_checkpoint, remove_checkpoints, write_checkpoint
from dreamwright.backend.config import Config
from dreamwright.backend.distillation import ScoreDistillation
from dreamwright.backend.errors import CheckpointError, RunError
from dreamwright.backend.events import Checkpoint, Finished, Health, Preview, Progress, Restarted, RunState
from dreamwright.backend.guidance.contract import Conditioning, GuidanceResult
from dreamwright.backend.guidance.oracles import KnownImages
from dreamwright.backend.health import all_finite, judge_run, opacity_figures, view_similarity
from dreamwright.backend.job import Job, make_job
from dreamwright.backend.optimization import Run, optimise
from dreamwright.backend.prompts import PromptBank
from dreamwright.backend.rendering.shading import Shading
from tests.tiny_model import quick_config


def ball_pictures(cameras: Cameras, size: int = 32, backdrop: float = 0.75) -> torch.Tensor:
    """Closed-form albedo pictures (n, 3, size, size) of a ball of radius 0.35, red above and blue below the equator."""
    from dreamwright.backend.cameras import camera_rays
    from dreamwright.backend.rendering.sampling import sphere_interval

    rays = camera_rays(cameras, 4 * size)
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    near, _, meets = sphere_interval(origins, directions, 0.35)
    upper = (origins + near[:, None] * directions)[:, 2:] > 0
    colour = torch.where(upper, torch.tensor([0.9, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.8]))
    image = torch.where(meets[:, None], colour, torch.full((1, 3), backdrop))
    image = image.view(len(cameras), 4 * size, 4 * size, 3).permute(0, 3, 1, 2)
    return torch.nn.functional.avg_pool2d(image, 4)


def run_of(config: Config, oracle: KnownImages, **options: object) -> Run:
    bank = PromptBank(oracle, "a ball", config.guidance)
    return optimise(config, ScoreDistillation(oracle, config.guidance), bank, **options)


@pytest.mark.slow
def test_with_the_known_image_oracle_the_field_reaches_25_db_on_held_out_views() -> None:
    """SDS with a perfect denoiser is image fitting: views between the training views must come out right."""
    config = quick_config(
        "run.steps=260", "render.resolution=32", "render.samples=48", "render.occupancy_resolution=24",
        "field.voxel_resolutions=8,16,32", "shading.albedo_only_share=1", "background.random_probability=0",
        "guidance.omega=0", "run.checkpoint_interval=1000", "run.preview_interval=1000", "field.density_scale=20",
        "optimizer.background_rate_multiplier=1", "run.views_per_step=2",
    )  # fmt: skip
    run = run_of(config, KnownImages(lambda cameras: ball_pictures(cameras), 32))
    for _ in run:
        pass
    held_out = orbit_cameras([13, 77, 141, 205, 269, 333], 12.0, 1.9, 1.45)
    got = run.distiller.view(held_out, [Shading()] * 6, 32).image.clamp(0, 1)
    psnr = -10 * torch.log10((got - ball_pictures(held_out)).square().mean())
    assert float(psnr) >= 25.0


def test_the_first_views_are_coarse_and_the_guidance_always_sees_the_full_size() -> None:
    seen: list[tuple[int, int]] = []

    class Watcher:
        def gradient(self, image, cameras, conditioning, generator, progress):
            seen.append((watched.distiller._resolution(), image.shape[-1]))
            return GuidanceResult(torch.zeros_like(image), {})

    oracle = KnownImages(lambda cameras: ball_pictures(cameras, 16), 16)
    config = quick_config("run.steps=4", "render.coarse_resolution=8", "render.coarse_share=0.5", "run.max_restarts=0")
    watched = optimise(config, Watcher(), PromptBank(oracle, "a ball", config.guidance))
    for _ in range(4):
        watched.distiller.advance()
    assert seen == [(8, 16), (8, 16), (16, 16), (16, 16)]


@pytest.fixture
def oracle() -> KnownImages:
    return KnownImages(lambda cameras: ball_pictures(cameras, 16), 16)


def states_equal(first: Run, second: Run) -> bool:
    a, b = first.distiller.state(0).tensors, second.distiller.state(0).tensors
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stop_at", [2, 4])
@pytest.mark.parametrize("optimizer", ["adam", "shampoo"])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one_bitwise(
    oracle: KnownImages, tmp_path: Path, stop_at: int, optimizer: str
) -> None:
    """The state goes through a file, as after a kill; previews and occupancy updates in between must not matter either."""
    config = quick_config(
        f"optimizer.kind={optimizer}", "background.kind=mlp", "run.views_per_step=2", "render.occupancy_interval=3"
    )
    job = make_job("a ball", "oracle", "draft", config)
    whole = run_of(config, oracle)
    for _ in whole:
        pass
    killed = run_of(config, oracle)
    for event in killed:
        if isinstance(event, Checkpoint):
            write_checkpoint(tmp_path, job, event.state)
            if event.state.step == stop_at:
                break
    resumed = run_of(config, oracle, resume=read_checkpoint(tmp_path, job).state)
    steps = [event.step for event in resumed if isinstance(event, Progress)]
    assert steps == list(range(stop_at + 1, 7))
    assert states_equal(whole, resumed)


def test_resuming_the_papers_field_is_exact_too(oracle: KnownImages) -> None:
    config = quick_config(
        "field.kind=mip-mlp", "field.hidden_width=16", "optimizer.kind=shampoo", "run.checkpoint_interval=1",
        "render.samples=8",
    )  # fmt: skip
    whole = run_of(config, oracle)
    states = [event.state for event in whole if isinstance(event, Checkpoint)]
    resumed = run_of(config, oracle, resume=states[2])
    for _ in resumed:
        pass
    assert states[2].step == 3 and states_equal(whole, resumed)


def test_another_seed_makes_another_field(oracle: KnownImages) -> None:
    runs = [run_of(quick_config(f"run.seed={seed}"), oracle) for seed in (0, 0, 1)]
    for run in runs:
        for _ in run:
            pass
    assert states_equal(runs[0], runs[1]) and not states_equal(runs[0], runs[2])


def test_events_tell_steps_eta_previews_and_the_end(oracle: KnownImages) -> None:
    ticks = iter(range(1000))
    events = list(run_of(quick_config(), oracle, clock=lambda: float(next(ticks))))
    progress = [e for e in events if isinstance(e, Progress)]
    assert [e.step for e in progress] == [1, 2, 3, 4, 5, 6]
    assert progress[2].eta_s == pytest.approx(progress[2].elapsed_s)
    assert {e.step for e in events if isinstance(e, Preview)} == {3, 6}
    assert all(e.image.shape == (96, 288, 3) for e in events if isinstance(e, Preview))
    assert events[-1] == Finished(6, True, 0)


def test_stopping_is_honoured_within_a_step_and_leaves_a_checkpoint(oracle: KnownImages) -> None:
    asked: list[bool] = []
    events = []
    for event in run_of(quick_config("run.checkpoint_interval=100"), oracle, should_stop=lambda: bool(asked)):
        events.append(event)
        if isinstance(event, Progress) and event.step == 2:
            asked.append(True)
    assert isinstance(events[-2], Checkpoint) and events[-2].state.step == 2
    assert events[-1] == Finished(2, False, 0)


class Vanishing:
    """A guidance that wants nothing to be there: brightens every picture towards its background."""

    def gradient(self, image, cameras, conditioning, generator, progress) -> GuidanceResult:
        return GuidanceResult(torch.zeros_like(image), {})


def test_an_empty_run_restarts_from_another_seed_and_then_says_what_to_do(oracle: KnownImages) -> None:
    config = quick_config("field.density_bias_scale=-800", "field.density_bias=gaussian", "field.density_bias_width=50", "run.max_restarts=1", "field.density_bias_fade_share=0")
    bank = PromptBank(oracle, "a ball", config.guidance)
    events = []
    with pytest.raises(RunError, match="empty.*seed") as caught:
        for event in optimise(config, Vanishing(), bank):
            events.append(event)
    assert caught.value.exit_code == 1
    restarts = [e for e in events if isinstance(e, Restarted)]
    assert len(restarts) == 1 and restarts[0].old_seed == 0 != restarts[0].new_seed
    assert [e.verdict for e in events if isinstance(e, Health)] == ["empty", "empty"]


@pytest.mark.parametrize("optimizer", ["adam", "shampoo"])
@pytest.mark.parametrize("broken", ["weights", "gradient"])
def test_a_field_that_diverges_between_checks_restarts_and_is_never_checkpointed(
    oracle: KnownImages, broken: str, optimizer: str
) -> None:
    """Checks are at steps 2, 3 and 6 of 10; the field breaks after step 7, once."""
    run = run_of(quick_config("run.steps=10", "run.checkpoint_interval=1", f"optimizer.kind={optimizer}"), oracle)
    events = []
    for event in run:
        events.append(event)
        if isinstance(event, Progress) and event.step == 7 and run.restarts == 0:
            weight = run.distiller.field.raw_density[0]
            if broken == "weights":
                weight.data.fill_(float("nan"))
            else:
                weight.register_hook(lambda gradient: gradient * float("nan"))
    assert [e.verdict for e in events if isinstance(e, Health)].count("diverged") == 1
    restarts = [e for e in events if isinstance(e, Restarted)]
    assert len(restarts) == 1 and restarts[0].old_seed != restarts[0].new_seed
    after = events[events.index(restarts[0]) :]
    assert [e.step for e in after if isinstance(e, Progress)] == list(range(1, 11))
    states = [e.state for e in after if isinstance(e, Checkpoint)]
    assert all(bool(torch.isfinite(t).all()) for s in states for t in s.tensors.values() if t.is_floating_point())
    assert events[-1] == Finished(10, True, restarts[0].new_seed)


def test_a_run_that_keeps_diverging_says_what_to_do_about_that(oracle: KnownImages) -> None:
    run = run_of(quick_config("run.max_restarts=1"), oracle)
    with pytest.raises(RunError, match="diverged.*optimizer.learning_rate"):
        for event in run:
            if isinstance(event, Progress):
                run.distiller.field.raw_density[0].data.fill_(float("inf"))


def test_health_tells_fog_from_solid_and_finds_nan() -> None:
    solid = torch.zeros(6, 1, 8, 8)
    solid[:, :, 2:6, 2:6] = 1.0
    fog = torch.full((6, 1, 8, 8), 0.5)
    assert opacity_figures(solid)["alpha_entropy"] < 0.01 < 0.69 < opacity_figures(fog)["alpha_entropy"] + 1e-3
    pictures = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert judge_run(1, solid, pictures, True).verdict == "fine"
    assert judge_run(1, solid, pictures, False).verdict == "diverged"
    assert judge_run(1, solid * float("nan"), pictures, True).verdict == "diverged"
    assert judge_run(1, solid * 0, pictures, True).verdict == "empty"
    assert judge_run(1, solid * 0 + 1, pictures, True).verdict == "full"


@pytest.mark.parametrize(
    ("values", "finite"),
    [([1.0, 2.0], True), ([], True), ([3e38, 3e38], True), ([1.0, float("nan")], False), ([float("inf"), 1.0], False), ([float("inf"), -float("inf")], False)],
)
def test_finiteness_is_judged_exactly_even_where_the_sum_overflows(values: list[float], finite: bool) -> None:
    assert all_finite([torch.zeros(2), torch.tensor(values)]) is finite


def test_view_similarity_is_one_for_a_mirrored_back_and_low_for_a_different_one(generator: torch.Generator) -> None:
    front = torch.rand(3, 3, 16, 16, generator=generator)
    assert view_similarity(torch.cat([front, front.flip(-1)])) == pytest.approx(1.0, abs=1e-5)
    assert abs(view_similarity(torch.cat([front, torch.rand(3, 3, 16, 16, generator=generator)]))) < 0.2


@pytest.fixture
def saved(oracle: KnownImages, tmp_path: Path) -> tuple[Job, Path]:
    """A job with two checkpoints on disk."""
    config = quick_config()
    job = make_job("a ball", "oracle", "draft", config)
    for event in run_of(config, oracle):
        if isinstance(event, Checkpoint):
            write_checkpoint(tmp_path, job, event.state)
    return job, tmp_path


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(saved: tuple[Job, Path]) -> None:
    job, folder = saved
    newest = folder / NEWEST
    newest.write_bytes(newest.read_bytes()[:5000])
    restored = read_checkpoint(folder, job)
    assert restored.state.step == 4 and "damaged" in restored.notice


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"\xff" * 4096])
def test_foreign_files_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NEWEST).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path, make_job("a ball", "oracle", "draft", quick_config()))
    assert "\n" not in str(caught.value) and "--resume" in str(caught.value)


@pytest.mark.parametrize("numbers", ["{}", "[]", "3", '{"step": "2", "seed": 0, "restarts": 0}', '{"step": -1, "seed": 0, "restarts": 0}', "{"])
def test_a_header_without_its_numbers_counts_as_damage(numbers: str, tmp_path: Path) -> None:
    job = make_job("a ball", "oracle", "draft", quick_config())
    header = {"format": FORMAT, "version": str(VERSION), "fingerprint": job.fingerprint(), "run": numbers}
    save_file({"a": torch.zeros(2)}, tmp_path / NEWEST, metadata=header)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read_checkpoint(tmp_path, job)
    assert "\n" not in str(caught.value)


def test_a_newer_version_s_checkpoint_is_passed_over_for_the_one_before(saved: tuple[Job, Path]) -> None:
    job, folder = saved
    save_file({"a": torch.zeros(2)}, folder / NEWEST, metadata={"format": FORMAT, "version": str(VERSION + 1)})
    restored = read_checkpoint(folder, job)
    assert restored.state.step == 4 and "update dreamwright" in restored.notice


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.999])
def test_a_flipped_bit_anywhere_is_noticed_and_the_one_before_is_used(share: float, saved: tuple[Job, Path]) -> None:
    """A flip may make JSON, a number, a name or a tensor wrong; whatever it is, step 4 is what counts."""
    job, folder = saved
    data = bytearray((folder / NEWEST).read_bytes())
    data[int(share * len(data))] ^= 0x10
    (folder / NEWEST).write_bytes(data)
    restored = read_checkpoint(folder, job)
    assert restored.state.step == 4 and "damaged" in restored.notice


def test_a_checkpoint_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    job = make_job("a ball", "oracle", "draft", quick_config())
    save_file({"a": torch.zeros(2)}, tmp_path / NEWEST, metadata={"format": FORMAT, "version": str(VERSION + 1)})
    with pytest.raises(CheckpointError, match="update dreamwright"):
        read_checkpoint(tmp_path, job)


@pytest.mark.parametrize("mistake", ["shape", "missing", "stranger"])
def test_an_optimiser_state_that_does_not_fit_is_refused(mistake: str, oracle: KnownImages) -> None:
    run = run_of(quick_config(), oracle)
    state = next(event.state for event in run if isinstance(event, Checkpoint))
    tensors = dict(state.tensors)
    if mistake == "shape":
        tensors["optimizer.0.exp_avg"] = torch.zeros(3)
    elif mistake == "missing":
        tensors = {name: t for name, t in tensors.items() if not name.startswith("optimizer.")}
    else:
        tensors["optimizer.99.exp_avg"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match="optimi[sz]er.*--resume"):
        run_of(quick_config(), oracle, resume=replace(state, tensors=tensors))


def test_a_disk_that_refuses_a_checkpoint_is_answered_in_one_line(tmp_path: Path) -> None:
    """safetensors has an error type of its own for it; a folder in the way stands for the full disk."""
    (tmp_path / f"{NEWEST}.part").mkdir()
    job = make_job("a ball", "oracle", "draft", quick_config())
    with pytest.raises(CheckpointError, match="--work") as caught:
        write_checkpoint(tmp_path, job, RunState(1, 0, 0, {"a": torch.zeros(2)}))
    assert "\n" not in str(caught.value)


def test_removing_checkpoints_spares_what_somebody_else_put_there(saved: tuple[Job, Path]) -> None:
    _, folder = saved
    assert (folder / PREVIOUS).is_file()
    (folder / "thesis.txt").write_text("precious")
    remove_checkpoints(folder)
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]
    (folder / "thesis.txt").unlink()
    remove_checkpoints(folder)
    assert not folder.exists()
    remove_checkpoints(folder)


def test_a_checkpoint_of_another_job_is_refused_but_other_mesh_settings_are_not(saved: tuple[Job, Path]) -> None:
    job, folder = saved
    with pytest.raises(CheckpointError, match="another run"):
        read_checkpoint(folder, replace(job, prompt="a cube"))
    finer = replace(job, config=quick_config("mesh.resolution=48", "run.checkpoint_interval=3"))
    assert read_checkpoint(folder, finer).state.step == 6


def test_an_empty_folder_has_nothing_to_resume(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_checkpoint(tmp_path, make_job("a ball", "oracle", "draft", quick_config()))


def test_conditioning_rows_can_be_chosen_and_stacked() -> None:
    rows = Conditioning({"hidden": torch.arange(6.0).view(3, 2)})
    assert torch.equal(Conditioning.stack([rows[2], rows[0]]).tensors["hidden"], torch.tensor([[4.0, 5.0], [0.0, 1.0]]))
