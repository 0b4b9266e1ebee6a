# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders that load as a latent family, and folders that are refused with a one-line reason."""

from __future__ import annotations

import shutil

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from dreamwright.backend.config.schema import ModelConfig
from dreamwright.backend.errors import ConfigError, ModelError
from dreamwright.backend.guidance.denoisers.loading import chosen_dtype, load_denoiser
from dreamwright.backend.guidance.denoisers.pixel import PixelDiffusion
from dreamwright.backend.guidance.interfaces import LatentDenoiser
from dreamwright.backend.models.families import FAMILIES as SUPPORTED
from dreamwright.backend.models.mvdream_layout import NETWORK as MVDREAM_UNET
from tests.testing.family_folders import edit
from tests.testing.tiny_pipeline import write_pipeline


def test_old_vae_attention_names_are_mapped(copy):
    """Stable Diffusion 1.x's VAE on the hub has the names query, key, value, proj_attn."""
    path = copy("sd15")
    file = path / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for name, tensor in load_file(file).items():
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
            name = name.replace(f".{new}.", f".{old}.")  # replaced again for each pair  # noqa: PLW2901  # once for each pair
        renamed[name] = tensor
    assert any(".proj_attn." in name for name in renamed)
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    expected = load_denoiser(path).encode(x, torch.Generator())
    save_file(renamed, file, metadata={"format": "pt"})
    assert load_denoiser(path).encode(x, torch.Generator()).equal(expected)


def test_denoiser_class_follows_the_folder(folders, tmp_path):
    pixel = load_denoiser(write_pipeline(tmp_path / "if"))
    assert type(pixel) is PixelDiffusion and not isinstance(pixel, LatentDenoiser)
    with pytest.raises(ModelError, match="is of the family latent; allowed here is the family pixel"):
        PixelDiffusion.load(folders["sd15"])


def test_auto_precision_is_half_on_gpus_only():
    assert chosen_dtype(ModelConfig(), "cpu") == torch.float32
    assert chosen_dtype(ModelConfig(), torch.device("cuda", 0)) == torch.float16
    assert chosen_dtype(ModelConfig(dtype="bfloat16"), "cpu") == torch.bfloat16


INDEX_ERRORS = [
    (
        "sd15",
        {"_class_name": "StableDiffusionInpaintPipeline"},
        "is a StableDiffusionInpaintPipeline; allowed are IFPipeline, MultiViewIFPipeline, Stable",
    ),
    ("sd15", {"_class_name": "StableDiffusionXLPipeline"}, "whose tokenizer_2 is missing"),
    (
        "sdxl",
        {"_class_name": "StableDiffusionPipeline"},
        "with a text_encoder_2, which that class does not have; .* mixed up",
    ),
    ("sd15", {"_class_name": "IFPipeline"}, "with a vae, which that class does not have"),
    ("sd15", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae is AutoencoderTiny; allowed is AutoencoderKL"),
    ("sdxl", {"text_encoder": [None, None]}, "text_encoder is missing; allowed is CLIPTextModel"),
    ("sd15", {"scheduler": ["diffusers", "LCMScheduler"]}, "scheduler is LCMScheduler; allowed is DDPMScheduler or"),
    ("sd3", {"scheduler": ["diffusers", "DDPMScheduler"]}, "scheduler is DDPMScheduler; allowed is FlowMatchEuler"),
    ("sd3", {"tokenizer_3": [None, None]}, "only one of text_encoder_3 and tokenizer_3"),
]


@pytest.mark.parametrize("name, changes, message", INDEX_ERRORS)
def test_unsupported_or_mixed_pipelines_are_refused(copy, name, changes, message):
    path = copy(name)
    edit(path / "model_index.json", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_denoiser(path)
    assert "\n" not in str(caught.value)


CONFIG_ERRORS = [
    ("sd15", "unet", {"in_channels": 9}, "9 input and 4 output channels; allowed are 4 and 4.*inpainting"),
    ("sd15", "unet", {"cross_attention_dim": 24}, "text encoder of .* width 16, its unet wants 24.*mixed up"),
    ("sd15", "unet", {"class_embed_type": "timestep"}, "class_embed_type 'timestep'"),
    ("sd15", "unet", {"time_cond_proj_dim": 8}, "time_cond_proj_dim 8; .*distilled for few steps"),
    ("sd15", "unet", {"addition_embed_type": "text_time"}, "addition_embed_type 'text_time'; allowed are None"),
    ("sd15", "unet", {"sample_size": [8, 4]}, "sample_size"),
    ("sdxl", "unet", {"addition_embed_type": None}, "addition_embed_type None; allowed are 'text_time'"),
    ("sdxl", "unet", {"cross_attention_dim": 16}, "pair of text encoders of .* width 24, its unet wants 16"),
    ("sdxl", "unet", {"projection_class_embeddings_input_dim": 48}, "image sizes of .* width 56, its unet wants 48"),
    ("sd3", "transformer", {"in_channels": 4}, "transformer of .* 4 input and 16 output channels; allowed are 16"),
    ("sd3", "transformer", {"joint_attention_dim": 64}, "text_encoder_3 of .* width 32, its transformer wants 64"),
    ("sd3", "transformer", {"pooled_projection_dim": 20}, "pooled text of .* width 16, its transformer wants 20"),
    ("sd15", "vae", {"scaling_factor": "big"}, "scaling_factor 'big'"),
    ("sd15", "vae", {"latents_mean": [0, 0, 0, 0]}, "latents_mean"),
    ("sd15", "vae", {"latent_channels": 8}, "allowed are 8 and 8, as its vae"),
]


@pytest.mark.parametrize("name, part, changes, message", CONFIG_ERRORS)
def test_mismatched_parts_are_refused(copy, name, part, changes, message):
    path = copy(name)
    edit(path / part / "config.json", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_denoiser(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("sd15", {"prediction_type": "score"}, "predicts 'score'; allowed are epsilon, sample, v_prediction"),
        ("sd15", {"prediction_type": "flow_prediction"}, "predicts 'flow_prediction'; allowed are"),
        ("sdxl", {"timestep_type": "continuous"}, "timestep_type 'continuous'; allowed is 'discrete'"),
        ("sdxl", {"rescale_betas_zero_snr": True}, "predicts epsilon on a schedule that ends without any signal"),
        ("sd15", {"trained_betas": [float("nan")] * 10}, "no rising noise levels"),
        ("sd3", {"invert_sigmas": True}, "inverts or stretches"),
    ],
)
def test_incompatible_schedules_are_refused(copy, name, changes, message):
    path = copy(name)
    edit(path / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_denoiser(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, part", [("sd15", "vae"), ("sdxl", "text_encoder_2"), ("sd3", "transformer"), ("sd3", "tokenizer_3")]
)
def test_missing_folders_and_weights_are_named(copy, name, part):
    path = copy(name)
    for file in path.joinpath(part).glob("*.safetensors"):
        file.unlink()
    if not part.startswith("tokenizer"):
        with pytest.raises(ModelError, match=f"{part} holds no weights"):
            load_denoiser(path)
    shutil.rmtree(path / part)
    with pytest.raises(ModelError, match=f"lacks its folder '{part}'") as caught:
        load_denoiser(path)
    assert ("[null, null]" in str(caught.value)) == (part == "tokenizer_3")


def test_part_folder_error_names_the_pipeline_folder(folders):
    with pytest.raises(ModelError, match=f"is one part of a pipeline; give the whole of it, {folders['sd15']}"):
        load_denoiser(folders["sd15"] / "unet")


@pytest.mark.parametrize(
    "name, config, message",
    [
        (
            "sd15",
            ModelConfig(image_size=13),
            "image_size 13; allowed for .* are 0 .its own, 16. and multiples of 2 from 8 to 32",
        ),
        ("sd3", ModelConfig(image_size=1000), "image_size 1000"),
        ("sd3", ModelConfig(attention_slicing=True), "attention_slicing is on, but a SD3Transformer2DModel has none"),
    ],
)
def test_unsupported_settings_are_refused(folders, name, config, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_denoiser(folders[name], config=config)
    assert "\n" not in str(caught.value)


def test_family_table_matches_diffusers():
    """The table of families against the constructors of the diffusers pipelines."""
    import inspect

    for family in SUPPORTED:
        for pipeline in family.pipelines:
            # diffusers has no pipeline of several views; the parts are those of one view.
            known = {"multi-view": "IFPipeline", "multi-view-latent": "StableDiffusionPipeline"}.get(
                family.name, pipeline
            )
            wanted = set(inspect.signature(getattr(diffusers, known).__init__).parameters)
            assert set(family.parts) <= wanted, pipeline
        assert issubclass(AutoencoderKL, torch.nn.Module)
        own = {MVDREAM_UNET}  # read as UNet2DConditionModel
        names = {name for part in (family.network, "scheduler") for name in family.parts[part]}
        assert all(hasattr(diffusers, name) for name in names - own)
