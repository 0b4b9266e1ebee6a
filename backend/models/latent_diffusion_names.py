# SPDX-License-Identifier: GPL-3.0-or-later
"""Where diffusers keeps the layers of a U-Net of the latent diffusion code: Stable Diffusion's, and MVDream's."""

from __future__ import annotations

import re

_TOP = {
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "camera_embed.0": "class_embedding.linear_1",
    "camera_embed.2": "class_embedding.linear_2",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_BLOCK = re.compile(r"(input|output)_blocks\.(0|[1-9]\d*)\.([012])\.(.+)\.(weight|bias)", re.ASCII)
_MIDDLE_BLOCK = re.compile(r"middle_block\.([012])\.(.+)\.(weight|bias)", re.ASCII)
_FLAT_BLOCK = re.compile(r"(input|output)_blocks_(\d+)_(\d)_(.+)")
_FLAT_MIDDLE = re.compile(r"middle_block_(\d)_(.+)")
_FLAT_TOP = {name.replace(".", "_"): place.replace(".", "_") for name, place in _TOP.items()} | {
    "label_emb_0_0": "add_embedding_linear_1",  # SDXL's
    "label_emb_0_2": "add_embedding_linear_2",
}


def diffusers_name(name: str, layers: int) -> str:
    """Where UNet2DConditionModel keeps the tensor `name`, with `layers` residual blocks a level.

    No two names have one place. Any other name gives a name that UNet2DConditionModel does not have.
    """
    top, _, kind = name.rpartition(".")
    if top in _TOP and kind in ("weight", "bias"):
        return f"{_TOP[top]}.{kind}"
    if match := _MIDDLE_BLOCK.fullmatch(name):
        layer = _layer(f"mid_block.{_MIDDLE[match[1]]}", match[2])
        return f"{layer}.{match[3]}" if layer else name
    if not (match := _BLOCK.fullmatch(name)):
        return name
    down, index, part, inner, kind = match[1] == "input", int(match[2]), match[3], match[4], match[5]
    level, layer_index = divmod(index - 1 if down else index, layers + 1)
    block = f"{'down' if down else 'up'}_blocks.{level}"
    if down and layer_index == layers:
        layer = f"{block}.downsamplers.0.conv" if (part, inner) == ("0", "op") else ""
    elif not down and part != "0" and inner == "conv" and layer_index == layers:
        layer = f"{block}.upsamplers.0.conv"
    elif part == "2" or level < 0:
        layer = ""
    else:
        layer = _layer(f"{block}.{'resnets' if part == '0' else 'attentions'}.{layer_index}", inner)
    return f"{layer}.{kind}" if layer else name


def flat_diffusers_name(name: str, layers: int) -> str:
    """`diffusers_name` of a layer, without its kind, where dots are underscores in both names, as in kohya's files."""
    if name in _FLAT_TOP:
        return _FLAT_TOP[name]
    dotted = name
    if match := _FLAT_BLOCK.fullmatch(name):
        dotted = f"{match[1]}_blocks.{match[2]}.{match[3]}.{_inner(match[4])}"
    elif match := _FLAT_MIDDLE.fullmatch(name):
        dotted = f"middle_block.{match[1]}.{_inner(match[2])}"
    return diffusers_name(f"{dotted}.weight", layers).removesuffix(".weight").replace(".", "_")


def _layer(module: str, inner: str) -> str:
    """A layer of a residual block, or of a transformer, whose layers have the same names in both; "" for none."""
    if ".attentions." in module:
        return f"{module}.{inner}"
    return f"{module}.{_RESNET[inner]}" if inner in _RESNET else ""


def _inner(rest: str) -> str:
    """The numbered layers of a residual block with their dot; a transformer's stay as they are."""
    return re.sub(r"^(in_layers|emb_layers|out_layers)_(\d)$", r"\1.\2", rest)
