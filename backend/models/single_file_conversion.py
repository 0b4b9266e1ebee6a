# SPDX-License-Identifier: GPL-3.0-or-later
"""The tensors of a checkpoint under the names of a diffusers folder, by diffusers' own converters.

The converters run twice: first on empty tensors of the header's shapes, so that everything that is missing or of
another shape is found before a tensor is read, then on the tensors themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders import single_file_utils
from safetensors import safe_open
from torch import Tensor

from ..errors import ModelError, one_line
from .single_file_families import PREDICTIONS, UNET_PREFIX, SingleFilePart
from .single_file_kind import SingleFile, ema_name

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
WRAPPER = "text_model."  # around a text encoder's layers in published folders; transformers has it or not by version
BUFFERS = ("position_ids", "logit_scale", "attn_mask")  # in some text encoders; counted anew, or never read


@dataclass(frozen=True)
class ConvertedPart:
    """A part that was checked: its configuration file, and the names in the checkpoint that it is made of."""

    name: str
    part: SingleFilePart
    config: str  # JSON
    sources: Mapping[str, str]  # the name that the converter expects -> the name in the file
    size: int  # bytes of its tensors


def plan_parts(single: SingleFile) -> list[ConvertedPart]:
    """Every part with its configuration, once its tensors are proved to be all there with the right shapes.

    Raises ModelError naming the first tensor that is missing, of another shape, or unknown to the family.
    """
    return [_plan(single, name, part) for name, part in single.family.parts.items()]


def scheduler_config(single: SingleFile) -> str:
    """The JSON of the noise schedule that the checkpoint was trained with."""
    class_name, config = single.family.scheduler
    zero_snr = {"rescale_betas_zero_snr": True} if single.zero_snr else {}
    settings = {**config, "prediction_type": PREDICTIONS[single.prediction], **zero_snr}
    return str(getattr(diffusers, class_name)(**settings).to_json_string())


def model_index(single: SingleFile) -> str:
    """The JSON of model_index.json."""
    family = single.family
    libraries = {name: "transformers" if name.startswith("text_encoder") else "diffusers" for name in family.parts}
    parts = {name: [library, family.parts[name].class_name] for name, library in libraries.items()}
    parts |= {name: ["transformers", "CLIPTokenizer"] for name in family.pads}
    absent = ("safety_checker", "feature_extractor", "image_encoder")
    content = {
        "_class_name": family.pipeline,
        "_diffusers_version": diffusers.__version__,
        **parts,
        "scheduler": ["diffusers", family.scheduler[0]],
        **{name: [None, None] for name in absent},
        **family.options,
    }
    return json.dumps(content, indent=2)


def read_part(single: SingleFile, planned: ConvertedPart) -> dict[str, Tensor]:
    """The part's tensors under diffusers' names, in the file's own precision.

    Tensors of the file are mapped into memory, so that most of them take none until they are written.
    """
    with safe_open(single.path, framework="pt") as content:
        return _convert(planned.part, {name: content.get_tensor(source) for name, source in planned.sources.items()})


def _plan(single: SingleFile, name: str, part: SingleFilePart) -> ConvertedPart:
    sources = {key: key for key in single.header if key.startswith(part.prefix)}
    if part.layout == "unet" and single.has_ema:
        sources = {key: ema_name(key) for key in sources}
    if part.layout in ("clip", "open_clip"):
        sources = {key: source for key, source in sources.items() if not key.endswith(BUFFERS)}
    empty = {key: _empty(single.header[source]) for key, source in sources.items()}
    sizes = single.family.sizes
    size = {"sample_size": sizes[single.prediction]} if part.layout == "unet" and sizes else {}
    wanted, config = _wanted(part, size)
    try:
        found = {key: tuple(tensor.shape) for key, tensor in _convert(part, empty).items()}
    except (KeyError, IndexError, AttributeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the {name} in {single.path} has not the layers of {single.family.title} ({type(error).__name__}: "
            f"{one_line(error)}); choose a checkpoint of that family, whole"
        ) from error
    _compare(single, name, found, wanted)
    if part.layout == "unet" and len(found) != len(sources):
        unknown = _unknown(part, empty)
        raise ModelError(
            f"{single.path} has layers besides those of {single.family.title} (first: {unknown}); they would be lost; "
            "choose a checkpoint without extensions"
        )
    return ConvertedPart(name, part, config, sources, sum(_bytes(single.header[source]) for source in sources.values()))


def _compare(
    single: SingleFile, name: str, found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    title = single.family.title
    if lacking := sorted(set(wanted) - set(found)):
        raise ModelError(
            f"{single.path} lacks {len(lacking)} of {len(wanted)} tensors of its {name} (first: {lacking[0]}); needed "
            f"is all of {title}; copy or download it again, whole, or choose a checkpoint of that architecture"
        )
    if unknown := sorted(set(found) - set(wanted)):
        raise ModelError(
            f"{single.path} has {len(unknown)} tensors in its {name} that {title} has not (first: {unknown[0]}); "
            "choose a checkpoint of that architecture"
        )
    for key in sorted(wanted):
        if found[key] != wanted[key]:
            raise ModelError(
                f"{single.path} has {key} of shape {list(found[key])} in its {name}; needed for {title} is "
                f"{list(wanted[key])}; choose a checkpoint of that architecture"
            )


def _unknown(part: SingleFilePart, empty: Mapping[str, Tensor]) -> str:
    """The first tensor that the converter leaves out."""
    used = {id(tensor) for tensor in _convert(part, dict(empty)).values()}
    return next((key for key, tensor in empty.items() if id(tensor) not in used), "twice the same")


def _wanted(part: SingleFilePart, size: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Shape of every tensor of the class with that configuration, and the configuration as JSON with all fields."""
    config = {**part.config, **size}
    with torch.device("meta"):
        if part.layout in ("clip", "open_clip"):
            described = transformers.CLIPTextConfig(**config, architectures=[part.class_name])
            model: Any = getattr(transformers, part.class_name)(described)
            text = described.to_json_string()
        else:
            model = getattr(diffusers, part.class_name).from_config(config)
            text = model.to_json_string()
    return {_saved_name(part, key): tuple(value.shape) for key, value in model.state_dict().items()}, text


def _saved_name(part: SingleFilePart, key: str) -> str:
    """The name in published folders, which every version of transformers reads."""
    if part.layout in ("unet", "vae"):
        return key
    bare = key.removeprefix(WRAPPER)
    return bare if bare.startswith("text_projection.") else WRAPPER + bare


def _convert(part: SingleFilePart, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' converter of the part's layout."""
    found: dict[str, Tensor] = CONVERTERS[part.layout](part, tensors)
    return {_saved_name(part, key): tensor for key, tensor in found.items()}


def _unet(part: SingleFilePart, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {key.replace(part.prefix, UNET_PREFIX, 1): tensor for key, tensor in tensors.items()}
    return dict(single_file_utils.convert_ldm_unet_checkpoint(named, dict(part.config)))


def _vae(part: SingleFilePart, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(single_file_utils.convert_ldm_vae_checkpoint(tensors, dict(part.config)))


def _clip(part: SingleFilePart, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(single_file_utils.convert_ldm_clip_checkpoint(tensors))


def _open_clip(part: SingleFilePart, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=part.config["hidden_size"]))
    return dict(single_file_utils.convert_open_clip_checkpoint(model, tensors, prefix=part.prefix))


CONVERTERS: Mapping[str, Callable[[SingleFilePart, dict[str, Tensor]], dict[str, Tensor]]] = {
    "unet": _unet,
    "vae": _vae,
    "clip": _clip,
    "open_clip": _open_clip,
}


def _empty(entry: Mapping[str, Any]) -> Tensor:
    return torch.empty(entry["shape"], dtype=DTYPES.get(entry["dtype"], torch.float32), device="meta")


def _bytes(entry: Mapping[str, Any]) -> int:
    first, last = entry["data_offsets"]
    return int(last - first)
