# SPDX-License-Identifier: GPL-3.0-or-later
"""Compilation and channels-last keep predictions, and all views of a step share one network call."""

from __future__ import annotations

import platform
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from dreamwright.backend.config.schema import GuidanceConfig, ModelConfig
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.models.acceleration import accelerate, missing_for_compiling
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.tiny_pipeline import write_pipeline

LACKS = missing_for_compiling(torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("model") / "tiny", shuffle=1)


def prediction(folder: Path, config: ModelConfig) -> torch.Tensor:
    """A prediction in float64, returned in float32."""
    denoiser = load_denoiser(folder, dtype=torch.float64, config=config)
    z = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return denoiser.predict_raw(
        z, torch.linspace(0.1, 0.9, 4), denoiser.embed(["a red mushroom", "a blue chair", "a chair", ""])
    )


@pytest.mark.slow
@pytest.mark.skipif(bool(LACKS), reason=f"torch.compile cannot be tested here: {LACKS}")
def test_compiled_network_predicts_the_same() -> None:
    """The smallest of U-Nets, since compiling costs a second or more for each kernel."""
    network = UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(4,), layers_per_block=1,
        down_block_types=("DownBlock2D",), mid_block_type=None, up_block_types=("UpBlock2D",),
        norm_num_groups=2, cross_attention_dim=4,
    ).eval().requires_grad_(False)  # fmt: skip
    draw = torch.Generator().manual_seed(1)
    inputs = torch.randn(2, 3, 8, 8, generator=draw), torch.tensor([3, 700]), torch.randn(2, 5, 4, generator=draw)
    plain = network(*inputs, return_dict=False)[0]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # warnings of torch's compiler differ between versions
        torch._dynamo.utils.counters.clear()
        accelerate(network, ModelConfig(compile="default", channels_last=True))
        fast = network(*inputs, return_dict=False)[0]
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
        torch._dynamo.reset()
    assert network.config.sample_size == 8  # the compiled network keeps its attributes
    # Eight convolutions that sum up to 72 products in float32, in another order: 8 x 72 x 6e-8 = 3.5e-5 at most.
    assert float((fast - plain).abs().max()) < 1e-4 * float(plain.abs().max())


@pytest.mark.parametrize(
    ("mode", "modes"), [("off", []), ("default", [None]), ("reduce-overhead", ["reduce-overhead"])]
)
def test_compile_setting_applies_to_loaded_models(
    folder: Path, mode: str, modes: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str | None] = []
    monkeypatch.setattr(UNet2DConditionModel, "compile", lambda self, mode, dynamic: compiled.append(mode))
    monkeypatch.setattr("dreamwright.backend.models.acceleration.missing_for_compiling", lambda device: "")
    load_denoiser(folder, config=ModelConfig(compile=mode))
    assert compiled == modes


def test_channels_last_keeps_predictions(folder: Path) -> None:
    plain, laid_out = prediction(folder, ModelConfig()), prediction(folder, ModelConfig(channels_last=True))
    # The layouts sum in another order. In float64 only the conversion to float32 remains: one rounding of 6e-8.
    torch.testing.assert_close(plain, laid_out, rtol=5e-7, atol=5e-7)
    network = load_denoiser(folder, config=ModelConfig(channels_last=True)).network
    assert network.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_compiling_without_a_compiler_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    network = torch.nn.Linear(2, 2)
    accelerate(network, ModelConfig())
    with pytest.raises(ConfigError, match="C\\+\\+ compiler.*off"):
        accelerate(network, ModelConfig(compile="default"))
    assert network._compiled_call_impl is None


def test_compiling_on_a_cpu_without_avx2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(ConfigError, match="this CPU lacks AVX2; allowed here is off"):
        accelerate(torch.nn.Linear(2, 2), ModelConfig(compile="default"))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")  # NEON counts as the default there
    assert missing_for_compiling(torch.device("cpu")) == ""


@pytest.mark.parametrize(("opposite", "rows"), [(0.0, 8), (1.0, 12)])
def test_all_views_share_one_network_call(folder: Path, opposite: float, rows: int) -> None:
    """The batch holds conditional and unconditional rows, and opposite views with Perp-Neg."""
    denoiser = load_denoiser(folder)
    batches: list[int] = []
    plain = denoiser.network

    class Counting(torch.nn.Module):
        config = plain.config

        def forward(self, z: torch.Tensor, *rest: Any, **options: Any) -> Any:
            batches.append(len(z))
            return plain(z, *rest, **options)

    denoiser.network = Counting()
    config = GuidanceConfig(opposite_weight=opposite)
    bank = PromptEmbeddings(denoiser, "a red mushroom", config)
    conditioning = bank.for_cameras([0.0, 90, 180, 270], [10.0] * 4)
    draw = torch.Generator().manual_seed(0)
    ScoreDistillation(denoiser, config).gradient(
        torch.rand(4, 3, 16, 16, generator=draw), None, conditioning, draw, 0.5
    )
    assert batches == [rows]
