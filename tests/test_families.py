# SPDX-License-Identifier: GPL-3.0-or-later
"""Latent families against the pipelines that they come from: what the network is told, what it answers, how it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from safetensors.torch import load_file, save_file

from dreamwright.backend.config import GuidanceConfig, ModelConfig
from dreamwright.backend.errors import ConfigError, ModelError
from dreamwright.backend.guidance.contract import Conditioning, Denoiser, LatentDenoiser, NativeDenoiser
from dreamwright.backend.guidance.families import FAMILIES as SUPPORTED
from dreamwright.backend.guidance.loading import chosen_dtype, load_denoiser
from dreamwright.backend.guidance.pixel import PixelDiffusion
from dreamwright.backend.guidance.prediction import clean_from
from dreamwright.backend.prompts import PromptBank
from tests.tiny_families import FAMILIES, LINEAR, save, stable_diffusion, stable_diffusion_3, stable_diffusion_xl, write_family
from tests.tiny_pipeline import write_pipeline

PROMPTS = ["a red mushroom, front view", "a blue chair"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("families")
    return {name: write_family(name, work / name) for name in FAMILIES}


@pytest.fixture
def copy(folders, tmp_path):
    """Copies that a test may damage."""
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def recorded(network: torch.nn.Module) -> list[dict[str, Any]]:
    """From now on, every call of the network: what it was given, by name, and what it answered."""
    calls: list[dict[str, Any]] = []

    def record(module: Any, args: tuple, kwargs: dict, output: tuple) -> None:
        names = dict(zip(("sample", "timestep"), args)) | kwargs
        names["sample"] = names.pop("hidden_states", names.get("sample"))
        names |= names.pop("added_cond_kwargs", None) or {}
        tensors = {name: value for name, value in names.items() if isinstance(value, torch.Tensor)}
        calls.append(tensors | {"output": output[0]})

    network.register_forward_hook(record, with_kwargs=True)
    return calls


def peer(folder: Path) -> Any:
    """The pipeline as diffusers itself loads it."""
    index = json.loads((folder / "model_index.json").read_text())
    absent = {part: None for part in ("text_encoder_3", "tokenizer_3") if part in index and index[part] == [None, None]}
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline: Any, **options: Any) -> Any:
    if isinstance(pipeline, diffusers.StableDiffusion3Pipeline):
        options["sigmas"] = [1.0, 0.6, 0.2]  # before the shift; these are among the training levels
    generator = torch.Generator().manual_seed(0)
    return pipeline(PROMPTS, num_inference_steps=3, guidance_scale=4.0, generator=generator, output_type="pt", **options).images


@pytest.mark.parametrize("negative", [None, "an ugly photo"])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_network_is_told_and_answers_what_it_is_in_the_pipeline_itself(folders, name, negative):
    """Text states, pooled text, picture sizes, times and latents of every call of a run of the pipeline."""
    pipeline = peer(folders[name])
    theirs = recorded(pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet)
    run(pipeline, negative_prompt=None if negative is None else [negative] * 2)
    assert len(theirs) >= 3

    denoiser = load_denoiser(folders[name])
    assert isinstance(denoiser, Denoiser) and isinstance(denoiser, NativeDenoiser) and isinstance(denoiser, LatentDenoiser)
    told = Conditioning.stack([denoiser.embed([negative or ""] * 2), denoiser.embed(PROMPTS)])
    ours = recorded(denoiser.network)
    for call in theirs:
        time = call["timestep"].flatten()[0]
        (at,) = (denoiser._schedule.told.double() - time).abs().lt(1e-3).nonzero().flatten().tolist()
        t = torch.full((4,), at / (len(denoiser._schedule.told) - 1))
        answer = denoiser.predict(call["sample"], t, told)
        torch.testing.assert_close(answer, call["output"], rtol=1e-4, atol=1e-5)
        mine = ours.pop()
        assert set(mine) == set(call)
        for key, value in call.items():
            expected = value.expand(4) if key == "timestep" else value
            torch.testing.assert_close(mine[key], expected, rtol=1e-4, atol=1e-5, check_dtype=False)
    # And the comparison can fail: other text makes another answer.
    assert (denoiser.predict(call["sample"], t, told[[2, 3, 0, 1]]) - call["output"]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3"])
def test_latents_are_scaled_and_shifted_as_the_pipeline_does(folders, name):
    """Decoding: the pipeline's own latents give its own picture. Encoding is its inverse, on the posterior's mean."""
    pipeline = peer(folders[name])
    final: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, time: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        final.append(state["latents"])
        return {}

    shown = run(pipeline, callback_on_step_end=keep)
    denoiser = load_denoiser(folders[name])
    assert (denoiser.image_size, denoiser.latent_size, denoiser.channels) == (16, 8, pipeline.vae.config.latent_channels)
    torch.testing.assert_close((0.5 * denoiser.decode(final[-1]) + 0.5).clamp(0, 1), shown, rtol=1e-4, atol=1e-5)

    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean = pipeline.vae.encode(x).latent_dist.mean
    z = denoiser.encode(x, torch.Generator().manual_seed(1))
    config = pipeline.vae.config
    torch.testing.assert_close(z / config.scaling_factor + (config.shift_factor or 0.0), mean, rtol=1e-4, atol=1e-5)
    assert torch.equal(z, denoiser.encode(x, torch.Generator().manual_seed(2)))


SCHEDULERS = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "ddim-zero-snr": ("DDIMScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-zero-snr": ("EulerDiscreteScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpm": ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}),
    "unipc": ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}),
    "few-steps": ("DDPMScheduler", {"num_train_timesteps": 200}),
}


@pytest.mark.parametrize("case", list(SCHEDULERS))
def test_noise_levels_are_those_of_the_schedulers_own_add_noise(copy, case):
    kind, config = SCHEDULERS[case]
    scheduler = getattr(diffusers, kind)(**{**LINEAR, **config})
    path = copy("sd15")
    edit(path / "model_index.json", scheduler=["diffusers", kind])
    scheduler.save_pretrained(path / "scheduler")
    denoiser = load_denoiser(path)
    steps = scheduler.config.num_train_timesteps
    x, eps = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.37, 1.0])
    told = denoiser.told_time(t)
    assert told.tolist() == [0, round(0.37 * (steps - 1)), steps - 1]
    alpha, sigma = (level.view(3, 1, 1, 1) for level in denoiser.alpha_sigma(t))
    if config.get("timestep_spacing") == "trailing":
        scheduler.set_timesteps(steps)  # these know their levels only once they know their steps: here all
    expected = scheduler.add_noise(x, eps, told)
    if kind.startswith("Euler"):  # in the coordinates x + sigma' eps, which the network never sees
        levels = torch.tensor([float(scheduler.sigmas[scheduler.timesteps.tolist().index(k)]) for k in told]).view(3, 1, 1, 1)
        expected = expected / (levels**2 + 1).sqrt()
    torch.testing.assert_close(alpha * x + sigma * eps, expected, rtol=1e-4, atol=1e-4)
    last_signal = float(alpha[-1, 0, 0, 0])
    assert (last_signal < 3e-4) == ("zero-snr" in case)  # diffusers keeps 2^-24 of the signal's power in some samplers


@pytest.mark.parametrize("scheduling", [{"shift": 1.0}, {"shift": 3.0}, {"use_dynamic_shifting": True, "base_shift": 0.7}])
def test_flow_levels_are_those_of_the_schedulers_own_scale_noise(tmp_path, scheduling):
    path = save(lambda: stable_diffusion_3(tmp_path, t5=False, **scheduling), tmp_path / "m")
    denoiser = load_denoiser(path)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(path / "scheduler")
    if "use_dynamic_shifting" in scheduling:
        tokens = 16  # 8 x 8 latents in patches of 2
        mu = 0.7 + (1.15 - 0.7) / (4096 - 256) * (tokens - 256)
        scheduler.set_timesteps(sigmas=[k / 1000 for k in range(1000, 0, -1)], mu=mu)
    x, eps = torch.randn(2, 3, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.37, 1.0])
    alpha, sigma = (level.view(3, 1, 1, 1) for level in denoiser.alpha_sigma(t))
    told = denoiser.told_time(t)
    listed = scheduler.timesteps[:1000].flip(0)
    chosen = listed[[0, 370, 999]]
    torch.testing.assert_close(told, chosen, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(alpha * x + sigma * eps, scheduler.scale_noise(x, chosen, eps), rtol=1e-4, atol=1e-5)
    assert float(alpha[-1, 0, 0, 0]) == 0 and denoiser.prediction_type == "flow"


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_prediction_says_what_the_scheduler_says_about_the_clean_latents(tmp_path, kind):
    path = save(lambda: stable_diffusion(tmp_path, kind, timestep_spacing="trailing"), tmp_path / "m")
    denoiser = load_denoiser(path)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.6])
    output = denoiser.predict(z, t, denoiser.embed(["a red chair"]))
    alpha, sigma = (level.view(1, 1, 1, 1) for level in denoiser.alpha_sigma(t))
    scheduler = diffusers.DDIMScheduler.from_pretrained(path / "scheduler")
    scheduler.set_timesteps(1000)
    step = scheduler.step(output, int(denoiser.told_time(t)), z)
    torch.testing.assert_close(clean_from(denoiser.prediction_type, output, z, alpha, sigma), step.pred_original_sample, rtol=1e-4, atol=1e-4)
    noise = denoiser.predict_noise(z, t, denoiser.embed(["a red chair"]))
    torch.testing.assert_close(alpha * step.pred_original_sample + sigma * noise, z, rtol=1e-4, atol=1e-4)


def test_sdxl_without_zeroed_text_encodes_the_empty_prompt(tmp_path):
    kept = load_denoiser(save(lambda: stable_diffusion_xl(tmp_path / "a", True), tmp_path / "zeros"))
    encoded = load_denoiser(save(lambda: stable_diffusion_xl(tmp_path / "b", False), tmp_path / "encodes"))
    assert all(not tensor.any() for tensor in kept.embed([""]).tensors.values())
    assert all(tensor.abs().max() > 0.1 for tensor in encoded.embed([""]).tensors.values())
    torch.testing.assert_close(kept.embed(["a chair"]).tensors["pooled"], encoded.embed(["a chair"]).tensors["pooled"])


@pytest.mark.parametrize("name, encoders", [("sdxl", 2), ("sd3", 3)])
def test_all_encoders_run_once_and_their_rows_are_cached_together(folders, tmp_path, name, encoders):
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
    save_file({"hidden": load_file(file)["hidden"]}, file)  # an entry without its pooled text counts as none
    third = load_denoiser(folders[name], cache=tmp_path)
    assert torch.equal(third.embed(["a red chair"]).tensors["pooled"][0], rows.tensors["pooled"][0])
    assert third.text.is_loaded


def test_a_prompt_longer_than_an_encoder_is_told_what_was_cut_in_its_own_words(folders):
    """The tiny tokenizers spell letter by letter, so CLIP's 77 tokens are 75 letters; T5 reads 256."""
    words = ["mushroom"] * 9 + ["toadstool", "on", "Mars"]  # 72 + 9 + ... letters
    prompt = " ".join(words)
    (warning,) = load_denoiser(folders["sd15"]).check_prompt(prompt)
    assert warning.startswith("the prompt has 89 tokens, the model reads the first 77; cut off is 'toadstool on Mars' of 'mush")
    (warning,) = load_denoiser(folders["sd3"]).check_prompt(prompt)
    assert "the first 77 (text_encoder, text_encoder_2); cut off is 'toadstool on Mars'" in warning
    both = load_denoiser(folders["sd3"]).check_prompt(" ".join(["mushroom"] * 40))
    assert len(both) == 2 and "the first 256 (text_encoder_3); cut off is 'mushroom" in both[1]
    assert load_denoiser(folders["sd3"]).check_prompt("a red mushroom") == []
    bank = PromptBank(load_denoiser(folders["sd15"]), " ".join(["mushroom"] * 9), GuidanceConfig())
    assert any("cut off is 'front view'" in warning for warning in bank.warnings)


def test_the_old_names_of_a_vaes_attention_are_understood(copy):
    """Stable Diffusion 1.x's VAE on the hub says query, key, value, proj_attn."""
    path = copy("sd15")
    file = path / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for name, tensor in load_file(file).items():
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = tensor
    assert any(".proj_attn." in name for name in renamed)
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    expected = load_denoiser(path).encode(x, torch.Generator())
    save_file(renamed, file, metadata={"format": "pt"})
    torch.testing.assert_close(load_denoiser(path).encode(x, torch.Generator()), expected)


def test_the_class_follows_the_folder_and_pixel_models_stay_what_they_are(folders, tmp_path):
    pixel = load_denoiser(write_pipeline(tmp_path / "if"))
    assert type(pixel) is PixelDiffusion and not isinstance(pixel, LatentDenoiser)
    with pytest.raises(ModelError, match="works on latents; allowed here are pixel-space"):
        PixelDiffusion.load(folders["sd15"])


def test_auto_is_half_precision_on_a_gpu_only():
    assert chosen_dtype(ModelConfig(), "cpu") == torch.float32
    assert chosen_dtype(ModelConfig(), torch.device("cuda", 0)) == torch.float16
    assert chosen_dtype(ModelConfig(dtype="bfloat16"), "cpu") == torch.bfloat16


INDEX_ERRORS = [
    ("sd15", {"_class_name": "StableDiffusionInpaintPipeline"}, "is a StableDiffusionInpaintPipeline; allowed are IFPipeline, Stable"),
    ("sd15", {"_class_name": "StableDiffusionXLPipeline"}, "whose tokenizer_2 is missing"),
    ("sdxl", {"_class_name": "StableDiffusionPipeline"}, "with a text_encoder_2, which that class does not have; .* mixed up"),
    ("sd15", {"_class_name": "IFPipeline"}, "with a vae, which that class does not have"),
    ("sd15", {"vae": ["diffusers", "AutoencoderTiny"]}, "vae is AutoencoderTiny; allowed is AutoencoderKL"),
    ("sdxl", {"text_encoder": [None, None]}, "text_encoder is missing; allowed is CLIPTextModel"),
    ("sd15", {"scheduler": ["diffusers", "LCMScheduler"]}, "scheduler is LCMScheduler; allowed is DDPMScheduler or"),
    ("sd3", {"scheduler": ["diffusers", "DDPMScheduler"]}, "scheduler is DDPMScheduler; allowed is FlowMatchEuler"),
    ("sd3", {"tokenizer_3": [None, None]}, "only one of text_encoder_3 and tokenizer_3"),
]


@pytest.mark.parametrize("name, changes, message", INDEX_ERRORS)
def test_pipelines_of_other_classes_or_with_mixed_up_parts_are_refused(copy, name, changes, message):
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
    ("sdxl", "unet", {"projection_class_embeddings_input_dim": 48}, "picture sizes of .* width 56, its unet wants 48"),
    ("sd3", "transformer", {"in_channels": 4}, "transformer of .* 4 input and 16 output channels; allowed are 16"),
    ("sd3", "transformer", {"joint_attention_dim": 64}, "text_encoder_3 of .* width 32, its transformer wants 64"),
    ("sd3", "transformer", {"pooled_projection_dim": 20}, "pooled text of .* width 16, its transformer wants 20"),
    ("sd15", "vae", {"scaling_factor": "big"}, "scaling_factor 'big'"),
    ("sd15", "vae", {"latents_mean": [0, 0, 0, 0]}, "latents_mean"),
    ("sd15", "vae", {"latent_channels": 8}, "allowed are 8 and 8, as its vae"),
]


@pytest.mark.parametrize("name, part, changes, message", CONFIG_ERRORS)
def test_parts_that_do_not_fit_together_are_refused(copy, name, part, changes, message):
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
def test_schedules_that_mean_something_else_are_refused(copy, name, changes, message):
    path = copy(name)
    edit(path / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_denoiser(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, part", [("sd15", "vae"), ("sdxl", "text_encoder_2"), ("sd3", "transformer"), ("sd3", "tokenizer_3")])
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


def test_a_part_given_for_the_whole_says_where_the_whole_is(folders):
    with pytest.raises(ModelError, match=f"is one part of a pipeline; give the whole of it, {folders['sd15']}"):
        load_denoiser(folders["sd15"] / "unet")


@pytest.mark.parametrize(
    "name, config, message",
    [
        ("sd15", ModelConfig(image_size=13), "image_size 13; allowed for .* are 0 .its own, 16. and multiples of 2 from 8 to 32"),
        ("sd3", ModelConfig(image_size=1000), "image_size 1000"),
        ("sd3", ModelConfig(attention_slicing=True), "attention_slicing is on, but a SD3Transformer2DModel has none"),
    ],
)
def test_settings_that_a_model_cannot_follow_are_refused(folders, name, config, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_denoiser(folders[name], config=config)
    assert "\n" not in str(caught.value)


def test_every_supported_pipeline_class_is_diffusers_own_and_so_are_its_parts():
    """The table of families against the constructors of the pipelines themselves."""
    import inspect

    for family in SUPPORTED:
        for pipeline in family.pipelines:
            wanted = set(inspect.signature(getattr(diffusers, pipeline).__init__).parameters)
            assert set(family.parts) <= wanted, pipeline
        assert issubclass(AutoencoderKL, torch.nn.Module)
        assert all(hasattr(diffusers, name) for part in (family.network, "scheduler") for name in family.parts[part])
