# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that cannot be imported are refused in one line that says what to do, from their headers alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.errors import ModelError
from dreamwright.backend.models import single_file_conversion
from dreamwright.backend.models.download_progress import NullProgress
from dreamwright.backend.models.safetensors_header import header_error
from dreamwright.backend.models.single_file_families import SD1, SDXL, UNET_PREFIX
from dreamwright.backend.models.single_file_import import import_single_file
from tests.testing.ldm_files import TINY, build, ldm_tensors, write_header

CONV_IN = f"{UNET_PREFIX}input_blocks.0.0.weight"


def tiny_shapes(family, dtype="F16"):
    return {
        name: ("I64" if name.endswith("position_ids") else dtype, tuple(tensor.shape))
        for part in family.parts.values()
        for name, tensor in ldm_tensors(part, build(part, "meta")).items()
    }


@pytest.fixture(scope="module")
def whole():
    return {family.like: tiny_shapes(family) for family in TINY}


@pytest.fixture(autouse=True)
def no_tensor_is_read(monkeypatch):
    def refuse(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(single_file_conversion, "safe_open", refuse)


def refusal(path, folder) -> str:
    with pytest.raises(ModelError) as caught:
        import_single_file(path, folder, NullProgress(), "epsilon", TINY)
    text = str(caught.value)
    assert "\n" not in text and "; " in text and str(path) in text and not folder.exists()
    return text


KINDS = {
    "lora": ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 8)}, "is a LoRA; give it to"),
    "peft": ({"unet.mid_block.attentions.0.proj_in.lora_A.weight": (4, 8)}, "is a LoRA"),
    "vae": ({"first_stage_model.decoder.conv_in.weight": (8, 4, 3, 3)}, "is a VAE alone"),
    "bare vae": ({"encoder.conv_in.weight": (8, 3, 3, 3), "decoder.conv_in.weight": (8, 4, 3, 3)}, "is a VAE alone"),
    "unet": ({"input_blocks.0.0.weight": (8, 4, 3, 3)}, "is a network without VAE and text encoder"),
    "text": ({"text_model.embeddings.token_embedding.weight": (8, 4)}, "is a text encoder alone"),
    "embedding": ({"emb_params": (4, 768)}, "is a textual inversion embedding"),
    "refiner": ({"conditioner.embedders.0.model.ln_final.weight": (8,), CONV_IN: (8, 4, 3, 3)}, "is the refiner"),
    "sd3": ({"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (8, 8)}, "Stable Diffusion 3 .*sd3-med"),
    "flux": ({"double_blocks.0.img_attn.qkv.weight": (8, 8)}, "of the FLUX kind"),
    "video": ({f"{UNET_PREFIX}input_blocks.1.1.time_stack.0.norm1.weight": (8,)}, "is a video model"),
    "animatediff": ({"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (8,)}, "is a video model"),
    "controlnet": ({"control_model.input_hint_block.0.weight": (8, 3, 3, 3)}, "is a ControlNet"),
    "mvdream": ({f"{UNET_PREFIX}camera_embed.0.weight": (8, 16)}, "MVDream.*models download mvdream"),
    "playground": ({"edm_mean": (4,), CONV_IN: (8, 4, 3, 3)}, "Playground"),
    "diffusers part": ({"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}, "is one part of a diffusers folder"),
    "other": ({"layer.weight": (8, 8)}, "is no Stable Diffusion checkpoint"),
    "torn": ({f"{UNET_PREFIX}out.2.weight": (4, 8, 3, 3)}, "its network is not whole"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_files_are_named(tmp_path, kind):
    shapes, message = KINDS[kind]
    path = write_header(tmp_path / "it.safetensors", {name: ("F16", shape) for name, shape in shapes.items()})
    with pytest.raises(ModelError, match=message):
        import_single_file(path, tmp_path / "folder", NullProgress(), families=TINY)
    refusal(path, tmp_path / "folder")


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin"])
def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path, ending):
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"\x80\x02}q\x00.")
    assert "weights_only=True" in refusal(path, tmp_path / "folder")


def test_places_without_a_checkpoint(tmp_path):
    assert "there is no file" in refusal(tmp_path / "gone.safetensors", tmp_path / "folder")
    (tmp_path / "dir.safetensors").mkdir()
    assert "is a folder" in refusal(tmp_path / "dir.safetensors", tmp_path / "folder")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "does not end in .safetensors" in refusal(tmp_path / "model.gguf", tmp_path / "folder")
    assert "holds no tensors" in refusal(write_header(tmp_path / "empty.safetensors", {}), tmp_path / "folder")


@pytest.mark.parametrize(("inputs", "words"), [(9, "inpainting"), (8, "instructions"), (5, "depth"), (7, "upscaler")])
def test_networks_of_other_inputs(tmp_path, whole, inputs, words):
    shapes = whole[SD1.like] | {CONV_IN: ("F16", (8, inputs, 3, 3))}
    assert words in refusal(write_header(tmp_path / "it.safetensors", shapes), tmp_path / "folder")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "U8"])
def test_quantized_numbers(tmp_path, dtype):
    path = write_header(tmp_path / "it.safetensors", tiny_shapes(TINY[0], dtype))
    assert f"holds {dtype} numbers" in refusal(path, tmp_path / "folder")


@pytest.mark.parametrize("family", TINY, ids=lambda family: family.like)
def test_absent_parts_and_tensors(tmp_path, whole, family):
    shapes = whole[family.like]
    for part, planned in family.parts.items():
        own = [name for name in shapes if name.startswith(planned.prefix)]
        needed = [name for name in own if not name.endswith(("position_ids", "logit_scale"))]
        without = {name: shape for name, shape in shapes.items() if name not in own}
        text = refusal(write_header(tmp_path / "it.safetensors", without), tmp_path / "folder")
        assert f"lacks its {part}" in text or part == "unet"
        for lost in (needed[len(needed) // 3], needed[-1]):
            if "text_projection" in lost and family.like != SDXL.like:
                continue  # Stable Diffusion 2 does not read it
            path = write_header(tmp_path / "it.safetensors", {n: s for n, s in shapes.items() if n != lost})
            assert "lacks" in (text := refusal(path, tmp_path / "folder")) or "has not the layers" in text, lost
        dtype, shape = shapes[needed[0]]
        grown = shapes | {needed[0]: (dtype, (shape[0] + 1, *shape[1:]))}
        text = refusal(write_header(tmp_path / "it.safetensors", grown), tmp_path / "folder")
        assert "of shape" in text or "has not the layers" in text


def test_extra_layers_of_the_network_are_not_lost(tmp_path, whole):
    shapes = whole[SD1.like] | {f"{UNET_PREFIX}extra.0.weight": ("F16", (8, 8))}
    text = refusal(write_header(tmp_path / "it.safetensors", shapes), tmp_path / "folder")
    assert "layers besides those" in text and "extra.0.weight" in text


def test_text_of_another_width(tmp_path, whole):
    name = next(name for name in whole[SD1.like] if name.endswith("attn2.to_k.weight"))
    shapes = {n: ("F16", (8, 640)) if n.endswith("attn2.to_k.weight") else s for n, s in whole[SD1.like].items()}
    assert name in shapes
    assert "reads text of width 640" in refusal(write_header(tmp_path / "it.safetensors", shapes), tmp_path / "folder")


def rewritten(path, header: bytes, data: bytes):
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


ENTRY = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}
broken_entry = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.one_of(st.none(), st.sampled_from(["F16", "F32", "X"]), st.integers()),
            "shape": st.one_of(st.none(), st.lists(st.one_of(st.integers(-3, 3), st.text(max_size=1)), max_size=3)),
            "data_offsets": st.one_of(st.none(), st.lists(st.one_of(st.integers(-9, 30), st.floats()), max_size=3)),
        },
    ),
)


@given(entry=broken_entry, data=st.integers(0, 24))
def test_damaged_headers_are_refused_in_one_line(tmp_path_factory, entry, data):
    """Whatever a header's entry is, an import ends in one line: the file is damaged, or it is no checkpoint."""
    work = tmp_path_factory.mktemp("broken")
    header = json.dumps({"a": ENTRY, "b": entry}).encode()
    path = rewritten(work / "it.safetensors", header, bytes(data))
    fault = header_error(path)
    text = refusal(path, work / "folder")
    assert fault == "" or fault in text
    whole_entry = isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= set(entry)
    assert whole_entry or fault, "an entry that lacks a field is a fault"


@given(cut=st.integers(0, 400))
def test_truncated_files_are_refused(tmp_path_factory, cut):
    """Cut anywhere, in the length, the header or the tensors, a file is refused."""
    work = tmp_path_factory.mktemp("cut")
    path = write_header(work / "it.safetensors", {CONV_IN: ("F16", (8, 4, 3, 3))})
    content = path.read_bytes()
    path.write_bytes(content[: min(cut, len(content) - 1)])
    assert header_error(path)
    assert "whole" in refusal(path, work / "folder")


def test_header_longer_than_the_file(tmp_path):
    path = tmp_path / "it.safetensors"
    path.write_bytes((10**6).to_bytes(8, "little") + b'{"a":')
    assert "damaged safetensors header" in refusal(path, tmp_path / "folder")
