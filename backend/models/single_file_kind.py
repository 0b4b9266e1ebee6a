# SPDX-License-Identifier: GPL-3.0-or-later
"""What a checkpoint in a single file is, from its header alone: its family, or the reason why it cannot be imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .given_file import FLOATS, check_given_file
from .safetensors_header import read_header, read_metadata
from .single_file_families import (
    EMA_PREFIX,
    FAMILIES,
    UNET_PREFIX,
    VAE_PREFIX,
    Prediction,
    SingleFileFamily,
)

Header = Mapping[str, Mapping[str, Any]]
LORA_MARKS = ("lora_", ".lora.", ".lora_A.", "lokr_", "hada_", "oft_blocks", "oft_diag")
ANOTHER = "choose a Stable Diffusion 1.x, 2.x or XL base checkpoint"
# Parts of names that no Stable Diffusion checkpoint has, and what a file with them is.
MARKS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (LORA_MARKS, "is a LoRA", "give it to `dreamwright generate` with --lora, beside a model"),
    (("camera_embed.",), "is MVDream's checkpoint", "`dreamwright models download mvdream` brings it"),
    (
        ("motion_modules.", "time_stack.", "temporal_transformer", "patchify_proj", "head.modulation"),
        "is a video model",
        ANOTHER,
    ),
    (("joint_blocks.",), "is a Stable Diffusion 3 checkpoint", "`dreamwright models download sd3-medium` brings one"),
    (("double_blocks.", "double_layers.", "single_transformer_blocks."), "is a checkpoint of the FLUX kind", ANOTHER),
    (("control_model.", "controlnet_", "input_hint_block."), "is a ControlNet", ANOTHER),
    (("ip_adapter.", "image_proj."), "is an IP-Adapter", ANOTHER),
    (("edm_mean",), "is Playground 2.5, whose noise levels have no training steps", ANOTHER),
    (("emb_params", "string_to_param"), "is a textual inversion embedding", ANOTHER),
    (("conditioner.embedders.0.model.",), "is the refiner of Stable Diffusion XL", "choose the base model"),
    (("down_blocks.", "up_blocks."), "is one part of a diffusers folder", "give that folder to --model"),
)
QUANTIZED = (".absmax", ".quant_map", ".weight_scale", ".scale_weight", "scaled_fp8")
INPUTS = {
    4: "",
    5: "reads a depth map besides (5 input channels)",
    7: "is an upscaler (7 input channels)",
    8: "edits images by instructions (8 input channels)",
    9: "is for inpainting (9 input channels)",
}


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint that can be imported. `has_ema`: it holds the moving average of its network besides."""

    path: Path
    family: SingleFileFamily
    prediction: Prediction
    zero_snr: bool  # trained with no signal at the last step
    header: Header
    has_ema: bool


def ema_name(name: str) -> str:
    """The name of a U-Net tensor's moving average in the latent diffusion code, which drops the dots."""
    return EMA_PREFIX + "".join(name.split(".")[1:])


def identify_single_file(
    path: Path, prediction: Prediction | None = None, families: Sequence[SingleFileFamily] = FAMILIES
) -> SingleFile:
    """Family and prediction of a checkpoint; no tensor is read. `prediction` None means what the file or family says.

    Raises ModelError, in one line with what to do: no file, a pickle, a damaged or cut off file, another kind of
    model, a part that is missing, numbers of another kind, a prediction that cannot be told.
    """
    _check_is_checkpoint(path)
    header, stated = read_header(path), read_metadata(path)
    if kind := _other_kind(header):
        raise ModelError(f"{path} {kind[0]}; {kind[1]}")
    unet = [name for name in header if name.startswith(UNET_PREFIX)]
    inputs = int(_shape(header, f"{UNET_PREFIX}input_blocks.0.0.weight", path)[1])
    if fault := INPUTS.get(inputs, f"has a network of {inputs} input channels"):
        raise ModelError(f"{path} {fault}; {ANOTHER}")
    family = _family(header, unet, path, families)
    for part, planned in family.parts.items():
        if not any(name.startswith(planned.prefix) for name in header):
            raise ModelError(
                f"{path} lacks its {part}: no tensor is named {planned.prefix}...; choose a checkpoint that holds "
                f"network, VAE and text encoder, or download the model that it was made from and use it as it is"
            )
    used = tuple(planned.prefix for planned in family.parts.values())
    for name, entry in header.items():
        if name.startswith(used) and entry["dtype"] not in FLOATS and not name.endswith("position_ids"):
            raise ModelError(
                f"{path} holds {entry['dtype']} numbers ({name}), as quantized checkpoints do; allowed are "
                f"{', '.join(FLOATS)}; choose the float16 or bfloat16 file of the same model"
            )
    return SingleFile(
        path,
        family,
        _prediction(path, family, header, stated, prediction),
        "ztsnr" in header,
        header,
        all(ema_name(name) in header for name in unet),
    )


def _check_is_checkpoint(path: Path) -> None:
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give one checkpoint file, or give the folder to --model as it is")
    if not path.is_file():
        raise ModelError(f"there is no file {str(path)!r}; give a checkpoint that ends in .safetensors")
    check_given_file(path, str(path), ANOTHER)
    if not read_header(path):
        raise ModelError(f"{path} holds no tensors; {ANOTHER}")


def _other_kind(header: Header) -> tuple[str, str] | None:
    """What a file is that is no text-to-image checkpoint of a known family, and what to do; None for one that may be.

    The keys of a U-Net decide first: a checkpoint may carry small extras under other names.
    """
    for marks, kind, advice in MARKS:
        if any(mark in name for name in header for mark in marks):
            return kind, advice
    if any(name.endswith(QUANTIZED) for name in header):
        return "is a quantized checkpoint", "choose the float16 or bfloat16 file of the same model"
    if any(name.startswith(UNET_PREFIX) for name in header):
        return None
    if _starts(header, VAE_PREFIX) or (_starts(header, "encoder.") and _starts(header, "decoder.")):
        return "is a VAE alone", "choose a checkpoint that holds the network besides"
    if _starts(header, "input_blocks."):
        return "is a network without VAE and text encoder", "choose a checkpoint that holds all three"
    if _starts(header, "text_model.") or _starts(header, "cond_stage_model.") or _starts(header, "conditioner."):
        return "is a text encoder alone", "choose a checkpoint that holds the network besides"
    return "is no Stable Diffusion checkpoint: no tensor is named model.diffusion_model...", ANOTHER


def _starts(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _shape(header: Header, name: str, path: Path) -> Sequence[int]:
    """The shape of a matrix or a kernel. Raises ModelError."""
    shape = header[name]["shape"] if name in header else ()
    if len(shape) < 2:
        raise ModelError(f"{path} lacks {name}, so its network is not whole; copy or download it again, whole")
    return list(shape)


def _family(header: Header, unet: Iterable[str], path: Path, families: Sequence[SingleFileFamily]) -> SingleFileFamily:
    reads = next((name for name in unet if name.endswith(".attn2.to_k.weight")), f"{UNET_PREFIX}...attn2.to_k.weight")
    width = int(_shape(header, reads, path)[1])
    for family in families:
        if family.context == width:
            return family
    known = ", ".join(f"{family.context} ({family.title})" for family in families)
    raise ModelError(f"{path} has a network that reads text of width {width}; allowed are {known}; {ANOTHER}")


def _prediction(
    path: Path,
    family: SingleFileFamily,
    header: Header,
    stated: Mapping[str, str],
    given: Prediction | None,
) -> Prediction:
    """What the network predicts: as given, else as the file states it, else the family's own. Raises ModelError."""
    if given is not None:
        return given
    if "v_pred" in header:
        return "v"
    said = stated.get("modelspec.prediction_type", "").lower()
    if said in ("v", "v_prediction", "epsilon"):
        return "epsilon" if said == "epsilon" else "v"
    if family.prediction is None:
        raise ModelError(
            f"{path} is of {family.title} and does not say whether it predicts the noise or v; add --prediction "
            "epsilon (as 2.0-base and 2.1-base, of 512 pixels) or --prediction v (as 2.0 and 2.1, of 768 pixels)"
        )
    return family.prediction
