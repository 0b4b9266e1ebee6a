# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights of any variant, in one file or in shards, are found, chosen, downloaded and read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamwright.backend.errors import ModelError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.models.model_files import missing_files, needed_files
from dreamwright.backend.models.pipeline_folder import load_model, open_pipeline
from dreamwright.backend.models.verify import verify_folder
from dreamwright.backend.models.weight_files import choose_weights, weight_sets
from tests.testing.fake_hub import folder_files
from tests.testing.tiny_families import write_family
from tests.testing.tiny_pipeline import write_pipeline

VARIANTS = ("", "fp16", "bf16", "non_ema", "ema_only", "int-8")


def sharded(folder: Path, base: str, variant: str) -> None:
    """The part's weights as two shards with their index, instead of one file."""
    whole = folder / f"{base}.safetensors"
    tensors = load_file(whole)
    dotted = f".{variant}" if variant else ""
    names = [f"{base}{dotted}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    mapped = {key: names[i % 2] for i, key in enumerate(tensors)}
    for name in names:
        save_file(
            {key: tensors[key] for key in tensors if mapped[key] == name}, folder / name, metadata={"format": "pt"}
        )
    index = {"metadata": {"total_size": 1}, "weight_map": mapped}
    (folder / f"{base}.safetensors.index{dotted}.json").write_text(json.dumps(index))
    whole.unlink()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("in_shards", [False, True])
def test_weights_of_any_variant_are_read(tmp_path, variant, in_shards):
    source = write_family("sd15", tmp_path)
    t, prompts = torch.tensor([0.5]), ["a red chair"]
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = load_denoiser(source)
    expected = plain.predict_noise(z, t, plain.embed(prompts))
    for part, base in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        if in_shards:
            sharded(source / part, base, variant)
        elif variant:
            (source / part / f"{base}.safetensors").rename(source / part / f"{base}.{variant}.safetensors")
    assert missing_files(source) == [] and verify_folder(source).sound
    renamed = load_denoiser(source)
    for ours, theirs in ((plain.network, renamed.network), (plain.vae.model, renamed.vae.model)):
        read = theirs.state_dict()
        assert all(torch.equal(value, read[name]) for name, value in ours.state_dict().items())
    # Weights of other files lie at other offsets in memory, for which kernels may sum in another order: some roundings
    # of 6e-8 in each of about 30 layers, of values near 1. Other weights would change it by about 1.
    torch.testing.assert_close(renamed.predict_noise(z, t, renamed.embed(prompts)), expected, rtol=0, atol=1e-4)
    index = json.loads((source / "model_index.json").read_text())
    weights = {file for file in folder_files(source) if file.endswith(".safetensors")}
    assert weights <= set(needed_files(folder_files(source), index, "it")), "any variant is downloaded"
    if in_shards:
        lost = next((source / "unet").glob("*-00002-of-00002.safetensors"))
        lost.unlink()
        assert missing_files(source) == [f"unet/{lost.name}"]
        with pytest.raises(ModelError, match=re.escape(lost.name)):
            load_denoiser(source)


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_each_part_may_have_a_variant_of_its_own(tmp_path, family):
    """As folders on an artist's disk have it: a network in fp16, a VAE of another name, shards of one encoder only."""
    source = write_family(family, tmp_path)
    opened = open_pipeline(source)
    parts = (opened.network, "vae", *opened.text_encoders)
    before = {part: load_model(opened, part, torch.float32, "cpu").state_dict() for part in parts}
    for part, variant in ((opened.network, "fp16"), ("vae", "fix")):
        weights = source / part / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    sharded(source / "text_encoder_2", "model", "bf16")
    assert missing_files(source) == [] and verify_folder(source).sound
    opened = open_pipeline(source)
    variants = {part: opened.weights(part, torch.float32).variant for part in parts}
    assert variants | {opened.network: "fp16", "vae": "fix", "text_encoder": "", "text_encoder_2": "bf16"} == variants
    for part in parts:
        read = load_model(opened, part, torch.float32, "cpu").state_dict()
        assert all(torch.equal(tensor, read[name]) for name, tensor in before[part].items()), part


def test_preferred_variant_is_chosen():
    def choose(half: bool, *variants: str) -> str:
        names = [f"model{'.' if variant else ''}{variant}.safetensors" for variant in variants]
        chosen = choose_weights(weight_sets(names, "model"), half)
        assert chosen is not None
        return chosen.variant

    assert choose(False, "fp16", "non_ema", "", "bf16") == "" and choose(True, "fp16", "non_ema", "", "bf16") == "fp16"
    assert choose(False, "fp16", "bf16") == "fp16" and choose(True, "bf16", "") == ""
    assert choose(False, "bf16", "non_ema") == "bf16" and choose(True, "non_ema") == "non_ema"
    torn = ["model-00001-of-00002.safetensors", "model.bf16.safetensors", "model.safetensors.index.json"]
    assert choose_weights(weight_sets(torn, "model"), False).variant == "bf16", "only complete variants are chosen"
    assert choose_weights(weight_sets(["open_model.safetensors"], "model"), False) is None


def test_unreadable_weight_names_are_reported(tmp_path):
    tiny = write_pipeline(tmp_path / "tiny")
    weights = tiny / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("pretty_unet.safetensors"))
    with pytest.raises(ModelError, match="holds pretty_unet.safetensors; allowed are diffusion_pytorch_model"):
        load_denoiser(tiny)


def test_incomplete_shards_are_not_a_variant():
    shards = [f"text_encoder/model{half}-0000{i}-of-00002.safetensors" for half in ("", ".fp16") for i in (1, 2)]
    listing = [
        "model_index.json", "domain.json", "scheduler/scheduler_config.json", "tokenizer/spiece.model",
        "tokenizer/tokenizer_config.json", *shards,
        "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "text_encoder/config.json",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/model.safetensors.index.fp16.json", "text_encoder/pytorch_model.bin.index.json",
        "safety_checker/model.safetensors",
    ]  # fmt: skip
    index = {"_class_name": "IFPipeline"}
    needed = needed_files(listing, index, "it")
    half = {"text_encoder/model.safetensors.index.fp16.json", *shards[2:], "text_encoder/config.json"}
    assert {name for name in needed if name.startswith("text_encoder")} == half and "domain.json" in needed
    listing.remove(shards[2])
    whole = {"text_encoder/model.safetensors.index.json", *shards[:2], "text_encoder/config.json"}
    assert {name for name in needed_files(listing, index, "it") if name.startswith("text_encoder")} == whole
    listing.remove(shards[1])
    with pytest.raises(ModelError, match="lacks text_encoder/model-00002-of-00002.safetensors"):
        needed_files(listing, index, "it")
