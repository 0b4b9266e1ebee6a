# SPDX-License-Identifier: GPL-3.0-or-later
"""A model folder from a stranger can be refused or refuse to work, but runs no code, names no file, fills no memory."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.errors import ModelError
from dreamwright.backend.models import json_files
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.models.pipeline_folder import check_parts, load_model, load_tokenizer, open_pipeline
from dreamwright.backend.server.requests import check_submission, job_of
from dreamwright.backend.training.job import identify_model
from dreamwright.shared.messages import SubmitJob

STARTER = resolve_model("starter")
JSON_FILES = sorted(str(path.relative_to(STARTER)) for path in STARTER.rglob("*.json"))
CODE = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER, tmp_path / "model"))


def request(model: Path) -> SubmitJob:
    return SubmitJob("t", "a red mushroom", "", str(model), "draft", 0, {})


def use(model: Path) -> None:
    """What a server and its worker do with the folder before anything is loaded, and the loading of its networks."""
    import torch

    check_submission(request(model), folders=True)
    identify_model(job_of(request(model)))
    folder = open_pipeline(model)
    check_parts(folder)
    load_tokenizer(folder)
    for part in ("text_encoder", "unet"):
        load_model(folder, part, torch.float32, "cpu")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("content", ["[" * 200_000, '{"a":' * 100_000], ids=["lists", "maps"])
@pytest.mark.parametrize("name", JSON_FILES)
def test_json_nested_without_end_is_refused_in_one_line(model: Path, name: str, content: str) -> None:
    (model / name).write_text(content)
    with pytest.raises(ModelError) as caught:
        use(model)
    assert str(caught.value).isprintable() and str(model) in str(caught.value)


@pytest.mark.parametrize("name", JSON_FILES)
def test_json_of_any_size_is_not_read(model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "LARGEST", 1000)
    (model / name).write_text(json.dumps({"x": "y" * 2000}))
    with pytest.raises(ModelError):
        use(model)


def test_classes_are_those_of_the_supported_families(model: Path) -> None:
    for changes in ({"unet": ["evil", "Evil"]}, {"_class_name": "os.system"}, {"scheduler": ["os", "system"]}):
        edit(model / "model_index.json", **changes)
        with pytest.raises(ModelError, match="allowed"):
            use(model)
        shutil.copyfile(STARTER / "model_index.json", model / "model_index.json")


def test_code_in_a_folder_is_never_run(model: Path, tmp_path: Path) -> None:
    """`auto_map` and modules beside the weights, with which transformers and diffusers load a stranger's classes."""
    ran = tmp_path / "ran"
    for part in ("unet", "text_encoder", "tokenizer", "."):
        (model / part / "evil.py").write_text(CODE.format(str(ran)))
    edit(model / "unet/config.json", auto_map={"AutoModel": "evil.Evil"}, _class_name="evil.Evil")
    edit(model / "text_encoder/config.json", auto_map={"AutoModel": "evil.Evil"}, custom_pipelines={"x": {}})
    edit(model / "tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    edit(model / "model_index.json", custom_pipeline="evil", unet=["evil", "UNet2DConditionModel"])
    with contextlib.suppress(ModelError):  # refusing is as good
        use(model)
    assert not ran.exists()


def test_paths_in_a_tokenizer_lead_nowhere(model: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not a vocabulary")
    names = dict.fromkeys(("tokenizer_file", "vocab_file", "merges_file", "spm_file", "name_or_path"), str(secret))
    edit(model / "tokenizer/tokenizer_config.json", **names)
    try:
        use(model)
    except ModelError as error:
        assert "not a vocabulary" not in str(error)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.pt"])
def test_pickled_weights_are_never_opened(model: Path, name: str) -> None:
    (model / "unet/diffusion_pytorch_model.safetensors").rename(model / "unet" / name)
    with pytest.raises(ModelError):
        use(model)


@pytest.mark.parametrize("length", [2**63, 100 * 2**20 + 1, 2**40, 0])
def test_safetensors_headers_of_any_claimed_length_are_refused(model: Path, length: int) -> None:
    (model / "unet/diffusion_pytorch_model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}" * 100)
    with pytest.raises(ModelError):
        use(model)
