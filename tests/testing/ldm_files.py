# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiny checkpoints in a single file: random networks under the names of the latent diffusion code and OpenCLIP.

The names are made from diffusers' and transformers' by rules of our own, the inverse of what an import does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from dreamwright.backend.models.single_file_families import SD1, SD2, SDXL, SingleFileFamily, SingleFilePart

TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "num_attention_heads": 2, "num_hidden_layers": 2}
_UNET = {
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 4,
}
_VAE = {
    "sample_size": 16,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}


def tiny_family(family: SingleFileFamily) -> SingleFileFamily:
    """The same family with networks of a few thousand weights; only the vocabulary keeps its size."""
    widths = {"text_encoder": 16, "text_encoder_2": 8}
    context = {SD1.title: 16, SD2.title: 20, SDXL.title: 24}[family.title]
    text = {
        name: {
            **TEXT,
            "hidden_size": widths[name] if family is SDXL else context,
            "intermediate_size": 32,
            "projection_dim": 8,
        }
        for name in family.parts
        if name.startswith("text")
    }
    unet: dict[str, Any] = {**_UNET, "cross_attention_dim": context}
    if family is SDXL:
        unet |= {
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 8 + 6 * 8,
            "transformer_layers_per_block": [1, 2],
        }
    tiny = {"unet": unet, "vae": _VAE, **text}
    parts = {name: replace(part, config={**part.config, **tiny[name]}) for name, part in family.parts.items()}
    return replace(family, context=context, parts=parts, sizes={})


TINY = tuple(tiny_family(family) for family in (SD1, SD2, SDXL))


def build(part: SingleFilePart, device: str = "cpu") -> Any:
    """The part's network with random weights."""
    with torch.device(device):
        if part.layout in ("unet", "vae"):
            return getattr(diffusers, part.class_name).from_config(dict(part.config)).eval()
        return getattr(transformers, part.class_name)(transformers.CLIPTextConfig(**part.config)).eval()


def networks(family: SingleFileFamily, seed: int = 0) -> dict[str, Any]:
    """All networks of a family; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: build(part) for name, part in family.parts.items()}


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def ldm_unet_name(name: str, config: Mapping[str, Any]) -> str:
    """Where the latent diffusion code keeps a layer, or a layer's tensor, of diffusers' U-Net."""
    for ours, theirs in UNET_TOP.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    layers = config["layers_per_block"]
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = "1" if match[1] == "attentions" else str(2 * int(match[2]))
        return f"middle_block.{place}.{_inner(match[1], match[3])}"
    match = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    assert match, name
    side, level, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    first = level * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op{rest.removeprefix('conv')}"
    if kind == "upsamplers":
        place = 2 if config["up_block_types"][level].startswith("CrossAttn") else 1
        return f"output_blocks.{first + layers}.{place}.{rest}"
    number = first + index + (1 if side == "down" else 0)
    place = 0 if kind == "resnets" else 1
    return f"{'input' if side == 'down' else 'output'}_blocks.{number}.{place}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    layer, _, end = rest.partition(".")
    return RESNET[layer] + (f".{end}" if end else "")


def ldm_vae_name(name: str, config: Mapping[str, Any]) -> str:
    """Where the latent diffusion code keeps a tensor of diffusers' AutoencoderKL."""
    last = len(config["block_out_channels"]) - 1
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    for ours, theirs in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        name = name.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
    return name


OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def open_clip_tensors(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A text encoder's tensors as OpenCLIP saves them: queries, keys and values in one matrix, others renamed."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    made = {theirs: bare[ours] for ours, theirs in OPEN_CLIP.items()}
    for i in range(layers):
        own, block = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            joined = [bare[f"{own}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            made[f"{block}.attn.in_proj_{kind}"] = torch.cat(joined)
            for ours, theirs in OPEN_CLIP_LAYER.items():
                made[f"{block}.{theirs}.{kind}"] = bare[f"{own}.{ours}.{kind}"]
    if "text_projection.weight" in bare:
        made["text_projection"] = bare["text_projection.weight"].T.contiguous()
    return made


def ldm_tensors(part: SingleFilePart, network: Any) -> dict[str, Tensor]:
    """A part's tensors under the names of a checkpoint in a single file."""
    tensors, config = network.state_dict(), part.config
    named: dict[str, Tensor]
    if part.layout == "unet":
        named = {ldm_unet_name(name, config): tensor for name, tensor in tensors.items()}
    elif part.layout == "vae":
        named = {ldm_vae_name(name, config): tensor for name, tensor in tensors.items()}
        for name, tensor in named.items():  # its attention is a convolution of 1 x 1 there
            if ".attn_1." in name and tensor.dim() == 2:
                named[name] = tensor[:, :, None, None]
    elif part.layout == "clip":
        named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}
        named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    else:
        named = open_clip_tensors(tensors, config["num_hidden_layers"])
        named["logit_scale"] = torch.tensor(4.6, device=next(iter(tensors.values())).device)
    return {part.prefix + name: tensor for name, tensor in named.items()}


def checkpoint_tensors(family: SingleFileFamily, made: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of a checkpoint, with the schedule's buffers that training leaves in it."""
    tensors = {"alphas_cumprod": torch.linspace(1, 0, 10), "model_ema.decay": torch.tensor(0.99)}
    for name, part in family.parts.items():
        tensors |= ldm_tensors(part, made[name])
    return tensors


def write_checkpoint(
    path: Path, family: SingleFileFamily, made: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> Path:
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint_tensors(family, made).items()}
    save_file(tensors, path, metadata=dict(metadata or {}))
    return path


BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "F8_E4M3": 1, "U8": 1}


def write_header(path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> Path:
    """A file whose header is real and whose tensors are a hole in the file: any size takes no room on the disk."""
    header, end = {}, 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + BYTES[dtype] * int(torch.tensor(shape).prod()) if shape else end + BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with open(path, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
    return path


def full_size_shapes(family: SingleFileFamily, dtype: str = "F16") -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name, dtype and shape of every tensor of a published checkpoint of that family."""
    shapes = {}
    for part in family.parts.values():
        for name, tensor in ldm_tensors(part, build(part, "meta")).items():
            shapes[name] = ("I64" if name.endswith("position_ids") else dtype, tuple(tensor.shape))
    return shapes
