# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRAs that cannot be used are refused in one line that says what to do, before a weight is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.config.schema import ModelConfig
from dreamwright.backend.errors import DreamwrightError, ModelError
from dreamwright.backend.guidance.denoisers import loading
from dreamwright.backend.models.import_record import import_record_path
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.models.lora_choice import lora_folder
from dreamwright.backend.models.pipeline_folder import open_pipeline
from dreamwright.backend.models.registry import STARTER
from dreamwright.backend.models.user_folders import models_root
from dreamwright.backend.server.requests import check_submission
from tests.testing.ldm_files import write_header
from tests.testing.scripted_worker_server import submit_message
from tests.testing.tiny_families import write_family

ATTENTION = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def lora_header(width: int, layer: str = ATTENTION, outputs: int = 16, rank: int = 2, dtype: str = "F16"):
    base = f"lora_unet_{layer}"
    return {
        f"{base}.lora_down.weight": (dtype, (rank, width)),
        f"{base}.lora_up.weight": (dtype, (outputs, rank)),
        f"{base}.alpha": (dtype, ()),
    }


@pytest.fixture(scope="module")
def folders_by_name(tmp_path_factory):
    return {name: write_family(name, tmp_path_factory.mktemp(name)) for name in ("sd15", "sdxl", "sd3-without-t5")}


@pytest.fixture(autouse=True)
def no_weight_is_read(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a weight was read")

    monkeypatch.setattr(loading, "load_model", refuse)
    monkeypatch.setattr(loading, "load_vae", refuse)


def refusal(folder, path) -> str:
    with pytest.raises(DreamwrightError) as caught:
        loading.load_denoiser(folder, config=ModelConfig(loras=str(path)))
    text = str(caught.value)
    assert "\n" not in text and "; " in text and path.name in text
    return text


def test_fitting_header_gets_as_far_as_the_weights(folders_by_name, tmp_path):
    path = write_header(tmp_path / "it.safetensors", lora_header(16))
    with pytest.raises(AssertionError, match="a weight was read"):
        loading.load_denoiser(folders_by_name["sd15"], config=ModelConfig(loras=str(path)))


@pytest.mark.parametrize(
    ("width", "words"),
    [(768, "of Stable Diffusion 1.x"), (1024, "of Stable Diffusion 2.x"), (2048, "of Stable Diffusion XL"), (24, "24")],
)
def test_another_base_is_named(folders_by_name, tmp_path, width, words):
    text = refusal(folders_by_name["sd15"], write_header(tmp_path / "it.safetensors", lora_header(width)))
    assert words in text and f"width {width}" in text and "width 16" in text
    assert "choose a LoRA of that base" in text


def test_sd_lora_on_sdxl_and_families_without_loras(folders_by_name, tmp_path):
    path = write_header(tmp_path / "it.safetensors", lora_header(16))
    assert "of width 24" in refusal(folders_by_name["sdxl"], path)
    assert "LoRAs are read for StableDiffusionPipeline" in refusal(folders_by_name["sd3-without-t5"], path)
    assert "a MultiViewIFPipeline" in refusal(resolve_model(STARTER), path)


OTHERS = {
    "loha": ("lora_unet_x.hada_w1_a", "is a LoHa"),
    "lokr": ("lora_unet_x.lokr_w1", "is a LoKr"),
    "dora": (f"lora_unet_{ATTENTION}.dora_scale", "is a DoRA"),
    "tucker": (f"lora_unet_{ATTENTION}.lora_mid.weight", "of three factors"),
    "flux": ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "of FLUX"),
    "sd3": ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "of a transformer"),
    "video": ("down_blocks.0.motion_modules.0.lora_A.weight", "of a video model"),
    "model": ("model.diffusion_model.input_blocks.0.0.weight", "is no factor of a LoRA"),
    "te2": ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "lacks the up factor"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_are_named(folders_by_name, tmp_path, kind):
    name, words = OTHERS[kind]
    header = lora_header(16) | {name: ("F16", (4, 4))}
    assert words in refusal(folders_by_name["sd15"], write_header(tmp_path / "it.safetensors", header))


def test_layers_that_do_not_fit(folders_by_name, tmp_path):
    sd = folders_by_name["sd15"]

    def text(header):
        return refusal(sd, write_header(tmp_path / "it.safetensors", header))

    assert "which sd15 does not have" in text(lora_header(16, "down_blocks_7_resnets_0_conv1"))
    assert "which sd15 does not have" in text(lora_header(16, "input_blocks_99_1_proj_in"))
    assert "factors of shapes" in text(lora_header(16, outputs=17))
    ranks = lora_header(16) | {f"lora_unet_{ATTENTION}.lora_up.weight": ("F16", (16, 3))}
    assert "factors of shapes [2, 16] and [16, 3]" in text(ranks)
    half = {name: shape for name, shape in lora_header(16).items() if "lora_up" not in name}
    assert "lacks the up factor" in text(half)
    ldm = "input_blocks_3_1_transformer_blocks_0_attn2_to_k"
    assert "twice, under two names" in text(lora_header(16) | lora_header(16, ldm))
    assert "holds F8_E4M3 numbers" in text(lora_header(16, dtype="F8_E4M3"))
    assert "holds no tensors" in text({})


def import_sd15() -> None:
    """A tiny model that a server offers as "sd15"."""
    record = import_record_path(write_family("sd15", models_root()))
    record.parent.mkdir(parents=True)
    record.write_text("{}", encoding="utf-8")  # only its presence is asked for


def test_users_of_a_server_may_only_name_loras(tmp_path, only_packaged_models):
    """A path of the server's disk is answered alike whether it is there or not; admins may give paths."""
    lora_folder().mkdir(parents=True)
    for place in (tmp_path, lora_folder()):
        write_header(place / "clay.safetensors", lora_header(16))
    import_sd15()

    def submit(lora, folders):
        return check_submission(submit_message(model="sd15", settings={"model.loras": lora}), folders)

    assert submit("clay:0.5", False).config.model.loras == "clay:0.5"
    answers = set()
    for place in (tmp_path / "clay.safetensors", tmp_path / "gone.safetensors"):
        with pytest.raises(ModelError, match="allowed are names of files in the folder loras") as caught:
            submit(str(place), False)
        answers.add(str(caught.value).replace(str(place), ""))
    assert len(answers) == 1
    assert submit(str(tmp_path / "clay.safetensors"), True)
    with pytest.raises(ModelError, match="there is no LoRA"):
        submit("gone", True)


def test_a_submission_names_a_lora_of_another_base_without_its_folder(tmp_path, only_packaged_models):
    """The server refuses it before it queues the job; the starter takes none."""
    lora_folder().mkdir(parents=True)
    write_header(lora_folder() / "clay.safetensors", lora_header(2048))
    (lora_folder() / "cut.safetensors").write_bytes((lora_folder() / "clay.safetensors").read_bytes()[:-1])
    import_sd15()

    def refused(model, lora):
        with pytest.raises(ModelError) as caught:
            check_submission(submit_message(model=model, settings={"model.loras": lora}), folders=False)
        assert str(lora_folder()) not in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    assert refused("sd15", "clay:0.5").startswith("clay is a LoRA of Stable Diffusion XL, whose text has width 2048")
    assert "cut is cut off" in refused("sd15", "cut")
    assert "clay cannot change starter" in refused("starter", "clay")


def test_files_that_are_no_safetensors(folders_by_name, tmp_path):
    for ending, words in ((".pt", "is a pickle"), (".ckpt", "is a pickle"), (".gguf", "only that format is read")):
        path = tmp_path / f"it{ending}"
        path.write_bytes(b"\x80\x02}q\x00.")
        assert words in refusal(folders_by_name["sd15"], path)
    assert "there is no LoRA" in refusal(folders_by_name["sd15"], tmp_path / "gone.safetensors")


@given(cut=st.integers(0, 260))
def test_truncated_files_are_refused(folders_by_name, tmp_path_factory, cut):
    path = write_header(tmp_path_factory.mktemp("cut") / "it.safetensors", lora_header(16))
    content = path.read_bytes()
    path.write_bytes(content[: min(cut, len(content) - 1)])
    assert "whole" in refusal(folders_by_name["sd15"], path)


names = st.sampled_from(["lora_down.weight", "lora_up.weight", "alpha", "lora_A.weight", "lora_B.weight", "diff"])
bases = st.sampled_from(
    [f"lora_unet_{ATTENTION}", "lora_te_text_model_encoder_layers_0_mlp_fc1", "unet.conv_in", "x", ""]
)
shapes = st.lists(st.sampled_from([0, 1, 2, 4, 16, 32]), max_size=5).map(tuple)


@given(st.dictionaries(st.tuples(bases, names).map(".".join), shapes, max_size=5))
def test_any_header_is_read_or_refused_in_one_line(folders_by_name, tmp_path_factory, described):
    from dreamwright.backend.models.lora_layout import read_lora

    header = {name: ("F16", shape) for name, shape in described.items()}
    path = write_header(tmp_path_factory.mktemp("any") / "it.safetensors", header)
    try:
        layers = read_lora(path, open_pipeline(folders_by_name["sd15"]))
    except ModelError as error:
        assert "\n" not in str(error) and "; " in str(error)
    else:
        assert layers and {tensor for one in layers for tensor in (one.down, one.up, one.alpha)} - {""} == set(header)
