# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of a run: the estimate from headers, against the peak that torch allocates, and refusals."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch.profiler import ProfilerActivity, profile

from dreamwright.backend.cli.main import main
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import PRESETS
from dreamwright.backend.config.schema import Config
from dreamwright.backend.config.usage import memory_settings
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.models import memory_estimate
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.models.memory_estimate import (
    check_memory,
    estimate_memory,
    free_bytes,
    reduce_memory,
    size_text,
)
from dreamwright.backend.models.parameter_counts import loaded_weights
from dreamwright.backend.models.pipeline_folder import open_pipeline
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.scenes.views import SHADED
from dreamwright.backend.text.prompts import PromptEmbeddings
from dreamwright.backend.training.guidance_loading import score_estimate
from tests.testing.tiny_families import save, stable_diffusion, write_family
from tests.testing.tiny_model import ONE_VIEW
from tests.testing.tiny_pipeline import write_pipeline

FACTOR = 2.0  # the estimate is within a factor of two of the peak, in both directions
LIT = ("shading.shaded_probability=1", "shading.albedo_only_share=0", "render.coarse_resolution=0")
NARROW = ("field.hidden_width=64", "render.resolution=24", "render.samples=12", "run.views_per_step=1")
HASHED = ("field.kind=hash-grid", "field.hash_levels=8", "field.hash_log2_size=15")
SMALL = (
    *ONE_VIEW, "render.resolution=32", "render.samples=48", "field.voxel_resolutions=16,32",
    "render.occupancy_resolution=16",
)  # fmt: skip


def draft(*settings: str) -> Config:
    return apply_settings(PRESETS["draft"].config, [*LIT, *settings])


def peak_bytes(work: Callable[[], object]) -> int:
    """Peak bytes of CPU tensors while `work` runs, above those before it, by torch's profiler."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = top = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        top = max(top, now)
    return top


def measured(folder: Path, config: Config, prompt: str) -> int:
    """Peak of two steps and a preview, the model's weights among it."""
    denoiser = load_denoiser(folder, config=config.model)
    bank = PromptEmbeddings(denoiser, prompt, config.guidance)
    denoiser.free_text_encoder()
    parts = [denoiser.network, *([denoiser.vae.model] if hasattr(denoiser, "vae") else [])]
    weights = sum(p.numel() * p.element_size() for part in parts for p in part.parameters())

    def run() -> None:
        estimate = score_estimate(denoiser, config.guidance)
        scene = FieldScene(config, ScoreDistillation(denoiser, config.guidance, estimate), bank, 0)
        scene.train_step()
        scene.train_step()
        scene.orbit([20, 110], SHADED, 96)

    return weights + peak_bytes(run)


CASES = {
    "the starter's draft": ("starter", draft()),
    "one view": ("starter", draft(*ONE_VIEW)),
    "opposite prompts": ("starter", draft("guidance.opposite_weight=1")),
    "eight views at once": ("starter", draft("run.views_per_step=8")),
    "eight views, a set at a time": ("starter", draft("run.views_per_step=8", "run.views_at_once=1")),
    "four views, one at a time": ("starter", draft("camera.views_per_set=1", "run.views_at_once=1")),
    "four noises": ("starter", draft("guidance.noises=4")),
    "large grids": ("starter", draft(*SMALL[:-2], "field.voxel_resolutions=96")),
    "voxels by Shampoo": ("starter", draft(*SMALL, "optimizer.kind=shampoo")),
    "a hash grid": ("starter", draft(*ONE_VIEW, *HASHED)),
    "a large hash table": ("starter", draft(*SMALL, *HASHED, "field.hash_log2_size=17", "field.hash_levels=12")),
    "the paper's field": ("starter", apply_settings(PRESETS["paper"].config, [*LIT, *NARROW])),
    "tiny pixels": ("pixel", draft(*SMALL, "guidance.view_words=four")),
    "latents": ("latent", draft(*SMALL, "run.views_per_step=2")),
    "latents, three noises": ("latent", draft(*SMALL, "guidance.noises=3")),
    "latents, recomputed": ("latent", draft(*SMALL, "run.views_per_step=2", "model.vae_recompute=true")),
    "latents, VSD": ("latent", draft(*SMALL, "guidance.rule=vsd", "guidance.lora_rank=16")),
    "latents, VSD, recomputed": ("latent", draft(*SMALL, "guidance.rule=vsd", "guidance.lora_recompute=true")),
    "pixels, VSD": ("starter", draft("guidance.rule=vsd")),
    "tiny transformer": ("flow", draft(*SMALL)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("models")
    return {
        "starter": resolve_model("starter"),
        "pixel": write_pipeline(top / "pixel"),
        "latent": save(lambda: middling(top / "parts"), top / "latent"),
        "flow": write_family("sd3", top / "flow"),
    }


def middling(work: Path) -> StableDiffusionPipeline:
    """Stable Diffusion at a fifth of its width, on images of 256 pixels, so that activations dominate."""
    pipeline = stable_diffusion(work)
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 32, 64, 64), layers_per_block=2, norm_num_groups=8, sample_size=256,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        unet=UNet2DConditionModel(
            sample_size=32, in_channels=4, out_channels=4, block_out_channels=(64, 128, 128), layers_per_block=2,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16, attention_head_dim=8,
        ),
        text_encoder=pipeline.text_encoder, tokenizer=pipeline.tokenizer, scheduler=pipeline.scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_estimate_is_within_a_factor_of_two_of_the_measured_peak(case: str, folders: dict[str, Path]) -> None:
    name, config = CASES[case]
    estimate = estimate_memory(open_pipeline(folders[name]), config, torch.float32, "cpu").total
    actual = measured(folders[name], config, "a red mushroom")
    print(f"{case}: estimate {estimate / 1e6:.1f} MB, measured {actual / 1e6:.1f} MB, ratio {estimate / actual:.2f}")
    assert actual / FACTOR <= estimate <= actual * FACTOR


def test_weights_are_exact_and_follow_the_dtype(folders: dict[str, Path]) -> None:
    folder, config = open_pipeline(folders["latent"]), draft()
    denoiser = load_denoiser(folders["latent"])
    for part, name in ((denoiser.network, "network"), (denoiser.vae.model, "VAE")):
        counted = sum(p.numel() for p in part.parameters())
        for dtype in (torch.float32, torch.bfloat16):
            assert estimate_memory(folder, config, dtype, "cpu").parts[name] == counted * dtype.itemsize


def test_noises_are_rows_of_the_network_and_not_of_the_encoder(folders: dict[str, Path]) -> None:
    """Each noise adds what one took, so that three minus two is two minus one."""
    parts = [
        estimate_memory(
            open_pipeline(folders["latent"]), draft(*SMALL, f"guidance.noises={noises}"), torch.float32, "cpu"
        ).parts
        for noises in (1, 2, 3)
    ]
    first, second, third = (part["its activations"] for part in parts)
    assert third - second == second - first > 0
    assert len({part["VAE"] + part["its encoder's activations"] for part in parts}) == 1


def test_estimate_loads_no_weights(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only headers are read, so files with headers only give the same estimate."""
    folder = open_pipeline(folders["latent"])
    before = estimate_memory(folder, draft(), torch.float32, "cpu")
    for part in ("unet", "vae"):
        (file,) = loaded_weights(folder, part, torch.float32)
        whole = file.read_bytes()
        file.write_bytes(whole[: 8 + int.from_bytes(whole[:8], "little")])
        try:
            assert estimate_memory(folder, draft(), torch.float32, "cpu") == before
        finally:
            file.write_bytes(whole)


def test_run_that_cannot_fit_is_refused_with_the_best_advice_first(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, config = (
        open_pipeline(folders["latent"]),
        draft(*SMALL, "run.views_per_step=8", "render.samples=400", "render.resolution=64"),
    )
    needed = estimate_memory(folder, config, torch.float32, "cpu").total
    monkeypatch.setattr(memory_estimate, "free_bytes", lambda device: needed - 1)
    with pytest.raises(ConfigError) as caught:
        check_memory(folder, config, torch.float32, "cpu")
    message = str(caught.value)
    assert "\n" not in message and size_text(needed) in message and "run.ignore_memory=true" in message
    listed = [
        word
        for word in message.split()
        if "=" in word and word.partition("=")[0] in {s.partition("=")[0] for s in memory_settings()}
    ]
    savings = []
    for setting in listed:
        changed = config if setting.startswith("model.dtype") else apply_settings(config, [setting])
        dtype = torch.bfloat16 if setting.startswith("model.dtype") else torch.float32
        savings.append(needed - estimate_memory(folder, changed, dtype, "cpu").total)
    assert listed[0] == "run.views_at_once=1" and len(listed) >= 3
    assert savings == sorted(savings, reverse=True) and savings[-1] > 0
    # Each of these settings fits, and `force` skips the check.
    fitting = apply_settings(config, [listed[0]])
    assert check_memory(folder, fitting, torch.float32, "cpu").startswith("memory: about")
    assert "free on cpu" in check_memory(
        folder, apply_settings(config, ["run.ignore_memory=true"]), torch.float32, "cpu"
    )


def test_generate_refuses_before_it_loads_anything(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_estimate, "free_bytes", lambda device: 10_000_000)
    monkeypatch.setattr(
        "dreamwright.backend.training.guidance_loading.load_denoiser",
        lambda *_, **__: pytest.fail("a model was loaded"),
    )
    dense = ["--set", "render.marching=dense"]  # whose memory grows with the samples of a ray
    assert main(["generate", "a red mushroom", *dense, "--out", str(tmp_path / "x.glb")]) == 2
    output = capsys.readouterr().err
    assert output.count("\n") == 1 and "10 MB is free" in output and "render.samples" in output
    assert list(tmp_path.iterdir()) == []


def test_resume_advice_keeps_the_fingerprint(folders: dict[str, Path]) -> None:
    from dreamwright.backend.training.job import make_job

    folder, config = open_pipeline(folders["latent"]), draft("run.views_per_step=4", "camera.views_per_set=1")
    advice = reduce_memory(folder, config, torch.float32, "cpu")
    names = [word for word in advice.replace(",", " ").split() if "=" in word]
    assert "run.views_at_once=1" in names
    wanted = make_job("a chair", "m", "draft", config).fingerprint()
    for name in names:
        assert make_job("a chair", "m", "draft", apply_settings(config, [name])).fingerprint() == wanted
    tiny = apply_settings(config, ["run.views_at_once=1", "model.vae_recompute=true", "model.dtype=bfloat16"])
    assert reduce_memory(folder, tiny, torch.bfloat16, "cpu", otherwise="nothing") == "nothing"


def test_free_memory_of_linux_and_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_estimate, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory_estimate, "CGROUP", tmp_path)
    assert free_bytes("cpu") is None
    (tmp_path / "meminfo").write_text("MemTotal: 2000 kB\nMemFree: 10 kB\nMemAvailable: 1000 kB\n")
    assert free_bytes("cpu") == 1000 * 1024
    (tmp_path / "memory.max").write_text("600000\n")
    (tmp_path / "memory.current").write_text("500000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000\n")
    assert free_bytes("cpu") == 200_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes("cpu") == 1000 * 1024
