# SPDX-License-Identifier: GPL-3.0-or-later
"""The device memory that a run needs, estimated before anything is loaded, and compared with what is free.

Weights are exact, from the safetensors headers. Activations follow one rule a family, in numbers of the network's dtype
for each image, measured on the CPU with torch 2.13 (`tests/unit/test_memory.py` measures again):

    U-Net       skip connections + K max_i(C_i h_i^2), K = 12 without transformer blocks (pixel models), 21 with them
    transformer 10 x tokens x width
    LoRA        G sum_i((2 l_i + 1) C_i h_i^2) for the graph of one view, l_i layers of level i, G = 36 with transformer
                blocks, 13 without them, and G = 12 of tokens x width of each layer of a transformer; where it is
                recomputed 7 or 8 and 1.3 of those and the graph of one block
    VAE encoder 13.5 sum_i(C_i h_i^2) with its gradient; with `model.vae_recompute` 2 while the network runs, 7 after it
    renderer    170 bytes a sample of a ray; the mip MLP besides 88 bytes x width x blocks a point of one chunk, the
                hash grid 8 bytes x features x levels a sample; the compiled loops 400 bytes a ray and 66 numbers a cell
    field       weight, gradient and optimizer state of each parameter; voxels 24 numbers a cell besides, the hash grid
                another gradient of its table

with C_i channels and h_i pixels a side of level i. The estimate is within a factor of two of the measured peak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config.parsing import apply_settings
from ..config.schedules import view_resolution, views_per_step
from ..config.schema import Config
from ..config.usage import memory_settings, resumable_memory_settings
from ..errors import ConfigError, InsufficientMemoryError
from ..fields.hash_levels import hash_levels
from ..fields.mip_mlp import CHUNK
from ..rendering.renderer_choice import is_compiled
from .lora_targets import camera_numbers, lora_numbers
from .parameter_counts import largest_tensor, resident_numbers, weight_bytes
from .pipeline_folder import PipelineFolder

GB = 1e9
LORA_COPIES = 5  # of each number: weight, gradient, its sum over views, two moments
TEXT_TOKENS = 333  # of SD3's transformer: two CLIPs' 77 and T5's 256
SAMPLE_BYTES, VIEW_SAMPLE_BYTES = 170, 90  # a sample of a training ray, of a preview's
PREVIEW_RAYS = 2 * 96 * 96
RAY_BYTES, COMPILED_CELL_FLOATS = 400, 66  # of the compiled loops: rows of 8 + 1 numbers, a gradient of each part
POINT_BYTES = 88  # of the mip MLP, times width and blocks: 22 floats
CELL_FLOATS = 24  # of the voxel field's dense grid
HASH_BYTES = 8  # of the hash grid, times features and levels: a feature and its gradient
WORTH_NAMING = 20_000_000  # bytes that a setting must save to be advised
LIBRARIES = 400_000_000  # bytes that cuBLAS, cuDNN and fragmentation take on a CUDA device
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by purpose; all of them are needed at the same time."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        named = ", ".join(f"{name} {size_text(size)}" for name, size in self.parts.items() if size >= 0.01 * self.total)
        return f"about {size_text(self.total)} ({named})"


def estimate_memory(
    folder: PipelineFolder, config: Config, dtype: torch.dtype, device: torch.device | str
) -> MemoryEstimate:
    """The memory of optimizing with this model on this device. Text encoders do not count: they are freed before.

    Raises ModelError for files that cannot be read.
    """
    stages = [_views_together(config, progress) for progress in (0.0, 1.0)]  # with the early resolution, and after it
    n = max(stages)
    calls = config.guidance.rows_per_draw
    offload = config.model.offload if torch.device(device).type != "cpu" else "off"
    parts = {"network": resident_numbers(folder, folder.network, offload, dtype) * dtype.itemsize}
    activations = n * config.guidance.noises * calls * _network_numbers(folder, config)
    if config.guidance.rule == "vsd":
        lora = lora_numbers(folder, config.guidance.lora_rank, dtype) + camera_numbers(folder)
        parts["LoRA and its optimizer"] = LORA_COPIES * torch.float32.itemsize * lora
        activations = max(activations, n * _graph_numbers(folder, config))
    activations += largest_tensor(folder, folder.network, dtype)
    parts["its activations"] = activations * dtype.itemsize
    if "vae" in folder.classes:
        upcast = dtype == torch.float16 and folder.config("vae").get("force_upcast", False)
        number = torch.float32 if upcast else dtype
        parts["VAE"] = weight_bytes(folder, "vae", number)
        work = n * _vae_work(folder, config) * number.itemsize
        recomputed = max(2 * work, 7 * work - parts["its activations"])
        parts["its encoder's activations"] = recomputed if config.model.vae_recompute else int(13.5 * work)
    # A preview is larger than a step's views may be, but is rendered while the guidance rests.
    guiding = sum(size for name, size in parts.items() if "activations" in name)
    compiled = is_compiled(config.render, config.field, device)
    preview = PREVIEW_RAYS * (RAY_BYTES if compiled else VIEW_SAMPLE_BYTES * config.render.samples)
    rendered = (
        _renderer_bytes(config, views, progress, compiled) for views, progress in zip(stages, (0.0, 1.0), strict=True)
    )
    parts["renderer"] = max(*rendered, preview - guiding)
    parts["field and optimizer"] = _field_bytes(config)
    if torch.device(device).type == "cuda":
        parts["CUDA's libraries"] = LIBRARIES
    return MemoryEstimate(parts)


def check_memory(folder: PipelineFolder, config: Config, dtype: torch.dtype, device: torch.device | str) -> str:
    """One line with the memory that is needed and free.

    Raises InsufficientMemoryError with advice when the run cannot fit.
    """
    needed, free = estimate_memory(folder, config, dtype, device), free_bytes(device)
    if free is None:
        return f"memory: {needed} on {device}, whose free memory is unknown"
    if needed.total > free and not config.run.ignore_memory:
        advice = reduce_memory(folder, config, dtype, device, memory_settings(), fits=free)
        raise InsufficientMemoryError(
            f"this run needs {needed} on {device}, where {size_text(free)} is free; {advice}; or free some memory, "
            "or set run.ignore_memory=true to try all the same"
        )
    return f"memory: {needed} of {size_text(free)} free on {device}"


def reduce_memory(
    folder: PipelineFolder,
    config: Config,
    dtype: torch.dtype,
    device: torch.device | str,
    candidates: Sequence[str] = resumable_memory_settings(),
    fits: int | None = None,
    otherwise: str = "no setting would help much; choose a smaller model",
) -> str:
    """Advice: the candidates that save memory, the most effective first, each with what it saves on its own.

    `fits`: bytes that the run must fit in, if known. `otherwise`: the advice where no candidate helps.
    """
    now = estimate_memory(folder, config, dtype, device).total
    savings: dict[str, int] = {}
    for setting in candidates:
        name, _, value = setting.partition("=")
        if name == "model.dtype":
            smaller = getattr(torch, value)
            useful = torch.device(device).type == "cuda" or value == "bfloat16"
            changed, number = config, smaller if useful and smaller.itemsize < dtype.itemsize else dtype
        else:
            try:
                changed, number = apply_settings(config, [setting]), dtype
            except ConfigError:
                continue  # it contradicts another setting
        saved = now - estimate_memory(folder, changed, number, device).total
        if saved > max(0.02 * now, WORTH_NAMING) and not any(
            known.split("=")[0] == name and savings[known] >= saved for known in savings
        ):
            savings[setting] = saved
    if not savings:
        return otherwise
    ranked = sorted(savings, key=lambda setting: -savings[setting])
    listed = ", ".join(f"{setting} (saves {size_text(savings[setting])})" for setting in ranked[:4])
    enough = fits is None or now - max(savings.values()) <= fits
    return f"lower one of: {listed}" if enough else f"lower several of: {listed}; or choose a smaller model"


def free_bytes(device: torch.device | str) -> int | None:
    """Free bytes of a device, as CUDA reports them or as Linux's MemAvailable; None where they are unknown."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
    limit = _cgroup_left()
    return available if limit is None else min(available, limit)


def size_text(size: int) -> str:
    """A size with its unit: "2.5 GB", "81 MB"."""
    return f"{size / GB:.1f} GB" if size >= 0.1 * GB else f"{max(1, round(size / 1e6))} MB"


def _cgroup_left() -> int | None:
    """Bytes left below a container's limit (cgroup v2), not counting caches that can be dropped; None without one."""
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None


def _graph_numbers(folder: PipelineFolder, config: Config) -> int:
    """Numbers that the graph of one view keeps while a LoRA learns from it."""
    network = folder.config(folder.network)
    size, recompute = _latent_size(folder, config, int(network.get("sample_size", 64))), config.guidance.lora_recompute
    if folder.family.name == "flow":
        width = int(network.get("num_attention_heads", 18)) * int(network.get("attention_head_dim", 64))
        block = ((size // int(network.get("patch_size", 2))) ** 2 + TEXT_TOKENS) * width
        layers = int(network.get("num_layers", 18))
        return int(1.3 * layers + 12) * block if recompute else 12 * layers * block
    work, depths = _levels(network, size)
    every = sum((2 * count + 1) * numbers for count, numbers in zip(depths, work, strict=False))
    graph, kept = (13, 8) if folder.family.works_on_pixels else (36, 7)
    return kept * every + graph * (max(depths) + 1) * max(work) if recompute else graph * every


def _levels(network: Mapping[str, Any], size: int) -> tuple[list[int], list[int]]:
    """C_i h_i^2 of a U-Net's levels, and their layers."""
    channels = [int(c) for c in network.get("block_out_channels", (320, 640, 1280, 1280))]
    layers = network.get("layers_per_block", 2)
    return [c * (size >> level) ** 2 for level, c in enumerate(channels)], (
        [layers] * len(channels) if isinstance(layers, int) else list(layers)
    )


def _network_numbers(folder: PipelineFolder, config: Config) -> int:
    """Peak numbers of one image's forward pass."""
    network = folder.config(folder.network)
    size = _latent_size(folder, config, int(network.get("sample_size", 64)))
    if folder.family.name == "flow":
        width = int(network.get("num_attention_heads", 18)) * int(network.get("attention_head_dim", 64))
        return 10 * ((size // int(network.get("patch_size", 2))) ** 2 + TEXT_TOKENS) * width
    work, layers = _levels(network, size)
    skips = (
        work[0]
        + sum(count * numbers for count, numbers in zip(layers, work, strict=False))  # both come from the folder
        + sum(numbers // 4 for numbers in work[:-1])
    )
    return skips + (12 if folder.family.works_on_pixels else 21) * max(work)


def _vae_work(folder: PipelineFolder, config: Config) -> int:
    """sum_i(C_i h_i^2): numbers of one image that the encoder's levels hold, each counted once."""
    vae, network = folder.config("vae"), folder.config(folder.network)
    channels = [int(c) for c in vae.get("block_out_channels", (128, 256, 512, 512))]
    size = _latent_size(folder, config, int(network.get("sample_size", 64))) << (len(channels) - 1)
    return sum(c * (size >> level) ** 2 for level, c in enumerate(channels))


def _latent_size(folder: PipelineFolder, config: Config, own: int) -> int:
    """Pixels or latents a side of the network's input."""
    if not config.model.image_size or "vae" not in folder.classes:
        return own
    return config.model.image_size >> (len(folder.config("vae").get("block_out_channels", (0,) * 4)) - 1)


def _views_together(config: Config, progress: float) -> int:
    """Views that are rendered and scored together: `run.views_at_once`, but at least a set and at most all."""
    views = views_per_step(config, progress)
    return min(max(config.run.views_at_once or views, config.camera.views_per_set), views)


def _renderer_bytes(config: Config, views: int, progress: float, compiled: bool) -> int:
    """Bytes that rendering these views keeps for the backward pass, as if no sample were masked."""
    render, field = config.render, config.field
    pixels = views * view_resolution(render, progress) ** 2
    samples = pixels * render.samples
    if compiled:
        kept = RAY_BYTES * pixels + 4 * COMPILED_CELL_FLOATS * max(field.voxel_resolutions) ** 3
    else:
        kept = SAMPLE_BYTES * samples
    if field.kind == "mip-mlp":
        kept += POINT_BYTES * field.hidden_width * field.hidden_blocks * min(samples, CHUNK)
    elif field.kind == "hash-grid":
        kept += HASH_BYTES * field.hash_features * field.hash_levels * samples
    if config.background.kind == "mlp":
        kept += 32 * config.background.hidden_width * pixels
    return kept


def _field_bytes(config: Config) -> int:
    """Weights, gradients, optimizer state and what else a step makes of the field's size; float32."""
    field = config.field
    if field.kind == "voxels":
        shapes = [(channels, r**3) for r in field.voxel_resolutions for channels in (1, 3)]
        cells = max(field.voxel_resolutions) ** 3
        # A grid (1, C, r, r, r) is one row of C r^3 numbers to Shampoo.
        matrices, work = [(1, channels * numbers) for channels, numbers in shapes], CELL_FLOATS * cells
    elif field.kind == "hash-grid":
        last, width = hash_levels(field)[-1], field.hash_hidden_width
        entries = last.offset + last.size
        hidden = [(width, field.hash_features * field.hash_levels), *[(width, width)] * (field.hash_hidden_layers - 1)]
        matrices = [(field.hash_features, entries), *hidden, (1, width), *hidden, (3, width)]
        work = field.hash_features * entries
    else:
        width = field.hidden_width
        matrices = [(width, 6 * field.encoding_levels), *[(width, width)] * (2 * field.hidden_blocks), (4, width)]
        work = 0
    numbers = sum(rows * columns for rows, columns in matrices)
    if config.optimizer.kind == "adam":
        return 4 * (4 * numbers + work)
    block = config.optimizer.block_size
    statistics = sum(
        2 * (a * a + b * b) for rows, columns in matrices for a in _tiles(rows, block) for b in _tiles(columns, block)
    )
    return 4 * (5 * numbers + statistics + work)


def _tiles(length: int, block: int) -> list[int]:
    """Sizes of the blocks that a side is divided into."""
    return [block] * (length // block) + ([length % block] if length % block else [])
