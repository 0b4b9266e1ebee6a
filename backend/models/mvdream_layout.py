# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of MVDream's published U-Net (Shi et al. 2023) in diffusers' terms.

The published class `MultiViewUNetModel` has the layers of Stable Diffusion 2.1's U-Net under the names of the latent
diffusion code, and one more: `camera_embed`, Linear-SiLU-Linear of 16 numbers, whose output is added to the time
embedding. diffusers' UNet2DConditionModel computes the same with `class_embed_type` "projection"
(`latent_diffusion_names.diffusers_name`).

Sources: bytedance/MVDream (configs/sd-v2-base.yaml, MultiViewUNetModel) and ashawkey/mvdream_diffusers (mv_unet.py and
the converter that wrote the published folder).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ModelError

NETWORK = "MultiViewUNetModel"
CAMERA_NUMBERS = 16  # a camera-to-world matrix
GROUPS = 32  # of group normalization
CAMERA_TENSOR = "camera_embed.0.weight"  # no other network on the latent diffusion code has it
REQUIRED = (
    "attention_resolutions", "camera_dim", "channel_mult", "context_dim", "image_size", "in_channels", "model_channels",
    "num_head_channels", "num_res_blocks", "out_channels",
)  # fmt: skip
LISTS = ("attention_resolutions", "channel_mult")
# Fields that change what the network computes, and the values of MVDream's; absent ones have the first value.
FIXED: Mapping[str, tuple[object, ...]] = {
    "adm_in_channels": (None,),
    "camera_dim": (CAMERA_NUMBERS,),
    "conv_resample": (True,),
    "dims": (2,),
    "n_embed": (None,),
    "num_attention_blocks": (None,),
    "num_classes": (None,),
    "resblock_updown": (False,),
    "transformer_depth": (1,),
    "use_linear_in_transformer": (True,),
    "use_scale_shift_norm": (False,),
}


def diffusers_config(published: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The configuration of the equal UNet2DConditionModel; `where` names the file in errors.

    Raises ModelError for ImageDream, which also reads an image, for fields that are missing or of another type, and for
    layers that MVDream does not have.
    """
    if published.get("ip_dim") not in (None, 0):
        raise ModelError(
            f"{where} has ip_dim {published['ip_dim']!r}, so it is ImageDream, which starts from an image; allowed is "
            "MVDream, with ip_dim 0; `dreamwright models download mvdream` brings it"
        )
    if lacking := [name for name in REQUIRED if name not in published]:
        raise ModelError(f"{where} lacks {', '.join(lacking)}; download the model again, whole")
    for name, allowed in FIXED.items():
        if (value := published.get(name, allowed[0])) not in allowed:
            raise ModelError(
                f"{where} has {name} {value!r}; allowed is {allowed[0]!r}, as in MVDream on Stable Diffusion 2.1; "
                "`dreamwright models download mvdream` brings that"
            )
    for name in REQUIRED:
        value = published[name]
        numbers = (value if isinstance(value, list) and value else [None]) if name in LISTS else [value]
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in numbers):
            wanted = "positive whole numbers" if name in LISTS else "one positive whole number"
            raise ModelError(f"{where} has {name} {value!r}; needed: {wanted}; download the model again, whole")
    _check_widths(published, where)
    channels = [int(published["model_channels"]) * factor for factor in published["channel_mult"]]
    attends = [2**level in published["attention_resolutions"] for level in range(len(channels))]
    return {
        "sample_size": published["image_size"],
        "in_channels": published["in_channels"],
        "out_channels": published["out_channels"],
        "block_out_channels": channels,
        "layers_per_block": published["num_res_blocks"],
        "down_block_types": [f"{'CrossAttn' if own else ''}DownBlock2D" for own in attends],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": [f"{'CrossAttn' if own else ''}UpBlock2D" for own in reversed(attends)],
        "attention_head_dim": [width // published["num_head_channels"] for width in channels],  # numbers of heads
        "cross_attention_dim": published["context_dim"],
        "transformer_layers_per_block": published.get("transformer_depth", 1),
        "use_linear_projection": True,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": published["camera_dim"],
        # What the published code has as constants.
        "act_fn": "silu",
        "center_input_sample": False,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": GROUPS,
    }


def _check_widths(published: Mapping[str, Any], where: str) -> None:
    base, head = published["model_channels"], published["num_head_channels"]
    widths = sorted({base * factor for factor in published["channel_mult"]})
    if base % GROUPS:
        raise ModelError(
            f"{where} has model_channels {base}; allowed are multiples of {GROUPS}, its groups of channels; "
            "download the model again, whole"
        )
    if any(width % head for width in widths):
        raise ModelError(
            f"{where} has num_head_channels {head}; allowed are numbers that divide {' and '.join(map(str, widths))}; "
            "download the model again, whole"
        )
