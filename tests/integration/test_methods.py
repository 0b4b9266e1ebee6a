# SPDX-License-Identifier: GPL-3.0-or-later
"""`--method`: the presets and models of each method, and complete Dream Fields runs on a tiny CLIP."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dreamwright.backend.cli.generate import job_from
from dreamwright.backend.cli.main import build_parser, main
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import PRESETS
from dreamwright.backend.config.recipes.clip import DREAM_FIELDS
from dreamwright.backend.errors import ConfigError, ModelError
from dreamwright.backend.models.registry import BY_NAME
from dreamwright.backend.server.requests import check_submission
from dreamwright.backend.training.events import Checkpoint, StepCompleted
from dreamwright.backend.training.job import make_job
from dreamwright.backend.training.methods import METHODS, check_model, preset_of
from dreamwright.backend.training.pipeline import TextTo3DPipeline
from dreamwright.shared.messages import SubmitJob
from tests.testing.tiny_clip import PROCESSOR, write_clip
from tests.testing.tiny_model import QUICK, save_tiny_model

PROMPT = "a red mushroom"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("pipeline") / "tiny")


def quick(*settings: str):
    return apply_settings(DREAM_FIELDS, [*QUICK, "render.coarse_resolution=0", "clip.crops=2", *settings])


def parsed(*arguments: str):
    return job_from(build_parser().parse_args(["generate", PROMPT, *arguments]))


def test_methods_have_their_own_preset_and_model():
    plain, fields = parsed(), parsed("--method", "dream-fields")
    assert (plain.preset, plain.model, plain.config.run.method) == ("draft", "starter", "dreamfusion")
    assert (fields.preset, fields.model, fields.config.run.method) == ("dream-fields", "starter-clip", "dream-fields")
    assert parsed("--preset", "dream-fields-paper").model == "starter-clip"
    for method in METHODS.values():
        assert PRESETS[method.preset].config.run.method == method.name and BY_NAME[method.model].kind == method.kind


def test_preset_of_another_method_is_refused():
    with pytest.raises(ConfigError, match="allowed with dream-fields are dream-fields, dream-fields-paper"):
        preset_of("dream-fields", "draft")
    with pytest.raises(ConfigError, match="allowed are dreamfusion, dream-fields"):
        preset_of("clip-forge", None)


def test_model_of_the_wrong_kind_is_refused(clip, pipeline):
    check_model("dream-fields", "tiny", clip)
    check_model("dreamfusion", "tiny", pipeline)
    with pytest.raises(
        ModelError,
        match="is a CLIP model, which cannot guide dreamfusion; allowed are starter, deepfloyd-if.*dream-fields with "
        "--method",
    ):
        check_model("dreamfusion", "tiny", clip)
    with pytest.raises(
        ModelError, match="is a text-to-image pipeline, which cannot guide dream-fields; allowed are starter-clip"
    ):
        check_model("dream-fields", "tiny", pipeline)


def test_command_refuses_a_model_before_loading(clip, pipeline, tmp_path, capsys):
    out = str(tmp_path / "prop.glb")
    assert main(["generate", PROMPT, "--model", str(clip), "--out", out, "--device", "cpu"]) == 2
    assert "cannot guide dreamfusion" in capsys.readouterr().err
    assert (
        main(
            ["generate", PROMPT, "--method", "dream-fields", "--model", str(pipeline), "--out", out, "--device", "cpu"]
        )
        == 2
    )
    assert "cannot guide dream-fields" in capsys.readouterr().err


def test_method_is_part_of_the_fingerprint():
    job = make_job(PROMPT, "m", "p", quick())
    other = replace(job, config=replace(job.config, run=replace(job.config.run, method="dreamfusion")))
    crops = replace(job, config=apply_settings(job.config, ["clip.crops=3"]))
    assert len({job.fingerprint(), other.fingerprint(), crops.fingerprint()}) == 3


@pytest.mark.slow
def test_dream_fields_raises_the_cosine_and_resumes(clip):
    job = make_job(
        PROMPT, str(clip), "dream-fields", quick("run.steps=24", "run.checkpoint_interval=8", "clip.crops=4")
    )
    whole, states = TextTo3DPipeline(job, "cpu", None, lambda: False), {}
    cosines = []
    for event in whole.events():
        if isinstance(event, StepCompleted):
            cosines.append(event.scalars["cosine"])
        if isinstance(event, Checkpoint):
            states[event.state.step] = event.state
    assert sum(cosines[-6:]) > sum(cosines[:6])
    resumed = TextTo3DPipeline(job, "cpu", states[8], lambda: False)
    last = [event.state for event in resumed.events() if isinstance(event, Checkpoint)][-1]
    assert last.step == 24
    for name, value in states[24].tensors.items():
        assert value.equal(last.tensors[name]), name


def test_generate_writes_a_dream_fields_prop(clip, tmp_path):
    out = tmp_path / "prop.glb"
    arguments = [
        "generate",
        PROMPT,
        "--method",
        "dream-fields",
        "--model",
        str(clip),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    for setting in (*QUICK, "render.coarse_resolution=0", "clip.crops=2", "mesh.threshold=0.5"):
        arguments += ["--set", setting]
    assert main(arguments) == 0
    data = out.read_bytes()
    assert b'"method":"dream-fields"' in data.replace(b" ", b"") and str(clip).encode() in data


@pytest.mark.parametrize("name,damage,word", [
    ("config.json", {"model_type": "siglip"}, "'siglip'"),
    ("preprocessor_config.json", {**PROCESSOR, "resample": 2}, "another preprocessing"),
    ("preprocessor_config.json", {**PROCESSOR, "crop_size": {"height": 16, "width": 16}}, "another preprocessing"),
    ("preprocessor_config.json", {**PROCESSOR, "image_std": [0, 1, 1]}, "three numbers"),
    ("tokenizer_config.json", {"tokenizer_class": "SomebodysTokenizer"}, "SomebodysTokenizer"),
])  # fmt: skip
def test_folder_that_is_no_clip_is_refused(tmp_path, name, damage, word):
    from dreamwright.backend.guidance.clip_model import load_image_text

    folder = write_clip(tmp_path / "tiny")
    (folder / name).write_text(json.dumps(damage))
    with pytest.raises(ModelError, match=word):
        load_image_text(folder)


def test_pickled_and_damaged_weights_are_refused(tmp_path):
    from dreamwright.backend.guidance.clip_model import load_image_text

    folder = write_clip(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot load the network"):
        load_image_text(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only pickled weights"):
        load_image_text(folder)


def test_submission_with_a_model_of_the_wrong_kind_is_refused():
    with pytest.raises(ModelError, match="cannot guide dream-fields"):
        check_submission(SubmitJob("t" * 16, PROMPT, "", "starter", "dream-fields", 0, {}))
