# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks of GPUs and of other projects: commands run, and all contenders get equal workloads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import get_preset
from dreamwright.backend.guidance.interfaces import GuidanceResult
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.text.prompts import PromptEmbeddings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # scripts, not a package

import gpu_step
import peers
import peers_stubs
import peers_workload
import random_models


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)


def test_random_models_have_the_published_sizes() -> None:
    """Published parameter counts: IF-I-XL 4.3 B, Stable Diffusion 1.5 860 M, its VAE 83.65 M, SDXL 2.6 B, Stable
    Diffusion 3 medium 2 B, Stable Diffusion 2.1 866 M and MVDream's embedding of 16 numbers besides.
    """
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        counts = {
            name: random_models.weights(random_models.network_class(size)(**size.network))
            for name, size in random_models.SIZES.items()
        }
        vae = AutoencoderKL(**random_models.SIZES["sd-1.5"].vae)
    # Numbers of two digits are known to half of the second.
    assert counts["if-xl"] == pytest.approx(4.3e9, rel=0.01)
    assert (counts["sd-1.5"], random_models.weights(vae)) == (859_520_964, 83_653_863)
    assert counts["sdxl"] == pytest.approx(2.6e9, rel=0.02) and counts["sd-3"] == pytest.approx(2.0e9, rel=0.02)
    assert counts["mvdream"] == 865_910_724 + (16 + 1) * 1280 + (1280 + 1) * 1280


def test_gpu_benchmark_with_tiny_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        sys, "argv", ["gpu_step.py", "--tiny", "--steps", "1", "--cases", "if-xl-4", "sd-1.5-4-recompute"]
    )
    gpu_step.main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    heads, _, pixel, latent = rows
    assert pixel[0].startswith("if-xl-4") and latent[0].startswith("sd-1.5-4-recompute")
    assert len(heads) == len(pixel) == len(latent)
    assert all(float(cell) > 0 for cell in (*pixel[1:], *latent[1:])), rows


@pytest.mark.parametrize("name", ["sdxl", "sd-3", "mvdream"])
def test_a_step_of_every_family_is_one_call_of_its_network(name: str) -> None:
    """The rows are the predictions, conditional, unconditional and negative, of each view."""
    size, device = random_models.TINY[name], torch.device("cpu")
    config = apply_settings(get_preset("standard", size.kind).config, gpu_step.TINY_SETTINGS)
    denoiser = random_models.random_denoiser(size, device, torch.float32, config.model)
    bank = PromptEmbeddings(denoiser, "a red mushroom", config.guidance)
    run = FieldScene(config, ScoreDistillation(denoiser, config.guidance), bank, 0, device)
    run.step = int(gpu_step.LATE * config.run.steps)
    (call,) = gpu_step.recorded_calls(run, denoiser.network)
    passes = 2 + config.guidance.opposite_prompts
    assert len(call[1]["encoder_hidden_states"]) == passes * config.guidance.noises * config.run.views_per_step
    assert gpu_step.forward_alone(denoiser.network, [call], 1, gpu_step.Clock(device)) > 0


def test_other_cases_follow_a_failed_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def time_case(case: gpu_step.Case, *_: Any) -> gpu_step.Timings:
        if case.model == "sdxl":
            raise RuntimeError("no kernel")
        return gpu_step.Timings(0.1, 0.12, 60.0, dict.fromkeys(gpu_step.PARTS, 0.01), 10**9, 1, 2, 10**9)

    monkeypatch.setattr(gpu_step, "time_case", time_case)
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["gpu_step.py", "--tiny", "--cases", "sdxl", "sd-3", "--json", str(report)])
    with pytest.raises(SystemExit, match="failed: sdxl"):
        gpu_step.main()
    assert "| sdxl | RuntimeError: no kernel |" in capsys.readouterr().out
    failed, timed = json.loads(report.read_text())
    assert failed["error"] == "RuntimeError: no kernel" and timed["ratio"] == pytest.approx(1.2)


def test_gpu_benchmark_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_step.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device.*--tiny"):
        gpu_step.main()


def test_nested_parts_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering 1 + guidance (2 + forward 4) + 8: the parts are 9, 2 and 4."""
    clock, time = gpu_step.Clock(torch.device("cpu")), 0.0
    monkeypatch.setattr(clock, "now", lambda: time)
    with clock.part("rendering"):
        time += 1
        with clock.part("rest of the guidance"):
            time += 2
            with clock.part("U-Net forward"):
                time += 4
        time += 8
    assert [clock.seconds[p] for p in ("rendering", "rest of the guidance", "U-Net forward")] == [9, 2, 4]


def test_missed_targets_are_bold() -> None:
    def cells(case: str, step: float = 0.06, minutes: float = 1, peak: float = 1) -> list[str]:
        parts = dict.fromkeys(gpu_step.PARTS, 0.01)
        timings = gpu_step.Timings(0.05, step, 60 * minutes, parts, int(peak * 1e9), 1, 2, 1)
        return gpu_step.row(case, gpu_step.CASES[case], timings, False).strip("| ").split(" | ")

    assert cells("sdxl", step=0.0625)[5] == "1.25" and cells("sdxl", step=0.07)[5] == "**1.40**"
    assert cells("if-xl", minutes=19.9)[-2] == "19.9" and cells("if-xl", minutes=20.2)[-2] == "**20.2**"
    assert cells("sd-1.5", peak=4.9)[-1] == "4.9" and cells("sd-1.5", peak=5.1)[-1] == "**5.1**"
    assert cells("sdxl", minutes=60, peak=20)[-2:] == ["60.0", "20.0"], "targets of other models do not apply"


class Recorder:
    """A guidance that records the cameras."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def gradient(self, image: Any, cameras: Any, conditioning: Any, generator: Any, progress: float) -> GuidanceResult:
        self.seen.append(cameras)
        return GuidanceResult(torch.zeros_like(image), {})


def test_contenders_get_the_same_rays() -> None:
    """Contenders get the same cameras in the same order, scaled from the bounding sphere to the unit sphere."""
    config, recorder = peers_workload.workload(8), Recorder()
    scene = FieldScene(config, recorder, SimpleNamespace(for_cameras=lambda *views: None), peers_workload.SEED)
    views, unit = peers_workload.Views(config), config.field.bounding_radius
    for step in range(3):
        scene.train_step()
        cameras, origins, directions, _ = views.next_rays()
        assert torch.equal(cameras.position, recorder.seen[step].position)
        assert torch.equal(cameras.focal, recorder.seen[step].focal)
        closest = torch.linalg.cross(origins * unit, directions).norm(dim=-1)  # distance to the center, in scene units
        # float32: cross products of lengths below 4 have a few roundings of 2.4e-7; scaling has two.
        given = torch.linalg.cross(origins, directions).norm(dim=-1)
        assert torch.allclose(closest / unit, given, rtol=0, atol=5e-6)
        assert torch.allclose(origins[0] * unit, cameras.position[0], rtol=0, atol=1e-6)


def test_comparison_views_are_shaded_and_of_one_size() -> None:
    config = peers_workload.workload(24)
    assert (config.render.resolution, config.render.coarse_resolution, config.run.views_per_step) == (24, 0, 1)
    assert (config.shading.albedo_only_share, config.shading.shaded_probability) == (0.0, 1.0)


def test_ratios_are_taken_within_a_round() -> None:
    """A round in which everything takes ten times as long does not change the ratio. The median of 2, 3, 4 is 3."""
    assert peers.ratio([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == "3.0 (2.0-4.0)"


def test_stubs_cannot_be_used_once_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(peers_stubs.Stub, "sealed", False)
    finder, _ = peers_stubs.allow(["surely_missing", "json"])
    try:
        import surely_missing.inner as missing

        def kept() -> int:
            return 1

        assert missing.decorator(kept) is kept
        assert isinstance(missing.Base, type) and missing.Kind["n 3"] is Any
        peers_stubs.seal()
        with pytest.raises(peers_stubs.StubUsedError):
            missing.function(1)
        with pytest.raises(peers_stubs.StubUsedError):
            missing.Base()
        assert finder.roots() == {"surely_missing"}, "installed packages are not replaced"
    finally:
        for name in ("surely_missing.inner", "surely_missing"):
            sys.modules.pop(name, None)


def test_bad_checkouts_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nerf/network.py"):
        peers.checkouts(SimpleNamespace(stable_dreamfusion=tmp_path, nerfstudio=None))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_comparison_runs_with_ours_alone() -> None:
    """Contenders run in separate processes. The ratio of Dreamwright to itself is 1.0."""
    done = script("peers.py", "--resolutions", "8", "--rounds", "1", "--warm", "0", "--only", "ours, as shipped")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("| ours, as shipped"))
    cells = line.strip("| ").split(" | ")
    assert cells[8:11] == ["1.0 (1.0-1.0)"] * 3 and int(cells[-1]) > 0
