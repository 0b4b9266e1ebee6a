# SPDX-License-Identifier: GPL-3.0-or-later
"""Pixel-space pipelines: loading from folders, and predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import CLIPTextModel, T5EncoderModel

from dreamwright.backend.config.schema import GuidanceConfig
from dreamwright.backend.errors import ModelError, PromptError
from dreamwright.backend.guidance.denoisers.pixel import PixelDiffusion
from dreamwright.backend.guidance.interfaces import Denoiser, NativeDenoiser
from dreamwright.backend.guidance.patch_grid import grid_offsets
from dreamwright.backend.models.local import local_models, resolve_model
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.tiny_pipeline import write_pipeline, write_tokenizer

PROMPTS = ["a red mushroom, front view", "", "a blue chair"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def denoiser(folder) -> PixelDiffusion:
    return PixelDiffusion.load(folder)


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def raw_call(folder: Path, z_t, index, prompts, shuffle, clip_text=False):
    """The same prediction by the diffusers classes, as an independent reference."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    tokenizer = write_tokenizer(folder)
    encoder = (CLIPTextModel if clip_text else T5EncoderModel).from_pretrained(folder / "text_encoder").eval()
    tokens = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
    mask = {} if clip_text else {"attention_mask": tokens.attention_mask}
    with torch.no_grad():
        hidden = encoder(input_ids=tokens.input_ids, **mask)[0]
        output = unet(functional.pixel_unshuffle(z_t, shuffle), index, encoder_hidden_states=hidden).sample
    return functional.pixel_shuffle(output[:, : 3 * shuffle**2], shuffle)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "shuffle, learned_variance, clip_text", [(1, True, False), (2, False, False), (4, False, True)]
)
def test_noise_prediction_equals_the_unet(tmp_path, kind, shuffle, learned_variance, clip_text):
    """For IF's six outputs, for pixel-unshuffled models, for both text encoders and every prediction type."""
    path = write_pipeline(tmp_path / "m", shuffle, learned_variance, kind, clip_text=clip_text)
    model = PixelDiffusion.load(path)
    assert model.image_size == 16
    z_t = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.0, 0.4, 1.0])
    index = torch.tensor([0, 400, 999])  # nearest to t * 999
    raw = raw_call(path, z_t, index, PROMPTS, shuffle, clip_text)
    if shuffle > 1:  # with a shifted patch grid, and on four grids at t = 0
        rows, offsets = grid_offsets(index, 1000, shuffle)
        for row in range(3):
            answers = []
            for down, right in offsets[rows == row].tolist():
                moved = raw_call(path, z_t.roll((down, right), (2, 3)), index, PROMPTS, shuffle, clip_text)
                answers.append(moved[row].roll((-down, -right), (1, 2)))
            raw[row] = torch.stack(answers).mean(0)
    conditioning = model.embed(PROMPTS)
    # The same float32 network in batches of other sizes: some 30 layers with sums of about 100 terms, 6e-8 x 30 x
    # sqrt(100) = 2e-5 of values of about 1; rtol is five times that for larger values.
    torch.testing.assert_close(model.predict_raw(z_t, t, conditioning), raw, rtol=1e-4, atol=2e-5)
    abar = DDPMScheduler.from_pretrained(path / "scheduler").alphas_cumprod[index].view(-1, 1, 1, 1)
    expected = {
        "epsilon": raw,
        "sample": (z_t - abar.sqrt() * raw) / (1 - abar).sqrt(),
        "v_prediction": abar.sqrt() * raw + (1 - abar).sqrt() * z_t,
    }[kind]
    # At the first level 1 / sqrt(1 - abar) is about 150, which enlarges 2e-5 to 3e-3 of values of up to 500.
    torch.testing.assert_close(model.predict_noise(z_t, t, conditioning), expected, rtol=1e-4, atol=3e-3)


def test_nearest_timestep_and_variance_preserving_schedule(denoiser):
    t = torch.tensor([0.0, 0.4 / 999, 0.6 / 999, 0.5, 1.0])
    assert denoiser.time_index(t).tolist() == [0, 0, 1, 500, 999]
    alpha, sigma = denoiser.alpha_sigma(torch.linspace(0, 1, 57))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(57))
    assert (sigma.diff() > 0).all()


def test_model_is_frozen(denoiser):
    assert isinstance(denoiser, Denoiser) and isinstance(denoiser, NativeDenoiser)
    assert not denoiser.unet.training and not any(p.requires_grad for p in denoiser.unet.parameters())
    z_t = torch.randn(1, 3, 16, 16, requires_grad=True)
    noise = denoiser.predict_noise(z_t, torch.tensor([0.5]), denoiser.embed(["a red chair"]))
    assert not noise.requires_grad and not noise.is_inference()


def test_prompts_are_encoded_once(folder):
    model = PixelDiffusion.load(folder)
    embedder = model.text
    assert not embedder.is_loaded  # only the first embedding loads it
    first = model.embed(["a red chair", "a blue chair"]).tensors["hidden"]
    model.free_text_encoder()
    again = model.embed(["a blue chair", "A red chair "]).tensors["hidden"]
    assert not embedder.is_loaded and torch.equal(again, first.flip(0))


def test_embeddings_are_cached_on_disk_by_model_and_prompt(copy, tmp_path):
    cache = tmp_path / "cache"
    first = PixelDiffusion.load(copy, cache=cache).embed(["a red chair"]).tensors["hidden"]
    (file,) = cache.iterdir()
    second = PixelDiffusion.load(copy, cache=cache)
    assert torch.equal(second.embed(["a red chair"]).tensors["hidden"], first)
    assert not second.text.is_loaded

    file.write_bytes(b"damaged")
    third = PixelDiffusion.load(copy, cache=cache)
    assert torch.equal(third.embed(["a red chair"]).tensors["hidden"], first)
    assert list(load_file(file)) == ["hidden"]

    weights = copy / "text_encoder" / "model.safetensors"
    save_file({k: 2 * v for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    other = PixelDiffusion.load(copy, cache=cache).embed(["a red chair"]).tensors["hidden"]
    assert not torch.equal(other, first) and len(list(cache.iterdir())) == 2


def test_half_precision_variants_are_found(copy):
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (copy / part / f"{name}.safetensors").rename(copy / part / f"{name}.fp16.safetensors")
    model = PixelDiffusion.load(copy)
    assert model.unet.dtype == torch.float32
    assert model.embed(["a red chair"]).tensors["hidden"].shape == (1, 12, 16)


def test_bfloat16_models_return_float32(folder):
    model = PixelDiffusion.load(folder, dtype=torch.bfloat16)
    z_t = torch.zeros(1, 3, 16, 16)
    assert model.predict_raw(z_t, torch.tensor([0.3]), model.embed(["a red chair"])).dtype == torch.float32


def test_unknown_words_are_named_with_alternatives(denoiser):
    with pytest.raises(PromptError) as caught:
        denoiser.check_prompt("a Red mushrom, on mars")
    message = str(caught.value)
    assert "'mushrom', 'on', 'mars'" in message and "did you mean mushroom" in message
    assert "'a blue chair'" in message and "DeepFloyd IF" in message and "\n" not in message
    assert denoiser.check_prompt("a Red, mushroom") == []


def test_empty_prompts_are_refused_and_long_ones_reported(denoiser):
    with pytest.raises(PromptError, match="empty"):
        denoiser.check_prompt("  ")
    (warning,) = denoiser.check_prompt("a red red red red red red red red red red red mushroom")
    assert "14 tokens, the model reads the first 12; cut off is 'red mushroom' of 'a red" in warning


def test_prompt_embeddings_of_a_real_model(denoiser):
    bank = PromptEmbeddings(denoiser, "a red mushroom", GuidanceConfig(textureless_words="untextured"))
    chosen = bank.for_cameras([0.0, 180.0], [0.0, 0.0], ["albedo", "textureless"])
    expected = denoiser.embed(["a red mushroom, front view", "a red mushroom, untextured, back view"])
    assert torch.equal(chosen.positive.tensors["hidden"], expected.tensors["hidden"])
    assert torch.equal(chosen.negative[0].tensors["hidden"], denoiser.embed([""]).tensors["hidden"])
    with pytest.raises(PromptError, match="view_words, .* does not know 'right'"):
        PromptEmbeddings(denoiser, "a red mushroom", GuidanceConfig(view_words="eight"))


def test_folders_without_a_pipeline_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no model folder"):
        PixelDiffusion.load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="no model_index.json"):
        PixelDiffusion.load(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="cannot read"):
        PixelDiffusion.load(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"_class_name": "FluxPipeline"},
            "is a FluxPipeline; allowed are IFPipeline, MultiViewIFPipeline, .*3Pipeline",
        ),
        ({"_class_name": None}, "is a None; allowed are"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, "IFPipeline with a vae, which that class does not have"),
        ({"unet": ["diffusers", "UNet2DModel"]}, "unet is UNet2DModel; allowed is UNet2DConditionModel"),
        ({"text_encoder": ["transformers", "BertModel"]}, "allowed is T5EncoderModel or CLIPTextModel"),
        ({"text_encoder": [None, None]}, "text_encoder is missing"),
        ({"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}, "allowed is DDPMScheduler"),
    ],
)
def test_unsupported_pipelines_are_refused(copy, changes, message):
    edit(copy / "model_index.json", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        PixelDiffusion.load(copy)
    assert "IFPipeline" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"in_channels": 6}, "allowed are 3, 12, 48"),
        ({"out_channels": 18}, "as many or twice as many out"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type"),
        ({"encoder_hid_dim": 32}, "has width 16, its unet wants 32"),
        ({"sample_size": [8, 4]}, "sample_size"),
        ({"block_out_channels": [8, 32]}, "unet"),
    ],
)
def test_unsupported_unets_are_refused(copy, changes, message):
    edit(copy / "unet" / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        PixelDiffusion.load(copy)


def test_unusable_weights_are_refused(copy):
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file(dict(list(tensors.items())[3:]), weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="3 tensors"):
        PixelDiffusion.load(copy)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot load the unet"):
        PixelDiffusion.load(copy)
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="only pickled weights"):
        PixelDiffusion.load(copy)
    weights.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        PixelDiffusion.load(copy)
    shutil.rmtree(copy / "unet")
    with pytest.raises(ModelError, match="lacks its folder 'unet'"):
        PixelDiffusion.load(copy)


def test_unsupported_prediction_types_are_refused(copy):
    edit(copy / "scheduler" / "scheduler_config.json", prediction_type="score")
    with pytest.raises(ModelError, match="predicts 'score'; allowed are epsilon"):
        PixelDiffusion.load(copy)


def test_models_are_resolved_by_name_or_folder(folder, tmp_path):
    assert resolve_model(folder) == folder
    names = [model.name for model in local_models()]
    assert names[0] == "starter" and "deepfloyd-if" in names
    with pytest.raises(ModelError, match="unknown model 'gpt'; .*starter, deepfloyd-if"):
        resolve_model("gpt")
    with pytest.raises(ModelError, match="no model folder"):
        resolve_model(tmp_path / "nowhere")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ModelError, match="is a file"):
        resolve_model(file)
    with pytest.raises(ModelError):
        resolve_model("")


def test_absent_models_name_the_download_command():
    for model in local_models():
        if not model.available:
            with pytest.raises(ModelError, match="not on this machine; ") as caught:
                resolve_model(model.name)
            assert model.how_to_get in str(caught.value)
