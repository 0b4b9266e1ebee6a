# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRA files on latent pipelines: W + weight alpha / rank B A, in every naming style, and their place in a job."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.schema import Config, ModelConfig
from dreamwright.backend.errors import ConfigError, ModelError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.models.families import SDXL
from dreamwright.backend.models.lora_choice import (
    find_lora,
    join_loras,
    lora_folder,
    offered_loras,
    parse_loras,
    use_lora_folder,
)
from dreamwright.backend.models.lora_files import add_loras, open_loras
from dreamwright.backend.models.lora_layout import read_lora
from dreamwright.backend.models.pipeline_folder import PipelineFolder, load_model, open_pipeline
from dreamwright.backend.models.single_file_families import SDXL as SDXL_FILE
from dreamwright.backend.text.encoder import PipelineTextEncoder
from dreamwright.backend.text.encoder_process import run_request
from dreamwright.backend.training.job import identify_model, make_job
from dreamwright.backend.training.pipeline import TextTo3DPipeline
from tests.testing.ldm_files import build, write_header
from tests.testing.lora_writing import random_factors, tensor_names, write_lora
from tests.testing.tiny_families import write_family

pytestmark = pytest.mark.usefixtures("only_packaged_models")

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
UNET_LAYERS = (
    f"{BLOCK}.attn2.to_k",
    f"{BLOCK}.attn2.to_v",
    f"{BLOCK}.attn1.to_out.0",
    f"{BLOCK}.ff.net.0.proj",
    "down_blocks.1.attentions.0.proj_in",
    "down_blocks.1.resnets.0.conv1",
    "down_blocks.1.resnets.0.time_emb_proj",
    "down_blocks.0.downsamplers.0.conv",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.resnets.1.conv2",
    "up_blocks.0.upsamplers.0.conv",
    "up_blocks.1.resnets.1.conv_shortcut",
    "time_embedding.linear_1",
    "conv_in",
    "conv_out",
)
TEXT_LAYERS = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.self_attn.out_proj", "encoder.layers.1.mlp.fc1")
# Weights are near 1 and changed in float32: a few roundings of 6e-8 each, in sums of at most 16 x 9 products.
TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return write_family("sd15", tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    return write_family("sdxl", tmp_path_factory.mktemp("xl"))


def factors_for(folder, layers=UNET_LAYERS, text=TEXT_LAYERS, rank=3, alpha=1.5, seed=0):
    """Random factors for layers of the network and of every text encoder."""
    opened, found = open_pipeline(folder), {}
    for part, names in ((opened.network, layers), *((encoder, text) for encoder in opened.text_encoders)):
        model = load_model(opened, part, torch.float32, "cpu")
        home = getattr(model, "text_model", model)
        for number, name in enumerate(names):
            shape = tuple(home.get_submodule(name).weight.shape)
            found[part, name] = random_factors(shape, rank, alpha, seed + number)
    return found


def loaded(folder, part, text=""):
    opened = open_pipeline(folder)
    model = load_model(opened, part, torch.float32, "cpu")
    add_loras(model, part, open_loras(text, opened))
    return model


def weights(model):
    home = getattr(model, "text_model", model)
    return {name.removesuffix(".weight"): tensor for name, tensor in home.state_dict().items()}


@pytest.mark.parametrize("style", ["kohya", "kohya-ldm", "peft", "diffusers", "dotted-ldm"])
@pytest.mark.parametrize("family", ["sd", "xl"])
def test_weights_are_changed_by_the_scaled_product(request, tmp_path, family, style):
    folder = request.getfixturevalue(family)
    config = open_pipeline(folder).config("unet")
    made = factors_for(folder)
    path = write_lora(tmp_path / "one.safetensors", made, style, config, single=family == "sd")
    for part in ("unet", *open_pipeline(folder).text_encoders):
        before, after = weights(loaded(folder, part)), weights(loaded(folder, part, f"{path}:-0.7"))
        for name, tensor in before.items():
            expected = tensor
            if (part, name) in made:
                expected = (tensor.double() - 0.7 * made[part, name].change().reshape(tensor.shape)).float()
                assert (expected - tensor).abs().max() > 1e-3, "the change is seen"
                torch.testing.assert_close(after[name], expected, **TOLERANCE)
            else:
                assert torch.equal(after[name], expected), f"{name} is not of the LoRA"


def test_prediction_is_that_of_the_changed_weights(sd, tmp_path):
    made = factors_for(sd)
    path = write_lora(tmp_path / "one.safetensors", made)
    with_lora = load_denoiser(sd, config=ModelConfig(loras=f"{path}:0.5"))
    by_hand = load_denoiser(sd)
    plain = load_denoiser(sd)
    with torch.no_grad():
        for (part, name), own in made.items():
            if part == "unet":
                weight = by_hand.network.get_submodule(name).weight
                weight += (0.5 * own.change()).reshape(weight.shape).float()
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t, words = torch.tensor([0.3, 0.8]), plain.embed(["a red chair", "a tree"])
    expected = by_hand.predict_noise(z, t, words)
    # About 30 layers of values near 1, whose weights differ by a rounding of 6e-8 each.
    torch.testing.assert_close(with_lora.predict_noise(z, t, words), expected, rtol=0, atol=1e-4)
    assert (plain.predict_noise(z, t, words) - expected).abs().max() > 1e-2


def test_weight_zero_changes_nothing_and_two_add(sd, tmp_path):
    first = write_lora(tmp_path / "a.safetensors", factors_for(sd, rank=2, seed=0))
    second = write_lora(tmp_path / "b.safetensors", factors_for(sd, rank=4, seed=50), "peft", dtype=torch.float16)
    plain = weights(loaded(sd, "unet"))
    assert all(torch.equal(plain[n], w) for n, w in weights(loaded(sd, "unet", f"{first}:0")).items())
    one, two = weights(loaded(sd, "unet", str(first))), weights(loaded(sd, "unet", f"{second}:0.25"))
    both = weights(loaded(sd, "unet", f"{second}:0.25; {first}"))
    for name, weight in plain.items():
        torch.testing.assert_close(both[name] - weight, (one[name] - weight) + (two[name] - weight), **TOLERANCE)


def test_alpha_is_as_stated_else_the_rank(sd, tmp_path):
    made = {key: own for key, own in factors_for(sd, text=()).items() if key[1].endswith("to_k")}
    (key, own), plain = next(iter(made.items())), weights(loaded(sd, "unet"))
    stated = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": 3})}
    patterned = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn2.to_k": 9}})}
    rooted = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.use_rslora": True})}
    for metadata, scale in (({}, 1.0), (stated, 2.0), (patterned, 3.0), (rooted, 6 / math.sqrt(3))):
        path = write_lora(tmp_path / "m.safetensors", made, "peft", metadata=metadata, with_alpha=False)
        change = weights(loaded(sd, "unet", str(path)))[key[1]] - plain[key[1]]
        torch.testing.assert_close(change, (scale * replace(own, alpha=3).change()).float(), **TOLERANCE)


def test_half_precision_is_rounded_once(sd, tmp_path):
    """The sum is taken in float32: two changes of 0.4 steps of float16, each of which is lost alone, make one step."""
    layer = f"{BLOCK}.attn2.to_k"
    shape = tuple(weights(loaded(sd, "unet"))[layer].shape)
    step = 2**-10  # of float16 above 1
    small = replace(random_factors(shape, 1, 1.0, 0), down=torch.ones(1, shape[1]))
    small = replace(small, up=torch.full((shape[0], 1), 0.4 * step))
    path = write_lora(tmp_path / "small.safetensors", {("unet", layer): small})
    opened = open_pipeline(sd)
    for loras, expected in ((str(path), 1.0), (f"{path};{path}", 1 + step)):
        model = load_model(opened, "unet", torch.float16, "cpu")
        weight = model.get_submodule(layer).weight
        weight.copy_(torch.ones(shape))
        add_loras(model, "unet", open_loras(loras, opened))
        assert torch.all(weight == expected)


def test_published_names_of_sdxl_all_have_a_place(tmp_path):
    """kohya's scripts name SDXL's layers in the order of the latent diffusion code: every one is found."""
    part = SDXL_FILE.parts["unet"]
    model = build(part, "meta")
    unet = tmp_path / "xl" / "unet"
    unet.mkdir(parents=True)
    (unet / "config.json").write_text(model.to_json_string())
    shapes = {name: ("F16", tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    write_header(unet / "diffusion_pytorch_model.safetensors", shapes)
    classes = {"unet": "UNet2DConditionModel"}
    folder = PipelineFolder(tmp_path / "xl", "StableDiffusionXLPipeline", SDXL, classes, {})
    layers = {
        name.removesuffix(".weight"): shape
        for name, (_, shape) in shapes.items()
        if name.endswith(".weight") and len(shape) in (2, 4)
    }
    header = {}
    for layer, shape in layers.items():
        down, up, _ = tensor_names("kohya-ldm", "unet", layer, part.config, False)
        header |= {down: ("F16", (4, *shape[1:])), up: ("F16", (shape[0], 4, *(1,) * (len(shape) - 2)))}
    found = read_lora(write_header(tmp_path / "lora.safetensors", header), folder)
    assert {one.layer for one in found} == set(layers) and len(layers) == 794
    assert all(one.rank == 4 for one in found)


def test_text_encoders_are_changed_and_cached_apart(sd, tmp_path):
    opened, cache = open_pipeline(sd), tmp_path / "cache"
    text = write_lora(tmp_path / "text.safetensors", factors_for(sd, layers=()))
    image = write_lora(tmp_path / "image.safetensors", factors_for(sd, text=()))

    def embedded(loras, **options):
        encoder = PipelineTextEncoder(opened, "cpu", torch.float32, cache, loras=open_loras(loras, opened), **options)
        rows = encoder.embed(["a red chair"]).tensors["hidden"]
        return rows, encoder.is_loaded

    plain, _ = embedded("")
    changed, was_loaded = embedded(str(text))
    assert was_loaded and (changed - plain).abs().max() > 1e-2
    assert torch.equal(embedded(str(text))[0], changed) and not embedded(str(text))[1], "found in the cache"
    other, was_loaded = embedded(f"{text}:0.5")
    assert was_loaded and not torch.equal(other, changed)
    for unchanged in (str(image), f"{text}:0"):
        rows, was_loaded = embedded(unchanged)
        assert torch.equal(rows, plain) and not was_loaded, "the text encoder is as without it"
    with pytest.raises(ConfigError, match="text.precision is 'int8', and a LoRA changes the text encoder"):
        embedded(str(text), int8=True)
    work = tmp_path / "work"
    work.mkdir()
    request = {
        "folder": str(sd), "device": "cpu", "dtype": "float32", "int8": False, "loras": f"{text}:1.0", "threads": 1,
        "prompts": ["a red chair"], "work": str(work),
    }  # fmt: skip
    from safetensors.torch import load_file

    assert run_request(request) == 0 and torch.equal(load_file(work / "result.safetensors")["hidden"], changed)


def test_a_job_knows_loras_by_content_and_weight(sd, tmp_path):
    path = write_lora(tmp_path / "one.safetensors", factors_for(sd, text=()))
    copy = shutil.copy(path, tmp_path / "renamed.safetensors")
    other = write_lora(tmp_path / "other.safetensors", factors_for(sd, text=(), seed=9))

    def job(loras):
        config = apply_settings(Config(), [f"model.loras={loras}"])
        return identify_model(make_job("a chair", str(sd), "paper", config))

    prints = {loras: job(loras).fingerprint() for loras in ("", str(path), str(copy), f"{path}:0.5", str(other))}
    assert prints[str(path)] == prints[str(copy)] and len(set(prints.values())) == 4
    assert job(f"{path};{other}:2").fingerprint() == job(f"{other}:2.0;{path}:1").fingerprint()
    provenance = TextTo3DPipeline.provenance(
        SimpleNamespace(job=job(f"{path}:0.5"), scene=SimpleNamespace(seed=0, provenance=dict), step=3)
    )
    assert [line.split()[1] for line in provenance["loras"]] == ["0.5"]
    with pytest.raises(ModelError, match="there is no LoRA 'gone.safetensors'"):
        job("gone.safetensors")


def test_setting_is_read_and_files_are_found(tmp_path):
    assert parse_loras("") == () and parse_loras(" a.safetensors ; b:0.5;") == (("a.safetensors", 1.0), ("b", 0.5))
    assert parse_loras(r"C:\my\a.safetensors") == ((r"C:\my\a.safetensors", 1.0),)
    assert parse_loras("a:-1e-1") == (("a", -0.1),) and join_loras(["a:1", "b"]) == "a:1;b"
    for wrong in ("a:11", "a:nan", "a:-inf"):
        with pytest.raises(ConfigError, match="allowed are -10 to 10"):
            parse_loras(wrong)
    for wrong in ("a;b", " "):
        with pytest.raises(ConfigError, match="one for each --lora"):
            join_loras([wrong])
    lora_folder().mkdir(parents=True)
    (lora_folder() / "clay.safetensors").write_bytes(b"")
    (tmp_path / "here.safetensors").write_bytes(b"")
    for given in ("clay", "clay.safetensors"):
        assert find_lora(given, names_only=True) == lora_folder() / "clay.safetensors"
    assert find_lora(str(tmp_path / "here.safetensors")).is_file()
    for given in (str(tmp_path / "here.safetensors"), "here.safetensors", "../loras/clay.safetensors", "gone"):
        with pytest.raises(ModelError, match="allowed are names of files in the folder loras"):
            find_lora(given, names_only=True)


def test_a_folder_s_loras_are_offered_by_name(tmp_path, monkeypatch):
    assert offered_loras() == (), "there is no such folder yet"
    own = tmp_path / "own"
    own.mkdir()
    for name in ("b.safetensors", "a.safetensors", ".hidden.safetensors", "c:1.safetensors", "d;e.safetensors", "f.pt"):
        (own / name).write_bytes(b"")
    (own / "folder.safetensors").mkdir()
    monkeypatch.setenv("DREAMWRIGHT_LORAS", "")  # put back afterwards
    with pytest.raises(ConfigError, match="--loras .* is no folder"):
        use_lora_folder(tmp_path / "gone")
    use_lora_folder(own)
    assert lora_folder() == own and offered_loras() == ("a", "b")
    assert [find_lora(name, names_only=True) for name in offered_loras()] == [
        own / "a.safetensors", own / "b.safetensors",
    ]  # fmt: skip


def test_diffusers_and_peft_change_the_same_weights(sd, tmp_path):
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    # What diffusers' reader of kohya's names takes: attention, feed-forward layers and projections.
    layers = [name for name in UNET_LAYERS if "attentions" in name]
    path = write_lora(tmp_path / "one.safetensors", factors_for(sd, layers=layers))
    pipeline = StableDiffusionPipeline.from_pretrained(sd, local_files_only=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name=path.name)
    pipeline.fuse_lora(lora_scale=0.7)
    pipeline.unload_lora_weights()
    ours, theirs = weights(loaded(sd, "unet", f"{path}:0.7")), weights(pipeline.unet)
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], **TOLERANCE)
