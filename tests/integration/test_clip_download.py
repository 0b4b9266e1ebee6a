# SPDX-License-Identifier: GPL-3.0-or-later
"""Download of CLIP models: required files only, verified, and usable offline."""

from __future__ import annotations

import json

import pytest

from dreamwright.backend.errors import ModelError, PromptError
from dreamwright.backend.evaluation.samples import render_sample, starter_prop
from dreamwright.backend.guidance.clip_model import load_image_text
from dreamwright.backend.models.local import local_models, resolve_model
from dreamwright.backend.models.model_files import is_clip_folder, missing_files, needed_files
from dreamwright.backend.models.registry import BY_NAME, MODELS, PACKAGED
from dreamwright.backend.starter import domain
from tests.testing.fake_hub import Repository, folder_files
from tests.testing.hub_downloads import assert_refused, models_folder
from tests.testing.tiny_clip import write_clip

CLUTTER = ("README.md", "pytorch_model.bin", "flax_model.msgpack", "tf_model.h5", "open_clip_config.json")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    made = folder_files(write_clip(tmp_path_factory.mktemp("clip") / "tiny"))
    return {**made, **dict.fromkeys(CLUTTER, b"unneeded")}


def test_clip_download_has_the_required_files_only(hub, env, run_in_process, files):
    repository = BY_NAME["clip-b32"].sources[0].repo_id
    hub.repositories[repository] = Repository(files)
    assert run_in_process("models", "download", "clip-b32").returncode == 0
    assert set(hub.fetched()) == set(files) - set(CLUTTER)
    folder = models_folder(env) / "clip-b32"
    assert resolve_model("clip-b32") == folder and resolve_model(repository) == folder and is_clip_folder(folder)
    assert load_image_text(folder).image_size == 32
    assert run_in_process("models", "verify", "clip-b32").returncode == 0
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert_refused(run_in_process("models", "verify", "clip-b32"), "1 fault", "`dreamwright models download clip-b32`")
    (folder / "preprocessor_config.json").unlink()
    assert missing_files(folder) == ["preprocessor_config.json"]


def test_unusable_clip_repository_is_refused_before_weights(hub, env, run_in_process, files):
    pickled = {name: content for name, content in files.items() if not name.endswith(".safetensors")}
    hub.repositories["some/pickles"] = Repository(pickled)
    assert_refused(run_in_process("models", "download", "some/pickles"), "only pickled weights (pytorch_model.bin)")
    other = {**files, "config.json": json.dumps({"model_type": "siglip"}).encode()}
    hub.repositories["some/siglip"] = Repository(other)
    assert_refused(
        run_in_process("models", "download", "some/siglip"),
        "some/siglip",
        "needed is a diffusers pipeline or a CLIP model",
    )
    assert not [name for name in hub.fetched() if name.endswith((".safetensors", ".msgpack", ".bin"))]


def test_required_files_of_a_clip_repository():
    index = {"model_type": "clip"}
    names = [
        "config.json",
        "preprocessor_config.json",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "model.safetensors",
        "model.fp16.safetensors",
        "x/y.json",
        "LICENSE",
    ]
    assert needed_files(names, index, "it") == sorted(
        [
            "config.json",
            "preprocessor_config.json",
            "tokenizer_config.json",
            "vocab.json",
            "merges.txt",
            "model.fp16.safetensors",
            "LICENSE",
        ]
    )
    for name in ("merges.txt", "vocab.json", "tokenizer_config.json", "preprocessor_config.json"):
        with pytest.raises(ModelError, match=f"lacks {name}"):
            needed_files([other for other in names if other != name], index, "it")


def test_packaged_models_cover_every_kind():
    kinds = {model.name: model.kind for model in local_models()}
    assert {kinds[name] for name in PACKAGED} == {"diffusion", "image-text"}
    assert all(model.kind == "image-text" for model in MODELS if "clip" in model.name)


@pytest.mark.parametrize("name", [name for name in PACKAGED if BY_NAME[name].kind == "image-text"])
def test_packaged_image_text_models_recognize_colors(name):
    model = load_image_text(resolve_model(name))
    right = []
    for color in ("red", "blue", "yellow", "black"):
        shown = render_sample(starter_prop(f"a {color} mushroom", 0), 0, 0, 64, 30.0, azimuths=2).color
        best = model.scores(shown, [f"a {other} mushroom" for other in domain.COLORS]).argmax(-1)
        right += [list(domain.COLORS)[index] == color for index in best.tolist()]
    assert sum(right) >= 6, right  # guessing, 1 of 8 colors each, gives 6 of 8 with a probability of 1e-4
    with pytest.raises(PromptError, match="'dragon'.*mushroom"):
        model.check_prompt("a red dragon")
