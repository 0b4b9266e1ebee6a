# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of latent families have the same inputs and outputs as in the diffusers pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from dreamwright.backend.config.schema import GuidanceConfig
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.interfaces import Denoiser, LatentDenoiser, NativeDenoiser
from dreamwright.backend.text.conditioning import Conditioning
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.tiny_families import FAMILIES, save, stable_diffusion_xl

PROMPTS = ["a red mushroom, front view", "a blue chair"]
# Networks compute in float64; values that pass between the parts in float32 carry a few roundings of 6e-8.
FLOAT32_HANDOVER: dict[str, Any] = {"rtol": 2e-6, "atol": 2e-6, "check_dtype": False}


def recorded(network: torch.nn.Module) -> list[dict[str, Any]]:
    """Record the inputs, by name, and the output of every later call of the network."""
    calls: list[dict[str, Any]] = []

    def record(module: Any, args: tuple, kwargs: dict, output: tuple) -> None:
        names = dict(zip(("sample", "timestep"), args, strict=False)) | kwargs
        names["sample"] = names.pop("hidden_states", names.get("sample"))
        names |= names.pop("added_cond_kwargs", None) or {}
        tensors = {name: value for name, value in names.items() if isinstance(value, torch.Tensor)}
        calls.append(tensors | {"output": output[0]})

    network.register_forward_hook(record, with_kwargs=True)
    return calls


def peer(folder: Path) -> Any:
    """The pipeline loaded by diffusers, in float64."""
    index = json.loads((folder / "model_index.json").read_text())
    absent = {part: None for part in ("text_encoder_3", "tokenizer_3") if part in index and index[part] == [None, None]}
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(torch.float64)


def in_float64(folder: Path) -> Any:
    """The denoiser with the weights of all parts in float64; it still returns its predictions in float32."""
    denoiser = load_denoiser(folder, dtype=torch.float64)
    for module in (denoiser.network, denoiser.vae.model):
        module.double()  # diffusers keeps some layers in float32
    return denoiser


def run(pipeline: Any, **options: Any) -> Any:
    if isinstance(pipeline, diffusers.StableDiffusion3Pipeline):
        options["sigmas"] = [1.0, 0.6, 0.2]  # before the shift; these are among the training levels
    generator = torch.Generator().manual_seed(0)
    return pipeline(
        PROMPTS, num_inference_steps=3, guidance_scale=4.0, generator=generator, output_type="pt", **options
    ).images


@pytest.mark.parametrize("negative", [None, "an ugly photo"])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_network_inputs_and_outputs_equal_diffusers(folders, name, negative):
    """Compares text states, pooled text, image sizes, times and latents of every call in a pipeline run."""
    pipeline = peer(folders[name])
    theirs = recorded(pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet)
    run(pipeline, negative_prompt=None if negative is None else [negative] * 2)
    assert len(theirs) >= 3

    denoiser = in_float64(folders[name])
    assert (
        isinstance(denoiser, Denoiser) and isinstance(denoiser, NativeDenoiser) and isinstance(denoiser, LatentDenoiser)
    )
    conditioning = Conditioning.stack([denoiser.embed([negative or ""] * 2), denoiser.embed(PROMPTS)])
    ours = recorded(denoiser.network)
    for call in theirs:
        time = call["timestep"].flatten()[0]
        (at,) = (denoiser._schedule.timesteps.double() - time).abs().lt(1e-3).nonzero().flatten().tolist()
        t = torch.full((4,), at / (len(denoiser._schedule.timesteps) - 1))
        answer = denoiser.predict_raw(call["sample"], t, conditioning)
        torch.testing.assert_close(answer, call["output"], **FLOAT32_HANDOVER)
        mine = ours.pop()
        assert set(mine) == set(call)
        for key, value in call.items():
            expected = value.expand(4) if key == "timestep" else value
            torch.testing.assert_close(mine[key], expected, **FLOAT32_HANDOVER)
    # Other text gives another output, hundreds of bounds away, so the comparison can fail.
    assert (denoiser.predict_raw(call["sample"], t, conditioning[[2, 3, 0, 1]]) - call["output"]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3"])
def test_latents_are_scaled_as_in_diffusers(folders, name):
    """Decoding the pipeline's latents gives its image. Encoding is the inverse, at the mean of the posterior."""
    pipeline = peer(folders[name])
    final: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, time: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        final.append(state["latents"])
        return {}

    shown = run(pipeline, callback_on_step_end=keep)
    denoiser = in_float64(folders[name])
    assert (denoiser.image_size, denoiser.latent_size, denoiser.channels) == (
        16,
        8,
        pipeline.vae.config.latent_channels,
    )
    torch.testing.assert_close((0.5 * denoiser.decode(final[-1]) + 0.5).clamp(0, 1), shown, **FLOAT32_HANDOVER)

    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    mean = pipeline.vae.encode(x).latent_dist.mean
    z = denoiser.encode(x, torch.Generator().manual_seed(1))
    config = pipeline.vae.config
    torch.testing.assert_close(z / config.scaling_factor + (config.shift_factor or 0.0), mean, **FLOAT32_HANDOVER)
    assert torch.equal(z, denoiser.encode(x, torch.Generator().manual_seed(2)))


def test_sdxl_without_zeroed_text_encodes_the_empty_prompt(tmp_path):
    kept = load_denoiser(save(lambda: stable_diffusion_xl(tmp_path / "a", True), tmp_path / "zeros"))
    encoded = load_denoiser(save(lambda: stable_diffusion_xl(tmp_path / "b", False), tmp_path / "encodes"))
    assert all(not tensor.any() for tensor in kept.embed([""]).tensors.values())
    assert all(tensor.abs().max() > 0.1 for tensor in encoded.embed([""]).tensors.values())
    pooled = [denoiser.embed(["a chair"]).tensors["pooled"] for denoiser in (kept, encoded)]
    assert torch.equal(*pooled)  # the same weights, the same batch


@pytest.mark.parametrize("name, encoders", [("sdxl", 2), ("sd3", 3)])
def test_encoders_run_once_and_share_a_cache_entry(folders, tmp_path, name, encoders):
    first = load_denoiser(folders[name], cache=tmp_path)
    rows = first.embed(["a red chair", "a red chair"])
    assert len(first.text._encoders) == encoders
    first.free_text_encoder()
    again = load_denoiser(folders[name], cache=tmp_path)
    cached = again.embed(["a red chair"])
    assert not again.text.is_loaded and not first.text.is_loaded
    for key, tensor in rows.tensors.items():
        assert torch.equal(cached.tensors[key][0], tensor[1])
    (file,) = tmp_path.iterdir()
    save_file({"hidden": load_file(file)["hidden"]}, file)  # an entry without pooled text is ignored
    third = load_denoiser(folders[name], cache=tmp_path)
    assert torch.equal(third.embed(["a red chair"]).tensors["pooled"][0], rows.tensors["pooled"][0])
    assert third.text.is_loaded


def test_truncated_prompt_warning_quotes_the_cut_text(folders):
    """The tiny tokenizers have one token per letter, so CLIP's 77 tokens are 75 letters; T5 reads 256."""
    words = ["mushroom"] * 9 + ["toadstool", "on", "Mars"]  # 72 + 9 + ... letters
    prompt = " ".join(words)
    (warning,) = load_denoiser(folders["sd15"]).check_prompt(prompt)
    assert warning.startswith(
        "the prompt has 89 tokens, the model reads the first 77; cut off is 'toadstool on Mars' of 'mush"
    )
    (warning,) = load_denoiser(folders["sd3"]).check_prompt(prompt)
    assert "the first 77 (text_encoder, text_encoder_2); cut off is 'toadstool on Mars'" in warning
    both = load_denoiser(folders["sd3"]).check_prompt(" ".join(["mushroom"] * 40))
    assert len(both) == 2 and "the first 256 (text_encoder_3); cut off is 'mushroom" in both[1]
    assert load_denoiser(folders["sd3"]).check_prompt("a red mushroom") == []
    bank = PromptEmbeddings(load_denoiser(folders["sd15"]), " ".join(["mushroom"] * 9), GuidanceConfig())
    assert any("cut off is 'front view'" in warning for warning in bank.warnings)
