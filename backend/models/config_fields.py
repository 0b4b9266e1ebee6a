# SPDX-License-Identifier: GPL-3.0-or-later
"""Fields that a part's configuration must state, since a library would take its own default for an absent one.

Two rules. A file that was saved by the very library version that is installed states every field of its class, as
saving writes all of them. A file of another version states at least the fields of `REQUIRED`, which every published
model of that class has had since the class exists; fields that were added later are left to their defaults, which keep
the behavior of older models.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .families import FamilyName

_UNET = (
    "act_fn", "attention_head_dim", "block_out_channels", "center_input_sample", "cross_attention_dim",
    "down_block_types", "downsample_padding", "flip_sin_to_cos", "freq_shift", "in_channels", "layers_per_block",
    "mid_block_scale_factor",
    "norm_eps", "norm_num_groups", "out_channels", "sample_size", "up_block_types",
)  # fmt: skip
_VAE = (
    "act_fn", "block_out_channels", "down_block_types", "in_channels", "latent_channels", "layers_per_block",
    "out_channels", "up_block_types",
)  # fmt: skip
_CLIP_TEXT = (
    "hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "max_position_embeddings",
    "num_attention_heads", "num_hidden_layers", "vocab_size",
)  # fmt: skip
_BETAS = ("beta_end", "beta_schedule", "beta_start", "num_train_timesteps")
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "UNet2DConditionModel": _UNET,
    "SD3Transformer2DModel": (
        "attention_head_dim", "caption_projection_dim", "in_channels", "joint_attention_dim", "num_attention_heads",
        "num_layers", "out_channels", "patch_size", "pooled_projection_dim", "pos_embed_max_size", "sample_size",
    ),
    "AutoencoderKL": _VAE,
    "CLIPTextModel": _CLIP_TEXT,
    "CLIPTextModelWithProjection": (*_CLIP_TEXT, "projection_dim"),
    "T5EncoderModel": (
        "d_ff", "d_kv", "d_model", "feed_forward_proj", "layer_norm_epsilon", "num_heads", "num_layers",
        "relative_attention_num_buckets", "vocab_size",
    ),
    "CLIPModel": ("projection_dim", "text_config", "vision_config"),
    "FlowMatchEulerDiscreteScheduler": ("num_train_timesteps", "shift"),
}  # fmt: skip
# What a family needs besides: Stable Diffusion 1.x was published before the VAE's factor was written down (0.18215).
OF_FAMILY: Mapping[tuple[FamilyName, str], tuple[str, ...]] = {
    ("sdxl", "AutoencoderKL"): ("scaling_factor",),
    ("flow", "AutoencoderKL"): ("scaling_factor", "shift_factor"),
}
PREDICTION_TYPE_SINCE = (0, 9)  # diffusers' version that introduced the field; older models predict the noise
# Fields of no effect on a frozen text encoder, which transformers writes or leaves out by value.
WITHOUT_EFFECT = frozenset(("transformers_version", "model_type", "architectures", "dtype"))
CONFIG_CLASSES = {
    "CLIPTextModel": "CLIPTextConfig",
    "CLIPTextModelWithProjection": "CLIPTextConfig",
    "T5EncoderModel": "T5Config",
    "CLIPModel": "CLIPConfig",
}


def check_fields(path: Path, class_name: str, config: Mapping[str, Any], family: FamilyName | None = None) -> None:
    """Raise ModelError naming the fields that a part's configuration at `path` lacks."""
    required = [*REQUIRED.get(class_name, ())]
    if family is not None:
        required += OF_FAMILY.get((family, class_name), ())
    if class_name.endswith("Scheduler") and class_name not in REQUIRED:
        required += ["num_train_timesteps"] if config.get("trained_betas") is not None else _BETAS
        if _version(config.get("_diffusers_version")) >= PREDICTION_TYPE_SINCE:
            required.append("prediction_type")
    required += sorted(_saved_fields(class_name, config))
    lacking = [name for name in dict.fromkeys(required) if name not in config]
    if lacking:
        more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
        raise ModelError(
            f"{path} lacks {', '.join(lacking[:4])}{more}; needed is every field that {class_name} has no safe "
            "default for; download the model again, whole"
        )
    if class_name == "CLIPModel":
        for name, kind in (("text_config", "CLIPTextConfig"), ("vision_config", "CLIPVisionConfig")):
            _check_nested(path, config, name, kind)


def _check_nested(path: Path, config: Mapping[str, Any], name: str, kind: str) -> None:
    nested = config[name]
    if not isinstance(nested, Mapping):
        raise ModelError(f"{path} has {name} {nested!r}; needed is an object; download the model again, whole")
    if config.get("transformers_version") == _installed("transformers"):
        lacking = sorted(_transformers_fields(kind) - set(nested))
        if lacking:
            raise ModelError(f"{path} lacks {name}.{lacking[0]}; download the model again, whole")


def _saved_fields(class_name: str, config: Mapping[str, Any]) -> frozenset[str]:
    """All fields that saving writes, for a file that the installed version saved."""
    if class_name in CONFIG_CLASSES:
        same = config.get("transformers_version") == _installed("transformers")
        return _transformers_fields(CONFIG_CLASSES[class_name]) if same else frozenset()
    same = config.get("_diffusers_version") == _installed("diffusers")
    return _diffusers_fields(class_name) if same else frozenset()


@cache
def _installed(library: str) -> str:
    import diffusers
    import transformers

    return str({"diffusers": diffusers, "transformers": transformers}[library].__version__)


@cache
def _diffusers_fields(class_name: str) -> frozenset[str]:
    """The registered parameters of a diffusers class."""
    import diffusers

    parameters = inspect.signature(getattr(diffusers, class_name).__init__).parameters.values()
    return frozenset(p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD)


@cache
def _transformers_fields(class_name: str) -> frozenset[str]:
    """The fields that a transformers configuration writes whatever their values are."""
    import transformers

    return frozenset(getattr(transformers, class_name)().to_diff_dict()) - WITHOUT_EFFECT


def _version(text: object) -> tuple[int, ...]:
    """ "0.35.0.dev0" -> (0, 35); a missing or unreadable one counts as the newest."""
    parts = str(text).split(".")[:2]
    return tuple(int(part) for part in parts) if len(parts) == 2 and all(map(str.isdecimal, parts)) else (999, 0)
