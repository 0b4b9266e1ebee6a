# SPDX-License-Identifier: GPL-3.0-or-later
"""MVDream's published U-Net written once more, from its description and plain torch functions.

`published_shapes` lists the tensors of the published layout; `published_network` computes with them. Nothing here uses
diffusers or the package, so that both can be compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# bytedance/MVDream, mvdream/configs/sd-v2-base.yaml, as ashawkey/mvdream_diffusers' converter saves it in config.json.
PUBLISHED_CONFIG: Mapping[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_head_channels": 64,
    "transformer_depth": 1,
    "context_dim": 1024,
    "use_checkpoint": False,
    "camera_dim": 16,
}
# Two levels of each kind: with attention, and the last without, as in the published network.
TINY_CONFIG = {
    **PUBLISHED_CONFIG, "image_size": 8, "model_channels": 32, "attention_resolutions": [1], "num_res_blocks": 1,
    "channel_mult": [1, 2], "num_head_channels": 16, "context_dim": 16,
}  # fmt: skip
Weights = Mapping[str, Tensor]


def camera_matrices(count: int, elevation: float, start: float = 0.0) -> Tensor:
    """MVDream's cameras (count, 16): OpenGL's Y-up matrices around the object, turned to Blender's Z-up.

    Position, then the camera's axes by Gram-Schmidt from the viewing direction and the world's up, in float64.
    """
    rows = []
    for azimuth in np.radians(start + 360.0 / count * np.arange(count)):
        level = math.radians(elevation)
        away = np.array([math.cos(level) * math.sin(azimuth), math.sin(level), math.cos(level) * math.cos(azimuth)])
        upward = np.array([0.0, 1.0, 0.0]) - away[1] * away  # the world's up without its part along the view
        upward /= np.sqrt(upward @ upward)
        matrix = np.zeros((4, 4))
        matrix[:3, :3] = np.array([np.cross(upward, away), upward, away]).T
        matrix[:3, 3], matrix[3, 3] = away, 1.0
        to_blender = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # y becomes z
        rows.append((to_blender @ matrix).ravel())
    return torch.from_numpy(np.stack(rows))


def levels_of(config: Mapping[str, Any]) -> list[tuple[int, bool]]:
    """Channels of each level, and whether its layers attend."""
    return [
        (config["model_channels"] * factor, 2**level in config["attention_resolutions"])
        for level, factor in enumerate(config["channel_mult"])
    ]


def published_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of the published network with its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    embedded, text = 4 * config["model_channels"], config["context_dim"]

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def residual(name: str, inputs: int, outputs: int) -> None:
        layer(f"{name}.in_layers.0", inputs)
        layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
        layer(f"{name}.emb_layers.1", outputs, embedded)
        layer(f"{name}.out_layers.0", outputs)
        layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.skip_connection", outputs, inputs, 1, 1)

    def transformer(name: str, width: int) -> None:
        layer(f"{name}.norm", width)
        layer(f"{name}.proj_in", width, width)
        block = f"{name}.transformer_blocks.0"
        for attention, source in (("attn1", width), ("attn2", text)):
            layer(f"{block}.{attention}.to_q", width, width, bias=False)
            layer(f"{block}.{attention}.to_k", width, source, bias=False)
            layer(f"{block}.{attention}.to_v", width, source, bias=False)
            layer(f"{block}.{attention}.to_out.0", width, width)
        layer(f"{block}.ff.net.0.proj", 8 * width, width)
        layer(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            layer(f"{block}.{norm}", width)
        layer(f"{name}.proj_out", width, width)

    base, levels = config["model_channels"], levels_of(config)
    for name, inputs in (("time_embed", base), ("camera_embed", config["camera_dim"])):
        layer(f"{name}.0", embedded, inputs)
        layer(f"{name}.2", embedded, embedded)
    layer("input_blocks.0.0", base, config["in_channels"], 3, 3)
    skips, width, index = [base], base, 1
    for level, (channels, attends) in enumerate(levels):
        for _ in range(config["num_res_blocks"]):
            residual(f"input_blocks.{index}.0", width, channels)
            if attends:
                transformer(f"input_blocks.{index}.1", channels)
            width, index = channels, index + 1
            skips.append(width)
        if level < len(levels) - 1:
            layer(f"input_blocks.{index}.0.op", width, width, 3, 3)
            index += 1
            skips.append(width)
    residual("middle_block.0", width, width)
    transformer("middle_block.1", width)
    residual("middle_block.2", width, width)
    index = 0
    for level, (channels, attends) in reversed(list(enumerate(levels))):
        for number in range(config["num_res_blocks"] + 1):
            residual(f"output_blocks.{index}.0", width + skips.pop(), channels)
            if attends:
                transformer(f"output_blocks.{index}.1", channels)
            if level and number == config["num_res_blocks"]:
                layer(f"output_blocks.{index}.{2 if attends else 1}.conv", channels, channels, 3, 3)
            width, index = channels, index + 1
    layer("out.0", base)
    layer("out.2", config["out_channels"], base, 3, 3)
    return shapes


def random_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random float32 tensors under the published names, scaled so that text, time and camera all matter."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in published_shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        norm = len(shape) == 1 and name.endswith("weight")
        weights[name] = 1 + 0.1 * noise if norm else 1.2 * noise / math.sqrt(math.prod(shape[1:]) or 1)
    return weights


def published_network(
    config: Mapping[str, Any],
    weights: Weights,
    z: Tensor,
    time: Tensor,
    text: Tensor,
    camera: Tensor | None,
    views: int,
) -> Tensor:
    """The published network's answer to z (n, c, h, w), time (n,), text (n, tokens, width) and camera (n, 16).

    Self-attention is over the positions of `views` rows in a row; no camera adds nothing to the time embedding.
    """
    heads_of = config["num_head_channels"]

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return functional.conv2d(x, weight, weights[f"{name}.bias"], stride, padding=weight.shape[-1] // 2)

    def group_norm(name: str, x: Tensor, eps: float) -> Tensor:
        return functional.group_norm(x, 32, weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def perceptron(name: str, x: Tensor) -> Tensor:
        return linear(f"{name}.2", functional.silu(linear(f"{name}.0", x)))

    def attention(name: str, queries: Tensor, sources: Tensor) -> Tensor:
        """Softmax of scaled products, head by head, for one object: queries (positions, width)."""
        query, key, value = (linear(f"{name}.to_{k}", x) for k, x in (("q", queries), ("k", sources), ("v", sources)))
        parts = []
        for head in torch.arange(query.shape[-1]).split(heads_of):
            scores = query[:, head] @ key[:, head].T / math.sqrt(heads_of)
            parts.append(scores.softmax(-1) @ value[:, head])
        return linear(f"{name}.to_out.0", torch.cat(parts, dim=-1))

    def residual(name: str, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = conv(f"{name}.in_layers.2", functional.silu(group_norm(f"{name}.in_layers.0", x, 1e-5)))
        hidden = hidden + linear(f"{name}.emb_layers.1", functional.silu(embedding))[:, :, None, None]
        hidden = conv(f"{name}.out_layers.3", functional.silu(group_norm(f"{name}.out_layers.0", hidden, 1e-5)))
        return hidden + (conv(f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in weights else x)

    def transformer(name: str, x: Tensor) -> Tensor:
        block = f"{name}.transformer_blocks.0"

        def normed(number: int, states: Tensor) -> Tensor:
            norm = f"{block}.norm{number}"
            return functional.layer_norm(states, states.shape[-1:], weights[f"{norm}.weight"], weights[f"{norm}.bias"])

        n, width, height, wide = x.shape
        states = linear(f"{name}.proj_in", group_norm(f"{name}.norm", x, 1e-6).flatten(2).transpose(1, 2))
        joined = []
        for rows in normed(1, states).split(views):  # all positions of one object
            flat = rows.reshape(-1, width)
            joined.append(attention(f"{block}.attn1", flat, flat).reshape(rows.shape))
        states = states + torch.cat(joined)
        crossed = normed(2, states)
        states = states + torch.stack([attention(f"{block}.attn2", crossed[i], text[i]) for i in range(n)])
        content, gate = linear(f"{block}.ff.net.0.proj", normed(3, states)).chunk(2, dim=-1)
        states = states + linear(f"{block}.ff.net.2", content * functional.gelu(gate))
        return x + linear(f"{name}.proj_out", states).transpose(1, 2).reshape(n, width, height, wide)

    def block(name: str, x: Tensor, embedding: Tensor) -> Tensor:
        """All layers of one of the numbered blocks, told apart by the tensors that they have."""
        for part in (f"{name}.{number}" for number in range(3)):
            if f"{part}.in_layers.0.weight" in weights:
                x = residual(part, x, embedding)
            elif f"{part}.proj_in.weight" in weights:
                x = transformer(part, x)
            elif f"{part}.op.weight" in weights:
                x = conv(f"{part}.op", x, stride=2)
            elif f"{part}.conv.weight" in weights:
                x = conv(f"{part}.conv", functional.interpolate(x, scale_factor=2, mode="nearest"))
            elif f"{part}.weight" in weights:
                x = conv(part, x)
        return x

    half = config["model_channels"] // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
    angles = time.double()[:, None] * rates
    embedding = perceptron("time_embed", torch.cat([angles.cos(), angles.sin()], dim=1).to(z))
    if camera is not None:
        embedding = embedding + perceptron("camera_embed", camera)
    blocks = len(config["channel_mult"]) * (config["num_res_blocks"] + 1)
    skips = []
    for index in range(blocks):
        z = block(f"input_blocks.{index}", z, embedding)
        skips.append(z)
    z = block("middle_block", z, embedding)
    for index in range(blocks):
        z = block(f"output_blocks.{index}", torch.cat([z, skips.pop()], dim=1), embedding)
    return conv("out.2", functional.silu(group_norm("out.0", z, 1e-5)))
