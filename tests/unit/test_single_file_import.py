# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints in a single file become diffusers folders: every tensor, the predictions, the records and the names."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from dreamwright.backend.cli import main as cli
from dreamwright.backend.errors import ModelError
from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.models import single_file_import
from dreamwright.backend.models.clip_vocabulary import byte_symbols, tokenizer_content
from dreamwright.backend.models.download_progress import NullProgress
from dreamwright.backend.models.import_record import read_import_record
from dreamwright.backend.models.local import imported_folder, local_models, resolve_model
from dreamwright.backend.models.pipeline_folder import load_model, load_tokenizer, open_pipeline
from dreamwright.backend.models.safetensors_writer import write_safetensors
from dreamwright.backend.models.single_file_conversion import plan_parts
from dreamwright.backend.models.single_file_families import FAMILIES, SD1, SD2, SDXL
from dreamwright.backend.models.single_file_import import import_single_file, name_from_file, named_folder
from dreamwright.backend.models.single_file_kind import ema_name, identify_single_file
from dreamwright.backend.models.verify import verify_folder
from tests.testing.ldm_files import (
    TINY,
    checkpoint_tensors,
    full_size_shapes,
    networks,
    write_checkpoint,
    write_header,
)

pytestmark = pytest.mark.usefixtures("only_packaged_models")


def take(path, folder, **options):
    return import_single_file(path, folder, NullProgress(), families=TINY, **options)


@pytest.fixture(scope="module")
def made():
    return {family.title: networks(family) for family in TINY}


@pytest.mark.parametrize("family", TINY, ids=lambda family: family.like)
def test_import_keeps_every_tensor_and_the_predictions(tmp_path, made, family):
    own = made[family.title]
    path = write_checkpoint(tmp_path / "my model.safetensors", family, own)
    folder = named_folder(name_from_file(path))
    record = take(path, folder, prediction="epsilon")
    assert record == read_import_record(folder)
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and record.like == family.like
    verdict = verify_folder(folder)
    assert verdict.sound and verdict.hashed == verdict.checked
    assert resolve_model("my-model") == folder and imported_folder("my-model") == folder
    assert {model.name: model.folder for model in local_models()}["my-model"] == folder
    assert sorted(p.name for p in folder.parent.iterdir()) == ["my-model"], "nothing is left beside it"

    opened = open_pipeline(folder)
    for name, network in own.items():
        read = load_model(opened, name, torch.float32, "cpu").state_dict()
        assert all(torch.equal(tensor, read[key]) for key, tensor in network.state_dict().items()), name
    denoiser = load_denoiser(folder)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    time, words = torch.tensor([0.5]), denoiser.embed(["a red chair"])
    step = denoiser.model_timestep(time)
    tokens = load_tokenizer(opened)("a red chair", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        if family.like == "sdxl":
            second = load_tokenizer(opened, "tokenizer_2")("a red chair", padding="max_length", return_tensors="pt")
            first_states = own["text_encoder"](tokens, output_hidden_states=True).hidden_states[-2]
            outputs = own["text_encoder_2"](second.input_ids, output_hidden_states=True)
            hidden = torch.cat([first_states, outputs.hidden_states[-2]], dim=-1)
            ids = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]])
            added = {"text_embeds": outputs.text_embeds, "time_ids": ids}
            expected = own["unet"](z, step, encoder_hidden_states=hidden, added_cond_kwargs=added).sample
        else:
            hidden = own["text_encoder"](tokens).last_hidden_state
            expected = own["unet"](z, step, encoder_hidden_states=hidden).sample
    # Weights of other files lie at other offsets in memory, for which kernels may sum in another order: some roundings
    # of 6e-8 in each of about 30 layers, of values near 1. Other weights would change it by about 0.1 and more.
    torch.testing.assert_close(denoiser.predict_raw(z, time, words), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.like)
def test_headers_of_full_size_are_recognized_and_whole(tmp_path, family):
    path = write_header(tmp_path / "full.safetensors", full_size_shapes(family))
    single = identify_single_file(path, "epsilon")
    assert single.family is family
    parts = {part.name: part for part in plan_parts(single)}
    assert set(parts) == set(family.parts)
    numbers = {name: part.size // 2 for name, part in parts.items()}
    # Published counts: 860, 866 and 2,567 million for the U-Nets, 84 million for the VAE.
    published = {SD1.like: 859_520_964, SD2.like: 865_910_724, SDXL.like: 2_567_463_684}
    assert numbers["unet"] == published[family.like] and numbers["vae"] == 83_653_863


def test_prediction_is_as_given_else_as_stated(tmp_path, made):
    family = TINY[1]
    path = write_checkpoint(tmp_path / "two.safetensors", family, made[family.title])
    with pytest.raises(ModelError, match="add --prediction epsilon .* or --prediction v "):
        identify_single_file(path, families=TINY)
    for stated, expected in (("v", "v"), ("epsilon", "epsilon")):
        metadata = {"modelspec.prediction_type": stated}
        told = write_checkpoint(tmp_path / f"{stated}.safetensors", family, made[family.title], metadata)
        assert identify_single_file(told, families=TINY).prediction == expected
        assert identify_single_file(told, "epsilon", TINY).prediction == "epsilon"
    take(path, tmp_path / "folder", prediction="v")
    assert load_denoiser(tmp_path / "folder").prediction_type == "v_prediction"
    sizes = write_header(tmp_path / "full.safetensors", full_size_shapes(SD2))
    for prediction, size in (("epsilon", 64), ("v", 96)):
        unet = next(part for part in plan_parts(identify_single_file(sizes, prediction)) if part.name == "unet")
        assert json.loads(unet.config)["sample_size"] == size


def test_markers_of_v_prediction_without_signal_at_the_end(tmp_path, made):
    family = TINY[2]
    tensors = checkpoint_tensors(family, made[family.title]) | {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    from safetensors.torch import save_file

    path = tmp_path / "xl.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    take(path, tmp_path / "xl")
    stated = json.loads((tmp_path / "xl" / "scheduler" / "scheduler_config.json").read_text())
    assert stated["prediction_type"] == "v_prediction" and stated["rescale_betas_zero_snr"] is True
    assert load_denoiser(tmp_path / "xl").prediction_type == "v_prediction"


def test_moving_average_is_taken_where_it_is(tmp_path, made):
    family = TINY[0]
    plain = checkpoint_tensors(family, made[family.title])
    average = {ema_name(name): tensor + 1 for name, tensor in plain.items() if name.startswith("model.diffusion_model")}
    from safetensors.torch import save_file

    path = tmp_path / "full.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in (plain | average).items()}, path)
    take(path, tmp_path / "folder")
    read = load_file(tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(read[key], tensor + 1) for key, tensor in made[family.title]["unet"].state_dict().items())


def test_precision_of_the_file_is_kept(tmp_path):
    family = TINY[0]
    half = {name: network.half() for name, network in networks(family).items()}
    take(write_checkpoint(tmp_path / "half.safetensors", family, half), tmp_path / "half")
    for part in ("unet", "vae"):
        with safe_open(tmp_path / "half" / part / "diffusion_pytorch_model.safetensors", "pt") as content:
            assert {content.get_slice(key).get_dtype() for key in content.keys()} == {"F16"}  # noqa: SIM118


def test_failed_import_leaves_nothing(tmp_path, made, monkeypatch):
    family = TINY[0]
    path = write_checkpoint(tmp_path / "one.safetensors", family, made[family.title])
    target = tmp_path / "models" / "one"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dreamwright.backend.models.safetensors_writer.write_safetensors", full)
        with pytest.raises(ModelError, match="disk of .* is full"):
            take(path, target)
    with monkeypatch.context() as patch:
        patch.setattr(single_file_import.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**6})())
        with pytest.raises(ModelError, match="0.0 GB free and the import needs 0.1 GB"):
            take(path, target)
    assert list(target.parent.iterdir()) == []
    left = target.with_name(".one.importing")  # as a killed import leaves it
    (left / "unet").mkdir(parents=True)
    take(path, target)
    assert [p.name for p in target.parent.iterdir()] == ["one"] and verify_folder(target).sound
    with pytest.raises(ModelError, match="exists already; give another folder"):
        take(path, target)


def test_damage_after_an_import_is_found(tmp_path, made):
    family = TINY[0]
    take(write_checkpoint(tmp_path / "one.safetensors", family, made[family.title]), tmp_path / "one")
    weights = tmp_path / "one" / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert verify_folder(tmp_path / "one").faults == (
        "unet/diffusion_pytorch_model.safetensors: differs from the record: its hash is another",
    )


def test_command_imports_lists_and_verifies(tmp_path, made, monkeypatch, capsys):
    family = TINY[0]
    path = write_checkpoint(tmp_path / "props v2.safetensors", family, made[family.title])

    def tiny(*given):
        return import_single_file(*given, families=TINY)

    monkeypatch.setattr(single_file_import, "import_single_file", tiny)
    assert cli.main(["models", "import", str(path)]) == 0
    assert "use it with --model props-v2" in capsys.readouterr().out
    assert cli.main(["models", "import", str(path), "--to", str(tmp_path / "elsewhere" / "mine")]) == 0
    assert "use it with --model mine" in capsys.readouterr().out
    assert resolve_model("mine") == tmp_path / "elsewhere" / "mine"
    assert cli.main(["models"]) == 0
    listed = capsys.readouterr().out
    assert "props-v2: imported from props v2.safetensors: Stable Diffusion 1.x" in listed and "mine: imported" in listed
    assert cli.main(["models", "verify", "props-v2"]) == 0 and "all with their hash" in capsys.readouterr().out
    (tmp_path / "elsewhere" / "mine" / "vae" / "config.json").write_text("{}")
    assert cli.main(["models", "verify", "mine"]) == 2
    assert "`dreamwright models import` again" in capsys.readouterr().err
    for arguments, message in (
        (["--name", "sdxl"], "is the name of a model that is downloaded"),
        (["--name", "../up"], "cannot be used"),
        (["--name", "props-v2"], "exists already"),
    ):
        assert cli.main(["models", "import", str(path), *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


shapes = st.lists(st.integers(0, 5), max_size=4)
tensors = st.dictionaries(
    st.text("abc.", min_size=1, max_size=6),
    st.tuples(shapes, st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])),
    max_size=6,
)


@given(tensors)
def test_written_files_are_read_by_safetensors(tmp_path_factory, described):
    numbers = torch.Generator().manual_seed(0)
    given_ = {name: torch.randn(shape, generator=numbers).to(dtype) for name, (shape, dtype) in described.items()}
    path = tmp_path_factory.mktemp("written") / "file.safetensors"
    counted: list[int] = []
    digest = write_safetensors(path, given_, counted.append)
    read = load_file(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.keys() == given_.keys() and sum(counted) == sum(t.nbytes for t in given_.values())
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in given_.items())


def test_transposed_tensors_are_written_in_order(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3).T
    write_safetensors(tmp_path / "t.safetensors", {"t": tensor}, lambda _: None)
    assert torch.equal(load_file(tmp_path / "t.safetensors")["t"], tensor)


def test_packaged_vocabulary_is_clips(tmp_path):
    for name, content in tokenizer_content("!").items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    vocabulary = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary.values()) == list(range(49408)) and len(set(byte_symbols())) == 256
    import transformers

    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    # The numbers that OpenAI's own tokenizer gives; "!" is number 0.
    assert tokenizer("A photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("dog", padding="max_length", max_length=5).input_ids == [49406, 1929, 49407, 0, 0]
